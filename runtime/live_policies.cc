#include "runtime/live_policies.h"

#include <fmt/format.h>

#include "models/error.h"

namespace thermocline {

LivePolicies::LivePolicies(const LivePolicyOptions& options, KnownActivity known,
                           const ModelShape& shape, const BundleTypes& ffn_types,
                           const TierRates& rates)
    : options_(options), known_(std::move(known)) {
  const NeuronPool& pool = known_.profile.pool;
  if (known_.future.has_value()) seen_.emplace(pool);
  const uint64_t bundle = bundle_bytes(shape, ffn_types);
  const auto share = [&](uint64_t bytes) {
    return bundles_of_pool(bytes, bundle, pool, shape.neuron_count());
  };
  for (const PolicySpec& policy : options_.policies) {
    for (const uint64_t budget : options_.budgets) {
      const ActivationProfile* future =
          policy.entry->needs_future ? &known_.future.value() : nullptr;
      const PolicyContext context{
          pool,    &known_.profile, future, share(budget), share(options_.migration_bytes),
          nullptr, bundle,          rates};
      drivers_.push_back(std::make_unique<PolicyDriver>(policy, context));
    }
  }
}

void LivePolicies::on_step(const StepInfo& info, const StepTimes& /*times*/, const StepData& data) {
  const bool prompt = info.phase == Phase::prefill;
  const ActiveStep step{&known_.profile.pool, data.active, info.task, prompt};
  for (const auto& driver : drivers_) driver->step(step);
  if (seen_.has_value()) seen_->add(step);
}

void LivePolicies::check_future(const std::string& path) {
  if (!seen_.has_value()) return;
  const std::vector<uint32_t> seen = seen_->profile().counts;
  const std::vector<uint32_t>& foretold = known_.future->counts;
  size_t other = 0;
  for (size_t i = 0; i < seen.size(); ++i) other += seen[i] != foretold[i] ? 1 : 0;
  if (other == 0) return;
  throw work_failed(fmt::format(
      "{}: expected a recording of this very run, found one in which {} of {} neurons fired more "
      "or less often; record it with the same model, prompts, layout and options",
      path, other, seen.size()));
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
