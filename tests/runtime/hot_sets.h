// Hot sets that move, for tests of tiers.
//
// Thread-safety: plain data and pure functions.
#pragma once

#include <random>

#include "models/neuron.h"
#include "runtime/engine.h"

namespace thermocline::test {

// A random set of `count` neurons of a pool.
inline HotSet random_hot(const NeuronPool& pool, uint64_t count, std::mt19937_64& random) {
  HotSet hot(pool);
  while (hot.count() < count) hot.insert(static_cast<uint32_t>(random() % pool.total()));
  return hot;
}

// A policy's next set: a tenth of it is new.
inline HotSet changed(const HotSet& hot, std::mt19937_64& random) {
  const HotSet fresh = random_hot(hot.pool(), hot.count(), random);
  HotSet mixed(hot.pool());
  for_each_bit(hot.pool(), hot.words(), [&](uint32_t flat) {
    if (random() % 10 != 0) mixed.insert(flat);
  });
  for_each_bit(hot.pool(), fresh.words(), [&](uint32_t flat) {
    if (mixed.count() < hot.count()) mixed.insert(flat);
  });
  return mixed;
}

// A hot set that is another one before every step.
struct Mover final : StepObserver {
  HotSet hot;
  uint64_t count = 0;
  std::mt19937_64 random{3};
  void on_step(const StepInfo&, const StepTimes&, const StepData&) override {
    hot = random_hot(hot.pool(), count, random);
  }
};

}  // namespace thermocline::test
