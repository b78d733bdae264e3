// Replay: the one loop that runs policies over a recorded trace.
//
// A trace has one pool of neurons per rank. Every (policy, budget) runs on every pool with a
// PolicyDriver of its own, as in the live runtime, so that the counters are equal to the last one.
// Goals: one pass over the trace for all policies and budgets; bounded memory for the bits; the
//   same integers for any number of threads; nothing of the replayed trace reaches an online policy
//   before its step.
// Non-goals: bytes and seconds (sim/cost.h), files (traces), tables (sim/replay_command.cc).
// Thread-safety: replay() uses the reader from the calling thread alone.
// Memory: per policy, budget and pool one driver, and 12 bytes a step.
//
//   ReplayResult result = replay(*trace, profile.get(), {parse_policies("fixed,ewma"), budgets});
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/policy_driver.h"
#include "traces/trace.h"

namespace thermocline {

struct ReplayOptions {
  std::vector<PolicySpec> policies;
  std::vector<uint64_t> budgets;                  // bytes of the whole model
  uint64_t migration_bytes = uint64_t{32} << 20;  // per step, of the whole model
  uint32_t thread_count = 1;
  std::function<void(uint64_t steps_done)> progress = nullptr;  // on the caller's thread
};

// The hot threshold over the steps, a mean over the pools that have one.
struct ThresholdRange {
  double first = 0, last = 0, lowest = 0, highest = 0;
};

// One policy at one budget.
struct ReplayStats {
  PolicySpec policy;
  uint64_t budget_bytes = 0;
  HotSetStats total;                 // summed over pools
  std::vector<HotSetStats> by_pool;  // (pool_count)
  std::vector<uint64_t> hot_max;     // (pool_count) the budget in bundles
  std::vector<StepCounts> steps;     // (step_count, pool_count)
  std::optional<ThresholdRange> threshold;

  StepCounts counts(uint64_t step) const;  // summed over pools
};

struct ReplayResult {
  uint64_t step_count = 0;
  uint32_t pool_count = 0;
  std::vector<ReplayStats> rows;  // policies in the order given, for each the budgets
};

// `profile` may be null where every policy needs the future. Errors: a reader's; interrupted.
ReplayResult replay(const TraceReader& trace, const TraceReader* profile,
                    const ReplayOptions& options);

}  // namespace thermocline
