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
  std::string out;
};

std::string default_out(const std::string& results) {
  return std::filesystem::is_directory(results)
             ? results + "/report.html"
             : std::filesystem::path(results).replace_extension(".html").string();
}

void write_report(const ReportOptions& options) {
  const Results results = open_results(options.results);
  if (results.models.empty()) {
    throw bad_input(options.results.front(), "rows of kind \"policy\" or \"run\"", "none");
  }
  const Report report = make_report(results);
  const std::string out = options.out.empty() ? default_out(options.results.front()) : options.out;
  write_file(out, report.html);
  for (const std::string& problem : report.problems) {
    std::fprintf(stderr, "note: %s\n", problem.c_str());
  }
  std::printf("report: %s\n", out.c_str());
}

}  // namespace

void add_report_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("report", "Make one self-contained HTML file from results");
  const auto options = std::make_shared<ReportOptions>();
  command
      ->add_option("RESULTS", options->results,
                   "a study's folder, or JSON files of run and replay (--json)")
      ->required();
  command->add_option("--out", options->out, "HTML file (default: RESULTS/report.html)");
  command->footer("Example: thermocline report results/demo --out demo.html");
  command->callback([options] { write_report(*options); });
}

}  // namespace thermocline
