// KvCache: keys and values of the positions so far, for the layers and heads of one rank.
//
// A slot holds one sequence. Another one takes it over by writing from position 0 again.
// Goals: one head's keys are contiguous, so that attention streams them; memory is touched only as
//   positions are written. Non-goals: paging, quantised entries.
// Thread-safety: different slots and heads may be written at once.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace thermocline {

// Of one slot: keys and values, f32, of `head_count` heads over all layers.
inline uint64_t kv_slot_bytes(uint64_t head_count, uint32_t head_dim, uint32_t position_max) {
  return 2 * head_count * head_dim * position_max * sizeof(float);
}

class KvCache {
 public:
  KvCache(uint32_t slot_count, uint32_t layer_count, uint32_t kv_head_count, uint32_t head_dim,
          uint32_t position_max)
      : slot_count_(slot_count),
        layer_count_(layer_count),
        kv_head_count_(kv_head_count),
        head_dim_(head_dim),
        position_max_(position_max) {
    // calloc: pages come from the kernel when they are first written, not before.
    const uint64_t bytes =
        kv_slot_bytes(uint64_t{layer_count} * kv_head_count, head_dim, position_max);
    values_.reset(static_cast<float*>(std::calloc(slot_count, bytes)));
    if (values_ == nullptr) throw std::bad_alloc();
  }

  // (position_max, head_dim) f32
  float* keys(uint32_t slot, uint32_t layer, uint32_t kv_head) {
    return block(2 * head_index(slot, layer, kv_head));
  }
  float* values(uint32_t slot, uint32_t layer, uint32_t kv_head) {
    return block(2 * head_index(slot, layer, kv_head) + 1);
  }
  uint32_t slot_count() const { return slot_count_; }
  uint32_t position_max() const { return position_max_; }

 private:
  struct Free {
    void operator()(float* memory) const { std::free(memory); }
  };

  uint64_t head_index(uint32_t slot, uint32_t layer, uint32_t kv_head) const {
    return (uint64_t{slot} * layer_count_ + layer) * kv_head_count_ + kv_head;
  }
  float* block(uint64_t index) { return values_.get() + index * position_max_ * head_dim_; }

  uint32_t slot_count_, layer_count_, kv_head_count_, head_dim_, position_max_;
  std::unique_ptr<float, Free> values_;
};

}  // namespace thermocline
