#include "traces/commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "traces/convert_command.h"
#include "traces/copy_commands.h"
#include "traces/info_command.h"
#include "traces/repair.h"
#include "traces/stat_command.h"
#include "traces/synth_command.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

struct CheckOptions {
  std::string path, json;
  std::string repair;  // where to write what is good
};

void show(const std::string& text) { std::fputs(text.c_str(), stdout); }

void run_repair(const CheckOptions& options) {
  std::optional<Progress> bar;
  const RepairResult result =
      repair_trace(options.path, options.repair, [&bar](uint64_t done, uint64_t total) {
        if (!bar) bar.emplace("repairing", total, "steps");
        bar->update(done);
      });
  bar.reset();
  if (options.json == "-") return;
  for (const std::string& line : result.lost) show("lost: " + line + "\n");
  show(fmt::format("{}: {} steps of {} whole tasks\n", options.repair, result.step_count,
                   result.task_count));
}

void run_check(const CheckOptions& options) {
  std::optional<Progress> bar;
  const auto reports = check_trace(options.path, [&bar](uint64_t done, uint64_t total) {
    if (!bar) bar.emplace("checking", total, "steps");
    bar->update(done);
  });
  bar.reset();
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  size_t bad = 0;
  for (const ShardReport& report : reports) {
    bad += !report.good;
    rows.push_back(
        {{"kind", "file"}, {"path", report.path}, {"good", report.good}, {"message", report.line}});
    if (options.json != "-") show(report.line + "\n");
  }
  if (!options.json.empty()) write_json(options.json, "trace check", rows);
  if (!options.repair.empty()) run_repair(options);
  if (bad == 0 || !options.repair.empty()) return;
  throw bad_input(options.path, "a finished trace of good files",
                  fmt::format("{} of {} that are not", bad, reports.size()));
}

void add_check_command(CLI::App& trace) {
  const auto options = std::make_shared<CheckOptions>();
  CLI::App* command =
      trace.add_subcommand("check", "read everything and say, file by file, what is good");
  command->add_option("TRACE", options->path, "the trace's master, for example trace.h5")
      ->required();
  command->add_option("--repair", options->repair,
                      "write the tasks that are whole as a trace of their own, here");
  command->add_option("--json", options->json, "write the lines as JSON; - is standard output");
  command->footer("Example: thermocline trace check results/trace.h5 --repair good.h5");
  command->callback([options] { run_check(*options); });
}

}  // namespace

void add_trace_commands(CLI::App& app) {
  CLI::App* trace =
      app.add_subcommand("trace", "look at recorded traces, check, cut, convert, make them");
  trace->require_subcommand(1);
  add_trace_info_command(*trace);
  add_check_command(*trace);
  add_stat_command(*trace);
  add_cut_command(*trace);
  add_merge_command(*trace);
  add_trace_convert_command(*trace);
  add_synth_trace_command(*trace);
}

}  // namespace thermocline
