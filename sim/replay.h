// Replay: the one loop that runs policies over a recorded trace.
//
// A trace has one pool of neurons per rank. Every (policy, budget) runs on every pool with a
// PolicyDriver of its own, as in the live runtime, so that the counters are equal to the last one.
// With three tiers it has two, one under each budget, and each counts what it would count alone.
// Policies take turns: a pass over the trace runs one (or several, where they are many small ones)
// at all its budgets, so that memory holds the state of a few, and what is finished can be kept.
// Goals: bounded memory whatever the length of the trace; the same integers for any number of
//   threads and processes; nothing of the replayed trace reaches an online policy before its step.
// Non-goals: bytes and seconds (sim/cost.h), files (traces), rows (sim/replay_rows.h).
// Thread-safety: replay() uses the reader from the calling thread alone.
// Memory: per policy, budget and pool one driver; per policy and budget some numbers for each task.
//   An oracle that looks up single uses holds the trace's bits.
//
//   ReplayResult result = replay(*trace, profile.get(), {parse_policies("fixed,ewma"), budgets});
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/budget.h"
#include "sim/cost.h"
#include "sim/policy_driver.h"
#include "sim/replay_account.h"
#include "sim/replay_lane.h"
#include "traces/trace.h"

namespace thermocline {

// How the neurons are pooled: each rank its own (as live), each layer of each rank, or all in one.
enum class Pools : uint8_t { rank, layer, model };

// Positions that a step stands for, where it is the union of several requests.
struct StepShape {
  uint32_t position_count = 1;
  uint64_t active_sum = 0;  // active neurons, summed over the positions
};

struct ReplayStats;

struct ReplayOptions {
  std::vector<PolicySpec> policies;
  std::vector<HotBudget> budgets;
  // Of host memory below a device, one for each of `budgets`: three tiers. Empty: two.
  std::vector<HotBudget> host_budgets = {};
  uint64_t migration_bytes = uint64_t{32} << 20;  // per step, of the whole model
  uint32_t thread_count = 1;
  // On the caller's thread; of all steps of all passes over the trace.
  std::function<void(uint64_t done, uint64_t total)> progress = nullptr;
  Pools pools = Pools::rank;
  uint32_t group = 1;  // neighbouring neurons that move together
  Fill fill = Fill::step;
  uint64_t warmup_steps = 0;        // run, but not counted
  const CostModel* cost = nullptr;  // null: no times
  uint64_t memory_bytes_max = 0;    // for the uses that an oracle looks up; 0: half of the machine
  bool keep_steps = false;          // StepCounts of every step: for tests
  // What the steps of a joined trace stand for, and whose they are; null: each is one request's.
  std::function<StepShape(uint64_t step)> shape_of = nullptr;
  std::function<std::span<const uint32_t>(uint64_t step)> tasks_of = nullptr;
  // Which rows (by index) are run; null: all. Others keep policy and budget alone.
  std::function<bool(size_t row)> wanted = nullptr;
  // Called with some rows (by index) when they are finished, on the caller's thread.
  std::function<void(std::span<const size_t> rows, const std::vector<ReplayStats>& all)> rows_done =
      nullptr;
};

// With three tiers: the host's hot set, and where everything was needed from.
struct HostHotSet {
  uint64_t budget_bytes = 0;
  HotSetStats total;
  std::vector<HotSetStats> by_pool;  // (pool_count)
  std::vector<uint64_t> hot_max;     // (ranks) the budget in bundles
  TierNeeds needs;                   // of the steps that count
  bool operator==(const HostHotSet&) const = default;
};

// One policy at one budget; with three tiers all but `host` is about the device's hot set.
struct ReplayStats {
  PolicySpec policy;
  uint64_t budget_bytes = 0;
  HotSetStats total;                 // summed over pools
  std::vector<HotSetStats> by_pool;  // (pool_count)
  std::vector<uint64_t> hot_max;     // (ranks) the budget in bundles
  std::vector<double> hot_by_layer;  // (layers of the model) share of its neurons, mean over steps
  std::optional<ThresholdRange> threshold;
  std::vector<std::optional<double>> watched_threshold;  // at each step of the watched task
  ReplayAccount account;                                 // times and sums by task
  std::optional<HostHotSet> host;                        // with three tiers
  std::vector<StepCounts> steps;  // (step_count, pool_count) with keep_steps; else empty

  StepCounts counts(uint64_t step) const;  // of `steps`, summed over pools
};

struct ReplayResult {
  uint64_t step_count = 0;
  uint32_t pool_count = 0;
  uint32_t watched_task = 0;      // index of the task whose thresholds were kept
  std::vector<ReplayStats> rows;  // policies in the order given, for each the budgets
};

// `profile` may be null where every policy needs the future, and with Fill::demand. Errors: a
// reader's; interrupted; usage for an oracle whose uses do not fit into memory, for a policy
// without a form for Fill::demand.
ReplayResult replay(const TraceReader& trace, const TraceReader* profile,
                    const ReplayOptions& options);

// The result's rows before anything ran: policies and budgets. Errors: usage, as replay().
ReplayResult empty_result(const TraceReader& trace, const ReplayOptions& options);

// Tasks that the steps name: of a trace that was cut off, more than have a record.
size_t task_count_of(const TraceReader& trace, std::span<const StepInfo> infos);

// The trace as one rank would have recorded it, for Pools::model: header and configuration.
TraceHeader joined_pools(const TraceHeader& header);
RecordingConfig joined_ranks(const RecordingConfig& config);

}  // namespace thermocline
