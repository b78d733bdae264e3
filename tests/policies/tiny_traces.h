// Small seeded traces for the tests of this room: a generator of its own, because the
// distributions of the standard library differ between libraries.
//
// Thread-safety: one generator, one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "models/neuron.h"

namespace thermocline::test {

// The linear congruential generator of Knuth (MMIX), its upper 32 bits.
class Lcg {
 public:
  explicit Lcg(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state_ >> 32);
  }
  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(uint64_t{next()} * limit >> 32); }

 private:
  uint64_t state_;
};

// One pool's steps as words, (step_count, layer_count, words_per_layer).
struct PoolSteps {
  NeuronPool pool;
  uint64_t step_count = 0;
  std::vector<uint64_t> words;

  ActiveStep step(uint64_t i) const {
    const uint64_t stride = pool.words_per_step();
    return {&pool, std::span<const uint64_t>(words).subspan(i * stride, stride)};
  }
  void set(uint64_t step, uint32_t flat) {
    const uint32_t layer = flat / pool.neuron_count, neuron = flat % pool.neuron_count;
    words[(step * pool.layer_count + layer) * pool.words_per_layer() + neuron / 64] |=
        uint64_t{1} << (neuron % 64);
  }
  ActivationProfile profile() const {
    ActivationProfile counts(pool);
    for (uint64_t i = 0; i < step_count; ++i) counts.add(step(i));
    return counts;
  }
};

// Each neuron has a rate; every `drift` steps (0: never) a quarter of the rates is drawn anew.
inline PoolSteps random_steps(Lcg& random, const NeuronPool& pool, uint64_t step_count,
                              uint32_t drift) {
  PoolSteps steps{pool, step_count, std::vector<uint64_t>(step_count * pool.words_per_step())};
  std::vector<uint32_t> rates(pool.total());  // of 1000
  const auto draw = [&] { return random.below(4) == 0 ? random.below(1000) : random.below(200); };
  for (uint32_t& rate : rates) rate = draw();
  for (uint64_t i = 0; i < step_count; ++i) {
    for (uint32_t flat = 0; flat < rates.size(); ++flat) {
      if (drift != 0 && i % drift == drift - 1 && random.below(4) == 0) rates[flat] = draw();
      if (random.below(1000) < rates[flat]) steps.set(i, flat);
    }
  }
  return steps;
}

inline NeuronPool random_pool(Lcg& random) {
  return {random.below(3), 1 + random.below(3), 8 * random.below(4), 1 + random.below(150)};
}

}  // namespace thermocline::test
