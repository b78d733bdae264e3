// KvCache: keys and values of the positions so far, for the layers and heads of one rank.
//
// A slot holds one sequence. Another one takes it over by writing from position 0 again.
// Goals: one head's keys are contiguous, so that attention streams them; on a host, memory is
//   touched only as positions are written. Non-goals: paging, quantised entries.
// Thread-safety: different slots and heads may be written at once.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/backend.h"

namespace thermocline {

// Of one slot: keys and values, f32, of `head_count` heads over all layers.
inline uint64_t kv_slot_bytes(uint64_t head_count, uint32_t head_dim, uint32_t position_max) {
  return 2 * head_count * head_dim * position_max * sizeof(float);
}

class KvCache {
 public:
  KvCache(Backend& backend, uint32_t slot_count, uint32_t layer_count, uint32_t kv_head_count,
          uint32_t head_dim, uint32_t position_max)
      : slot_count_(slot_count),
        layer_count_(layer_count),
        kv_head_count_(kv_head_count),
        position_max_(position_max),
        head_floats_(uint64_t{position_max} * head_dim),
        memory_(backend.allocate(slot_count * kv_slot_bytes(uint64_t{layer_count} * kv_head_count,
                                                            head_dim, position_max))) {}

  // Blocks of (position_max, head_dim): of each slot, layer and head its keys, then its values.
  KvView of_layer(uint32_t layer) const {
    float* keys =
        reinterpret_cast<float*>(memory_.get()) + 2 * layer * kv_head_count_ * head_floats_;
    return {keys, keys + head_floats_, 2 * uint64_t{layer_count_} * kv_head_count_ * head_floats_,
            2 * head_floats_, static_cast<int>(position_max_)};
  }
  uint32_t slot_count() const { return slot_count_; }
  uint32_t position_max() const { return position_max_; }

 private:
  uint32_t slot_count_, layer_count_, kv_head_count_, position_max_;
  uint64_t head_floats_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace thermocline
