// fixed: a set chosen once from the profile and never changed; the baseline of the comparison.
//
// Neuron i fired in a share phi_i of the profile's steps. Hot are the B neurons (the budget) with
// the largest phi_i, ties by index, of those with phi_i >= threshold. With threshold = 0 this is
// the global top-B, which the integer program of PowerInfer (SOSP'24, section 6) reduces to when it
// sets no floor per layer; with threshold > 0 it is the constant frequency threshold of
// DejaVu-like splits, whose memory varies and is clipped at the budget.
#include <algorithm>

#include "sim/policy.h"

namespace thermocline {
namespace {

class Fixed final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"threshold", 0.0, 0.0, 1.0, "smallest share of profile steps that makes hot"}};
  }
  explicit Fixed(const PolicyValues& values) : share_min_(values.at("threshold")) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    const ActivationProfile& profile = *context.profile;
    fill_hottest(profile, context.hot_count_max, count_of_share(profile.step_count), hot);
    threshold_ = share_of_coldest(profile, hot);
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  // The smallest count that is at least `share_min_` of the steps; compared as a share, so that
  // 7 of 100 steps reach 0.07 although 0.07 * 100 rounds to more than 7.
  uint64_t count_of_share(uint64_t step_count) const {
    if (step_count == 0) return share_min_ > 0.0 ? 1 : 0;
    const auto steps = static_cast<double>(step_count);
    auto count = static_cast<uint64_t>(share_min_ * steps);
    if (count > 0) --count;
    while (static_cast<double>(count) < steps && static_cast<double>(count) / steps < share_min_) {
      ++count;
    }
    return count;
  }

  // The threshold that the budget leaves: phi of the coldest hot neuron.
  static std::optional<double> share_of_coldest(const ActivationProfile& profile,
                                                const HotSet& hot) {
    if (hot.count() == 0 || profile.step_count == 0) return std::nullopt;
    uint32_t coldest = UINT32_MAX;
    for_each_bit(profile.pool, hot.words(),
                 [&](uint32_t flat) { coldest = std::min(coldest, profile.counts[flat]); });
    return static_cast<double>(coldest) / static_cast<double>(profile.step_count);
  }

  double share_min_;
  std::optional<double> threshold_;
};

}  // namespace

THERMOCLINE_POLICY(fixed, "the most frequent neurons of the profile, never changed", Fixed);

}  // namespace thermocline
