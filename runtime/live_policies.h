// LivePolicies: an observer that runs hot-threshold policies on what this rank's neurons do.
//
// Every policy at every budget has a PolicyDriver of its own, the object that replay runs too, so
// the counters are the replay's. All are evaluated side by side on one execution.
// Goals: the replay's counters, exactly. Non-goals: moving weights (tiers come later): a policy
//   counts what it would have moved, and changes no result.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/comm.h"
#include "runtime/engine.h"
#include "sim/policy_driver.h"

namespace thermocline {

struct LivePolicyOptions {
  std::vector<PolicySpec> policies;
  std::vector<HotBudget> budgets;
  uint64_t migration_bytes = 0;  // per step, of the whole model
  Cluster cluster = {};          // whose rates policies may weigh; no nodes: none are known
  std::vector<uint32_t> rank_nodes = {};  // (ranks) of the cluster

  TierRates rates(size_t rank) const {
    return cluster.nodes.empty() ? TierRates{} : tier_rates(cluster.nodes[rank_nodes[rank]]);
  }
};

// One policy at one budget, summed over ranks.
struct LivePolicyResult {
  PolicySpec policy;
  uint64_t budget_bytes = 0;
  HotSetStats stats;
};

class LivePolicies final : public StepObserver {
 public:
  // `profile` is of the pool of `rank`, whose budgets and rates these are.
  LivePolicies(const LivePolicyOptions& options, ActivationProfile profile, const ModelShape& shape,
               const BundleTypes& ffn_types, size_t rank);

  void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override;

  // What the first policy at the first budget keeps hot now.
  const HotSet& hot() const { return drivers_.front()->hot(); }

  // Collective: policies in the order given, for each the budgets; the same on every rank.
  std::vector<LivePolicyResult> results(Comm& comm) const;

 private:
  LivePolicyOptions options_;
  ActivationProfile profile_;
  std::vector<std::unique_ptr<PolicyDriver>> drivers_;  // (policy, budget)
};

// The firing counts of `pool` in the trace at `path`. Input Error where the trace is of another
// model or of other weights: neurons would not match.
ActivationProfile load_profile(const std::string& path, const NeuronPool& pool,
                               const ModelShape& shape, const std::string& weight_hash);

}  // namespace thermocline
