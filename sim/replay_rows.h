// The result rows of a replay, as `thermocline replay --json` writes them.
//
// Row fields: models/cli.h has the envelope; every row carries trace and weight hashes, provenance
// and version, so that it can be read alone. sim/README.md lists them. kind "policy": one policy at
// one budget; its counters are exact, its times modelled. kind "comparison": a policy against the
// fixed one, over tasks. kind "executed": the model beside the recording machine.
// Goals: a pure function of the replay, so that the same input gives the same bytes.
// Non-goals: files, tables.
// Thread-safety: pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/comparison.h"
#include "sim/cost.h"
#include "sim/executed.h"
#include "sim/replay.h"

namespace thermocline {

// A replay with all that its rows say. Pointers outlive it.
struct ReplayReport {
  const TraceHeader* header = nullptr;
  std::string trace_hash;
  std::string profile_hash;     // of the profile trace; "self" where the trace is its own profile
  std::string tuned_on;         // hash of the validation trace; empty where nothing was tuned
  std::set<std::string> tuned;  // policies (resolved) with parameters that were found there
  const ReplayOptions* options = nullptr;
  ReplayResult result;
  const Cluster* cluster = nullptr;
  std::string gate = "predicted";  // whose rows times read: see GateReads
  uint32_t batch = 1;
  std::vector<int32_t> task_ids;  // of the trace's tasks
  TaskAnalysis analysis;
  std::vector<bool> fits;  // by row of the result
  // What the trace's own run did in three tiers: beside the row of the same policy and budgets.
  std::optional<ExecutedInTiers> in_tiers;
};

// Modelled ms of a decode step, migrations hidden, as a run has them; nothing without such steps.
std::optional<double> hidden_tpot_of(const ReplayStats& row);
// Whether the trace's run had the row's policy, budgets and migration limit in three tiers.
bool was_executed(const ReplayReport& report, const ReplayStats& row);

// What a row comes to; nothing where it has no such time.
std::optional<Distribution> tpot_of(const ReplayStats& row);
std::optional<Distribution> ttft_of(const ReplayStats& row);

nlohmann::ordered_json replay_rows(const ReplayReport& report);
nlohmann::ordered_json executed_row(const ReplayReport& report, const ExecutedComparison& executed);

}  // namespace thermocline
