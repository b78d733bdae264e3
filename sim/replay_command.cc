// thermocline replay: policies and budgets over a recorded trace.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "sim/commands.h"
#include "sim/replay_job.h"
#include "sim/replay_tables.h"
#include "sim/results.h"

namespace thermocline {
namespace {

constexpr uint32_t kThreadsMax = 1024;

void write_results(const ReplayFlags& flags, const ReplayJob& job) {
  const nlohmann::ordered_json rows = job.rows();
  if (flags.json != "-") {
    fmt::print("{}{}{}{}", tuned_table(job), replay_table(job), answer_lines(rows),
               replay_notes(job));
  }
  if (!flags.json.empty()) write_json(flags.json, "replay", rows);
  if (!flags.csv.empty()) write_file(flags.csv, csv_of(rows));
  if (!flags.curve.empty()) write_file(flags.curve, job.curve_csv());
  job.forget_partial();
}

void run_replay(const ReplayFlags& flags, WorkGroup& group) {
  if (flags.list) {
    if (group.first()) fmt::print("{}", policy_table());
    return;
  }
  if (flags.trace.empty()) throw bad_usage("expected TRACE, a recorded trace, or --list");
  install_interrupt_handler();
  ReplayJob job(flags, group);
  job.run();
  if (!group.first()) return;
  write_results(flags, job);
}

void add_what(CLI::App& command, ReplayFlags& flags) {
  command.add_option("TRACE", flags.trace, "the trace to replay, as `run --record` wrote it");
  command.add_option("--policy", flags.policies,
                     "NAME[:key=value,...][,NAME...], or all (default; --list shows them)");
  command.add_option("--budget", flags.budgets,
                     "bytes or percent of the FFN: B, FROM..TO/STEP, a list, or auto; cluster: "
                     "what its fast tiers hold; B+B+...: for each rank or node");
  command.add_option("--profile", flags.profile,
                     "trace whose firing counts the policies know, or 'self'");
  command.add_option("--tune", flags.tune,
                     "first search each policy's parameters on this trace (the validation split), "
                     "never on TRACE");
  command.add_option("--versus", flags.versus, "policy to compare with (default: fixed-topk)");
  command.add_option("--batch", flags.batches,
                     "requests that decode together: a step is the union of theirs; a list");
  command.add_flag("--list", flags.list, "print the policies and their parameters");
}

void add_conditions(CLI::App& command, ReplayFlags& flags) {
  command.add_option("--migration", flags.migration,
                     "bytes that may move into the fast tier per step, of the whole model, or none "
                     "(no limit)");
  command.add_option("--migrations", flags.migrations_max,
                     "bundles that may move per step, of the whole model, besides");
  command.add_option("--warmup", flags.warmup_steps, "steps that are run but not counted");
  command.add_option("--pools", flags.pools,
                     "rank (default): each rank has its share of the budget; layer: each layer of "
                     "a rank; model: one for all");
  command.add_option("--group", flags.group, "neighbouring neurons that move together (default 1)");
  command.add_option("--fill", flags.fill,
                     "step (default): moves after each step, within the limits; demand: the "
                     "classical cache, a request for each active neuron, no limit, one cold pool");
  command.add_option("--cluster", flags.cluster,
                     "cluster file for modelled times (default: a published desktop PC)");
  command.add_option("--tiers", flags.tiers,
                     "layout, as `run` has it: device,host (default), host,disk, or "
                     "device,host,disk, with --host-budget and a cluster whose nodes have all "
                     "three");
  command.add_option("--host-budget", flags.host_budgets,
                     "with --tiers device,host,disk: what host memory holds, as --budget says it; "
                     "one, or one for each --budget, both ascending");
  command.add_option("--tier", flags.tier,
                     "the fast one of the two that the budget divides: device (default) or host "
                     "(over disk)");
  command.add_option(
      "--gate", flags.gate,
      "whose rows modelled times read: predicted (default): of active neurons alone; "
      "exact: every gate row, as `run` does without a predictor");
  command.add_option("--activation-threshold", flags.activation_threshold,
                     "another one, where magnitudes were recorded (of trace and profile): 0.1, "
                     "p90 (of each layer), p90/neuron");
  command.add_flag("--allow-partial", flags.allow_partial,
                   "accept unfinished traces: the steps that all shards hold");
}

void add_results(CLI::App& command, ReplayFlags& flags) {
  command.add_option("--json", flags.json, "write the rows to FILE ('-': standard output)");
  command.add_option("--csv", flags.csv, "write the policy rows to FILE");
  command.add_option(
      "--curve", flags.curve,
      "write hits at 1,000 budgets to FILE (CSV), of all policies whose ranking does "
      "not depend on the budget: one pass over the trace");
  command.add_flag("--resume", flags.resume,
                   "go on with what an ended replay into the same --json FILE had finished");
  command.add_option("--seed", flags.seed, "of the bootstrap over tasks");
  command.add_option("--threads", flags.thread_count, "threads (default: one per core)")
      ->check(CLI::Range(1u, kThreadsMax));
}

}  // namespace

void add_replay_command(CLI::App& app, const GroupRunner& in_group) {
  CLI::App* command = app.add_subcommand(
      "replay", "Replay a trace against policies and budgets: hits, moved bytes, modelled times");
  const auto flags = std::make_shared<ReplayFlags>();
  add_what(*command, *flags);
  add_conditions(*command, *flags);
  add_results(*command, *flags);
  command->footer(
      "Example: thermocline replay test.h5 --profile train.h5 --policy fixed,ewma:halflife=16 "
      "--budget 10%..90%/20%\nUnder mpirun, the processes share the policies and budgets.\n\nKeys "
      "of a cluster file (expected; default):\n" +
      cluster_keys());
  command->callback(
      [flags, in_group] { in_group([&](WorkGroup& group) { run_replay(*flags, group); }); });
}

}  // namespace thermocline
