// BudgetCurve: what a policy that never moves a neuron hits at every budget, from one pass.
//
// The hot sets of a RankedPolicy are the first neurons of one ranking, and none ever moves, so that
// its hits at a budget of k bundles are the firings of its first k neurons: a prefix sum of the
// trace's counts in the order of the ranking. Counting is the only work over the trace, and it is
// the same for all policies.
// Goals: at every budget the counters that replay() gives, to the last integer.
// Non-goals: policies that move neurons; what happened at single steps.
// Memory: 4 bytes a neuron for the counts and as much for a profile; of each curve 8 bytes a
//   neuron.
// Thread-safety: budget_curves() uses the readers from two threads at a time; a curve may be
// shared.
//
//   auto curves = budget_curves(*trace, profile.get(), parse_policies("fixed,oracle-static"));
//   uint64_t hits = curves[0].hits_at(budget_bytes);
#pragma once

#include <cstdint>
#include <vector>

#include "sim/policy_driver.h"
#include "traces/trace.h"

namespace thermocline {

struct PoolCurve {
  NeuronPool pool;
  uint64_t needed = 0;
  std::vector<uint64_t> hits;  // [k]: with the first k neurons of the ranking hot, from k = 0

  uint64_t ranked() const { return hits.size() - 1; }  // the most neurons that are ever hot
  uint64_t hits_at(uint64_t hot_count_max) const {
    return hits[hot_count_max < ranked() ? hot_count_max : ranked()];
  }
};

struct BudgetCurve {
  PolicySpec policy;
  uint64_t step_count = 0;
  uint64_t bundle_bytes = 0;
  uint64_t neuron_count = 0;  // of the model
  std::vector<PoolCurve> by_pool;

  uint64_t needed() const;
  // At a budget of the whole model, which pools share as in replay().
  uint64_t hits_at(uint64_t budget_bytes) const;
  HotSetStats stats_at(uint64_t budget_bytes) const;
};

// One curve for each policy, in their order; each must be ranked (PolicyEntry::ranked). `profile`
// may be null where every policy needs the future.
std::vector<BudgetCurve> budget_curves(const TraceReader& trace, const TraceReader* profile,
                                       const std::vector<PolicySpec>& policies,
                                       uint32_t thread_count = 1, const TierRates& rates = {});

}  // namespace thermocline
