// thermocline replay: policies and budgets over a recorded trace.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "models/units.h"
#include "sim/commands.h"
#include "sim/cost.h"
#include "sim/replay.h"
#include "sim/replay_rows.h"
#include "sim/results.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

constexpr uint32_t kThreadsMax = 1024;

struct ReplayFlags {
  std::string trace, profile, policies, budgets = "auto", migration = "32MiB", cluster;
  std::string activation_threshold, json, csv;
  uint32_t thread_count = 0;  // 0: one per core
  bool list = false;
  bool allow_partial = false;

  OpenOptions open_options() const {
    return {.allow_partial = allow_partial, .activation_threshold = activation_threshold};
  }
};

std::string all_policies() {
  std::string text;
  for (const std::string& name : policies().names()) text += (text.empty() ? "" : ",") + name;
  return text;
}

std::string policy_table() {
  std::string text;
  for (const PolicyEntry* entry : policies().entries()) {
    text += fmt::format("{:<14} {}{}\n", entry->name, entry->summary,
                        entry->needs_future ? " (oracle)" : "");
    for (const PolicyParameter& parameter : entry->parameters) {
      text += fmt::format("    {:<12} {} ({}{} to {}; {})\n", parameter.name, parameter.meaning,
                          parameter.whole ? "whole, " : "", parameter.value_min,
                          parameter.value_max, parameter.value_default);
    }
  }
  return text;
}

// Writes the note to standard error: standard output is for the table.
void note(const std::string& text) { std::cerr << "thermocline replay: " << text << "\n"; }

// The profile trace, or null where none is given; `hash` is set to what rows carry.
std::unique_ptr<TraceReader> open_profile(const ReplayFlags& flags, const TraceReader& trace,
                                          const std::string& trace_hash,
                                          const std::vector<PolicySpec>& specs, std::string& hash) {
  if (flags.profile.empty()) {
    for (const PolicySpec& spec : specs) {
      if (spec.entry->needs_future) continue;
      throw bad_usage("policy '" + spec.label() +
                      "' needs --profile TRACE, recorded on other prompts than the trace; "
                      "--profile self uses the trace itself and says so in every row");
    }
    return nullptr;
  }
  const bool self = flags.profile == "self";
  auto profile = open_trace(self ? flags.trace : flags.profile, flags.open_options());
  const TraceHeader& header = trace.header();
  check_profile(profile->header(), flags.profile, header.shape, header.weight_hash, "trace");
  hash = self ? trace_hash : profile->hash();
  if (hash == trace_hash) {
    hash = "self";
    note("the profile is the replayed trace itself: policies know more than they could online");
  } else if (profile->header().prompts_hash == header.prompts_hash) {
    note("profile and trace were recorded on the same prompts");
  }
  return profile;
}

ReplayOptions options_of(const ReplayFlags& flags, std::vector<PolicySpec> policies,
                         const TraceHeader& header) {
  ReplayOptions options;
  options.policies = std::move(policies);
  options.budgets = parse_budgets(flags.budgets, ffn_bytes(header.shape, header.ffn_types),
                                  header.bundle_bytes());
  options.migration_bytes = parse_bytes(flags.migration);
  options.thread_count = flags.thread_count != 0 ? flags.thread_count : available_cores();
  return options;
}

std::string milliseconds(double value) {
  return value < 0.1 ? fmt::format("{:.4f}", value) : fmt::format("{:.2f}", value);
}

void print_table(const ReplayReport& report) {
  fmt::print("{:<28} {:>12} {:>7} {:>7} {:>12} {:>12} {:>10} {:>10}\n", "policy", "budget", "% FFN",
             "hits %", "moved/token", "peak hot", "TPOT ms", "p95 ms");
  const double whole = static_cast<double>(ffn_bytes(report.header.shape, report.header.ffn_types));
  const uint64_t bundle = report.header.bundle_bytes();
  for (size_t i = 0; i < report.result.rows.size(); ++i) {
    const ReplayStats& row = report.result.rows[i];
    const auto& times = report.tpot_ms[i];
    fmt::print("{:<28} {:>12} {:>7.1f} {:>7.2f} {:>12} {:>12} {:>10} {:>10}{}\n",
               row.policy.label() + (row.policy.entry->needs_future ? " (oracle)" : ""),
               format_bytes(row.budget_bytes),
               100.0 * static_cast<double>(row.budget_bytes) / whole, 100.0 * hit_ratio(row.total),
               format_bytes(static_cast<uint64_t>(moved_bytes_per_token(row.total, bundle))),
               format_bytes(row.total.hot_count_peak * bundle),
               times ? milliseconds(times->mean) : "-", times ? milliseconds(times->p95) : "-",
               report.fits[i] ? "" : " *");
  }
}

