// thermocline report: results as one self-contained HTML file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "sim/commands.h"
#include "sim/report.h"
#include "sim/results.h"

namespace thermocline {
namespace {

struct ReportOptions {
  std::vector<std::string> results;
  std::string out, csv, json;
};

std::string default_out(const std::string& results) {
  return std::filesystem::is_directory(results)
             ? results + "/report.html"
             : std::filesystem::path(results).replace_extension(".html").string();
}

// As it was written: it names the machine that made the results, not this one.
void write_document(const std::string& path, const Json& document) {
  const std::string text = document.dump(2) + "\n";
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
  } else if (!path.empty()) {
    write_file(path, text);
  }
}

void write_report(const ReportOptions& options) {
  const Json document = open_documents(options.results);
  const Results results = parse_results(document, options.results.front());
  if (results.models.empty()) {
    throw bad_input(options.results.front(), "rows of kind \"policy\" or \"run\"", "none");
  }
  const Report report = make_report(results);
  const std::string out = options.out.empty() ? default_out(options.results.front()) : options.out;
  write_file(out, report.html);
  if (!options.csv.empty()) write_file(options.csv, csv_of(document["rows"]));
  write_document(options.json, document);
  for (const std::string& problem : report.problems) {
    std::fprintf(stderr, "note: %s\n", problem.c_str());
  }
  if (options.json != "-") std::printf("report: %s\n", out.c_str());
}

}  // namespace

void add_report_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("report", "Make one self-contained HTML file from results");
  const auto options = std::make_shared<ReportOptions>();
  command
      ->add_option("RESULTS", options->results,
                   "a study's folder, or JSON files of run, replay and trace stat (--json)")
      ->required();
  command->add_option("--out", options->out, "HTML file (default: RESULTS/report.html)");
  command->add_option("--csv", options->csv, "write the policy rows to FILE");
  command->add_option("--json", options->json, "write all rows to FILE ('-': standard output)");
  command->footer("Example: thermocline report results/demo --out demo.html");
  command->callback([options] { write_report(*options); });
}

}  // namespace thermocline
