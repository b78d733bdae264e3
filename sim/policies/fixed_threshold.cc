// fixed-threshold (P1): every neuron that fired often enough in the profile, never changed.
//
// R = {i : phi_i >= theta}, phi_i the share of the profile's steps in which neuron i fired, theta
// one number for all layers. How much memory that takes differs by layer and model; what exceeds
// the budget B is clipped by falling phi_i, ties by index, so that policies are compared at equal
// memory. What theta leaves of the budget stays unused.
// A share reaches theta where the nearest double to count/steps does: 7 of 100 steps reach 0.07.
#include <algorithm>

#include "sim/policy.h"

namespace thermocline {
namespace {

class FixedThreshold final : public RankedPolicy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"theta",
             0.2,
             0,
             1,
             "share of the profile's steps from which a neuron is hot",
             false,
             {},
             {0.05, 0.1, 0.5}}};
  }
  explicit FixedThreshold(const PolicyValues& values) : theta_(values.at("theta")) {}

  std::vector<uint32_t> ranking(const PolicyContext& context) override {
    const ActivationProfile& profile = *context.profile;
    std::vector<uint32_t> order = ranked_by_count(profile.counts);
    const auto end = std::partition_point(order.begin(), order.end(), [&](uint32_t flat) {
      return share_of(profile, flat) >= theta_;
    });
    order.erase(end, order.end());
    const uint64_t budget = context.hot_count_max;
    const bool clipped = budget > 0 && budget < order.size();
    threshold_ = clipped ? share_of(profile, order[budget - 1]) : theta_;
    return order;
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  static double share_of(const ActivationProfile& profile, uint32_t flat) {
    if (profile.step_count == 0) return 0;
    return static_cast<double>(profile.counts[flat]) / static_cast<double>(profile.step_count);
  }

  double theta_;
  std::optional<double> threshold_;  // theta, or what the budget leaves where that is more
};

}  // namespace

THERMOCLINE_POLICY(fixed_threshold, "every neuron above one share of the profile, never changed",
                   FixedThreshold);

}  // namespace thermocline
