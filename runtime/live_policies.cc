#include "runtime/live_policies.h"

#include "models/error.h"
#include "traces/profile.h"

namespace thermocline {

LivePolicies::LivePolicies(const LivePolicyOptions& options, ActivationProfile profile,
                           const ModelShape& shape, const BundleTypes& ffn_types,
                           const TierRates& rates)
    : options_(options), profile_(std::move(profile)) {
  const uint64_t bundle = bundle_bytes(shape, ffn_types);
  const auto share = [&](uint64_t bytes) {
    return bundles_of_pool(bytes, bundle, profile_.pool, shape.neuron_count());
  };
  for (const PolicySpec& policy : options_.policies) {
    for (const uint64_t budget : options_.budgets) {
      const PolicyContext context{
          profile_.pool, &profile_, nullptr, share(budget), share(options_.migration_bytes),
          nullptr,       bundle,    rates};
      drivers_.push_back(std::make_unique<PolicyDriver>(policy, context));
    }
  }
}

void LivePolicies::on_step(const StepInfo& info, const StepTimes& /*times*/, const StepData& data) {
  const bool prompt = info.phase == Phase::prefill;
  for (const auto& driver : drivers_) {
    driver->step({&profile_.pool, data.active, info.task, prompt});
  }
}

std::vector<LivePolicyState> LivePolicies::states() const {
  std::vector<LivePolicyState> states;
  for (const auto& driver : drivers_) {
    states.push_back({driver->stats(), driver->hot().count(), driver->hot_threshold()});
  }
  return states;
}

std::vector<LivePolicyResult> LivePolicies::results(Comm& comm) const {
  std::vector<HotSetStats> mine;
  for (const auto& driver : drivers_) mine.push_back(driver->stats());
  std::vector<HotSetStats> all(mine.size() * static_cast<size_t>(comm.size()));
  comm.all_gather(mine.data(), mine.size() * sizeof(HotSetStats), all.data());

  std::vector<LivePolicyResult> results;
  for (const PolicySpec& policy : options_.policies) {
    for (const uint64_t budget : options_.budgets) {
      LivePolicyResult result{policy, budget, {}};
      for (size_t i = results.size(); i < all.size(); i += mine.size()) {
        add_pool(result.stats, all[i]);
      }
      results.push_back(result);
    }
  }
  return results;
}

ActivationProfile load_profile(const std::string& path, const NeuronPool& pool,
                               const ModelShape& shape, const std::string& weight_hash) {
  const auto trace = open_trace(path);
  check_profile(trace->header(), path, shape, weight_hash, "model");
  return profile_of(*trace, pool, 0, trace->step_count());
}

}  // namespace thermocline
