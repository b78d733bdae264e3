// random: neurons drawn without regard to what they do, never changed; the lower bound.
//
// Neurons are ordered by a hash of (seed, layer, neuron), both counted in the whole model, and the
// first B (the budget) are hot. The order of two neurons is the same however the model is cut into
// pools. Its hit ratio is B/N but for chance: what a policy is worth above its memory is its
// distance from here. Hash: Philox2x64-10 (models/counter_random.h).
#include <algorithm>

#include "models/counter_random.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

class Random final : public RankedPolicy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"seed", 1, 0, 1e9, "number that the draw depends on", true}};
  }
  explicit Random(const PolicyValues& values) : seed_(static_cast<uint64_t>(values.at("seed"))) {}

  std::vector<uint32_t> ranking(const PolicyContext& context) override {
    std::vector<Drawn> drawn(context.pool.total());
    for (uint32_t flat = 0; flat < drawn.size(); ++flat) {
      drawn[flat] = {hash_of(context.pool, flat), flat};
    }
    std::sort(drawn.begin(), drawn.end());
    std::vector<uint32_t> order(drawn.size());
    std::transform(drawn.begin(), drawn.end(), order.begin(),
                   [](const Drawn& one) { return one.flat; });
    return order;
  }

 private:
  struct Drawn {
    uint64_t hash;
    uint32_t flat;
    auto operator<=>(const Drawn&) const = default;
  };

  uint64_t hash_of(const NeuronPool& pool, uint32_t flat) const {
    const uint64_t layer = pool.layer_begin + flat / pool.neuron_count;
    const uint64_t neuron = pool.neuron_begin + flat % pool.neuron_count;
    return philox2x64({layer, neuron}, seed_)[0];
  }

  uint64_t seed_;
};

}  // namespace

THERMOCLINE_POLICY(random, "neurons drawn at random, never changed; the lower bound", Random);

}  // namespace thermocline
