// LayerNeeds: where a layer of a pass finds the neurons that it needs, with three tiers.
//
// Tiers are inclusive, and two hot sets over the same neurons know nothing of each other: what is
// hot on the device is computed there; of the rest, what is hot on the host is in its memory; the
// rest of that is read from the disk.
// What moves to the device goes by the host: from its memory where it is hot there, else from the
// disk, only passing through.
// Goals: integers, of each layer, since the runtime's parts wait for each other at each layer.
// Non-goals: who is hot (sim/policy_driver.h), bytes and seconds (sim/cost.h).
// Thread-safety: pure functions over their arguments.
#pragma once

#include <cstdint>
#include <span>

#include "models/neuron.h"

namespace thermocline {

// Neurons of one layer of a pool.
struct LayerNeeds {
  uint32_t device = 0, host = 0, disk = 0;  // needed from there
  uint32_t on_device = 0;                   // hot on the device, needed or not

  bool operator==(const LayerNeeds&) const = default;
};

// Neurons that were needed from each tier, over steps and layers.
struct TierNeeds {
  uint64_t device = 0, host = 0, disk = 0;
  uint64_t passed = 0;  // moved from the disk to the device, not being hot on the host

  void add(const LayerNeeds& layer) {
    device += layer.device;
    host += layer.host;
    disk += layer.disk;
  }
  void add(const TierNeeds& other) {
    device += other.device;
    host += other.host;
    disk += other.disk;
    passed += other.passed;
  }
  bool operator==(const TierNeeds&) const = default;
};

// active: of a step or a pass; device_hot, host_hot: the two hot sets; all (layer_count,
// words_per_layer) of `pool`, spare bits zero. needs: (layer_count), overwritten.
void count_needs(const NeuronPool& pool, std::span<const uint64_t> active,
                 std::span<const uint64_t> device_hot, std::span<const uint64_t> host_hot,
                 std::span<LayerNeeds> needs);

// Neurons that are hot on the device now, were not `before`, and are not on the host: same shapes.
uint32_t count_passed(std::span<const uint64_t> device_before, std::span<const uint64_t> device_hot,
                      std::span<const uint64_t> host_hot);

}  // namespace thermocline