void print_notes(const ReplayReport& report, const std::string& executed_reason) {
  const bool all_fit =
      std::all_of(report.fits.begin(), report.fits.end(), [](bool f) { return f; });
  fmt::print(
      "\n{} steps of {} ({} weights). Hits are counted; TPOT is modelled on {} ({}),\n"
      "reading active neurons only; a predictor's cost is not charged.\n",
      report.result.step_count, report.header.model, report.header.weight_provenance,
      report.cluster.name, report.cluster.measured ? "measured" : "not measured");
  if (!report.cluster.source.empty()) fmt::print("Its figures: {}.\n", report.cluster.source);
  if (!all_fit) fmt::print("* does not fit into the memory of {}.\n", report.cluster.name);
  if (report.result.step_count > 0 && !report.tpot_ms.empty() && !report.tpot_ms[0]) {
    fmt::print("No TPOT: the trace holds no decode step.\n");
  }
  if (!report.executed.has_value()) {
    fmt::print("No comparison with the recording machine: {}.\n", executed_reason);
    return;
  }
  const ExecutedComparison& executed = *report.executed;
  fmt::print(
      "Recording machine: {} ms per token executed, {} ms predicted, ratio {:.3f}\n"
      "(reading alone: predicted over measured {:.3f}; {} ms of communication and waiting "
      "as measured).\n",
      milliseconds(executed.executed_ms.mean), milliseconds(executed.predicted_ms.mean),
      executed.predicted_over_executed, executed.compute_ratio,
      milliseconds(executed.measured_overhead_ms));
}

void run_replay(const ReplayFlags& flags) {
  if (flags.list) {
    fmt::print("{}", policy_table());
    return;
  }
  if (flags.trace.empty()) throw bad_usage("expected TRACE, a recorded trace, or --list");
  // Before the trace: a wrong name is known without reading it.
  std::vector<PolicySpec> policies =
      parse_policies(flags.policies.empty() ? all_policies() : flags.policies);
  const auto trace = open_trace(flags.trace, flags.open_options());
  for (const std::string& line : trace->missing()) note(line);
  ReplayOptions options = options_of(flags, std::move(policies), trace->header());
  const RecordingConfig config = recording_config(trace->header(), flags.trace);
  const Cluster cluster = flags.cluster.empty() ? default_cluster() : open_cluster(flags.cluster);
  const std::string trace_hash = trace->hash();
  std::string profile_hash, executed_reason;
  const auto profile = open_profile(flags, *trace, trace_hash, options.policies, profile_hash);
  ReplayResult result;
  {
    Progress progress("replaying", trace->step_count(), "steps");
    options.progress = [&](uint64_t done) { progress.update(done); };
    result = replay(*trace, profile.get(), options);
  }
  ReplayReport report = report_of(*trace, trace_hash, config, result, cluster);
  report.profile_hash = profile_hash;
  report.executed = compare_executed(*trace, config, result, executed_reason);
  const nlohmann::ordered_json rows = replay_rows(report);
  if (flags.json != "-") {
    print_table(report);
    print_notes(report, executed_reason);
  }
  if (!flags.json.empty()) write_json(flags.json, "replay", rows);
  if (!flags.csv.empty()) write_file(flags.csv, csv_of(rows));
}

}  // namespace

void add_replay_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "replay", "Replay a trace against policies and budgets: hits, moved bytes, modelled times");
  const auto flags = std::make_shared<ReplayFlags>();
  command->add_option("TRACE", flags->trace, "the trace to replay, as `run --record` wrote it");
  command->add_option("--policy", flags->policies,
                      "NAME[:key=value,...][,NAME...] (default: all; --list shows them)");
  command->add_option("--budget", flags->budgets,
                      "bytes or percent of the FFN: B, FROM..TO/STEP, a list, or auto");
  command->add_option("--profile", flags->profile,
                      "trace whose firing counts the policies know, or 'self'");
  command->add_option("--migration", flags->migration,
                      "bytes that may move into the fast tier per step, of the whole model");
  command->add_option("--cluster", flags->cluster,
                      "cluster file for modelled times (default: a published desktop PC)");
  command->add_option("--threads", flags->thread_count, "threads (default: one per core)")
      ->check(CLI::Range(1u, kThreadsMax));
  command->add_option("--json", flags->json, "write the rows to FILE ('-': standard output)");
  command->add_option("--csv", flags->csv, "write the policy rows to FILE");
  command->add_option("--activation-threshold", flags->activation_threshold,
                      "another one, where magnitudes were recorded (of trace and profile): 0.1, "
                      "p90 (of each layer), p90/neuron");
  command->add_flag("--allow-partial", flags->allow_partial,
                    "accept unfinished traces: the steps that all shards hold");
  command->add_flag("--list", flags->list, "print the policies and their parameters");
  command->footer(
      "Example: thermocline replay test.h5 --profile train.h5 --policy fixed,ewma:halflife=16 "
      "--budget 10%..90%/20%\n\nKeys of a cluster file (expected; default):\n" +
      cluster_keys());
  command->callback([flags] { run_replay(*flags); });
}

}  // namespace thermocline
