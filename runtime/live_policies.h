// LivePolicies: an observer that runs hot-threshold policies on what this rank's neurons do.
//
// Every policy at every budget has a PolicyDriver of its own, the object that replay runs too, so
// the counters are the replay's. All are evaluated side by side on one execution.
// An oracle gets the firing counts of an earlier recording of this very run; whether it was one is
//   found when the run has ended.
// Goals: the replay's counters, exactly. Non-goals: moving weights (tiers/bundle_store.h follows
//   hot()): a policy counts what it would have moved, and changes no result.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/comm.h"
#include "runtime/engine.h"
#include "sim/policy_driver.h"
#include "traces/profile.h"

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

// The same of one rank, before the run has ended.
struct LivePolicyState {
  HotSetStats stats;
  uint64_t hot_count = 0;  // bundles that are hot now
  std::optional<double> hot_threshold;
};

// What policies know when the run begins; of this rank's pool.
struct KnownActivity {
  ActivationProfile profile;                // of other prompts
  std::optional<ActivationProfile> future;  // of this run, as it was recorded before
};

class LivePolicies final : public StepObserver {
 public:
  // `known` is of the pool of `rank`, whose budgets and rates these are.
  LivePolicies(const LivePolicyOptions& options, KnownActivity known, const ModelShape& shape,
               const BundleTypes& ffn_types, size_t rank);

  void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override;

  // What the first policy keeps hot now at one of the budgets.
  const HotSet& hot(size_t budget) const { return drivers_[budget]->hot(); }

  // Of this rank, in the order of results().
  std::vector<LivePolicyState> states() const;

  // Collective: policies in the order given, for each the budgets; the same on every rank.
  std::vector<LivePolicyResult> results(Comm& comm) const;

  // After the run: Error{failed} that names `path` where the neurons of this rank did not fire as
  // often as the future said.
  void check_future(const std::string& path);

 private:
  LivePolicyOptions options_;
  KnownActivity known_;
  std::optional<ProfileCounter> seen_;                  // of this run, where there is a future
  std::vector<std::unique_ptr<PolicyDriver>> drivers_;  // (policy, budget)
};

// The firing counts of `pool` in the trace at `path`. Input Error where the trace is of another
// model or of other weights: neurons would not match.
ActivationProfile load_profile(const std::string& path, const NeuronPool& pool,
                               const ModelShape& shape, const std::string& weight_hash);

}  // namespace thermocline
