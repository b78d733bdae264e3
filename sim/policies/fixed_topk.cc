// fixed-topk: the neurons that fired most often in the profile, never changed; the baseline.
//
// Neuron i fired in a share phi_i of the profile's steps. scope=global: hot are the B neurons (the
// budget) with the largest phi_i, ties by index: the optimum of PowerInfer's integer program
// (SOSP'24, section 6) without a floor per layer. scope=layer: the same number of each layer, its
// own most frequent ones.
#include <algorithm>

#include "sim/policy.h"

namespace thermocline {
namespace {

class FixedTopk final : public RankedPolicy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"scope",
             0,
             0,
             1,
             "compared over all layers, or the same number of each layer",
             true,
             {"global", "layer"},
             {0, 1}}};
  }
  explicit FixedTopk(const PolicyValues& values) : by_layer_(values.at("scope") == 1) {}

  std::vector<uint32_t> ranking(const PolicyContext& context) override {
    std::vector<uint32_t> order = ranked_by_count(context.profile->counts);
    if (by_layer_) order = layers_in_turn(context.pool, order);
    const uint64_t hot_count = std::min<uint64_t>(context.hot_count_max, order.size());
    if (hot_count > 0) threshold_ = share_of_coldest(*context.profile, order, hot_count);
    return order;
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  // The best of each layer, then the second of each, and so on.
  static std::vector<uint32_t> layers_in_turn(const NeuronPool& pool,
                                              const std::vector<uint32_t>& order) {
    std::vector<uint32_t> seen(pool.layer_count), turned(order.size());
    for (const uint32_t flat : order) {
      const uint32_t layer = flat / pool.neuron_count;
      turned[uint64_t{seen[layer]++} * pool.layer_count + layer] = flat;
    }
    return turned;
  }

  // The threshold that the budget leaves: the least phi of the hot ones.
  static std::optional<double> share_of_coldest(const ActivationProfile& profile,
                                                const std::vector<uint32_t>& order,
                                                uint64_t hot_count) {
    if (profile.step_count == 0) return std::nullopt;
    uint32_t coldest = UINT32_MAX;
    for (uint64_t i = 0; i < hot_count; ++i) {
      coldest = std::min(coldest, profile.counts[order[i]]);
    }
    return static_cast<double>(coldest) / static_cast<double>(profile.step_count);
  }

  bool by_layer_;
  std::optional<double> threshold_;
};

}  // namespace

THERMOCLINE_POLICY(fixed_topk, "the most frequent neurons of the profile, never changed",
                   FixedTopk);

}  // namespace thermocline
