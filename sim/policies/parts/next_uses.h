// What oracles ask of FutureUses: who is active in a given step, and which resident's next use is
// farthest.
//
// Goals: UseRows reads the future once per 64 steps; FarthestUse takes a few comparisons where a
//   next use only moves away, and a walk down a tree of 16 branches where a neuron leaves.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "models/neuron.h"
#include "sim/policy.h"

namespace thermocline {

// bits[r] holds row r of a square of 64 x 64 bits; afterwards its column r. Warren, "Hacker's
// Delight", 7-3.
inline void transpose_bits(std::array<uint64_t, 64>& bits) {
  uint64_t mask = 0x00000000ffffffff;
  for (uint32_t size = 32; size != 0; size /= 2, mask ^= mask << size) {
    for (uint32_t r = 0; r < 64; r = ((r | size) + 1) & ~size) {
      const uint64_t swapped = ((bits[r] >> size) ^ bits[r | size]) & mask;
      bits[r] ^= swapped << size;
      bits[r | size] ^= swapped;
    }
  }
}

// The active neurons of any step as the words of a step, in the order that steps are asked for.
class UseRows {
 public:
  void start(const FutureUses& uses) {
    uses_ = &uses;
    rows_.resize(64 * uses.pool.words_per_step());
    begin_ = UINT64_MAX;
  }

  // Valid until the next call. Zero beyond the last step.
  std::span<const uint64_t> row(uint64_t step) {
    if (step / 64 != begin_) turn(begin_ = step / 64);
    const uint64_t stride = uses_->pool.words_per_step();
    return std::span<const uint64_t>(rows_).subspan(step % 64 * stride, stride);
  }

 private:
  void turn(uint64_t block) {
    const NeuronPool& pool = uses_->pool;
    const bool beyond = 64 * block >= uses_->step_count;
    const uint64_t stride = pool.words_per_step();
    const uint64_t* of_block = uses_->words.data() + (beyond ? 0 : block * pool.total());
    uint64_t word = 0;
    for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
      for (uint32_t first = 0; first < pool.neuron_count; first += 64, ++word) {
        const uint32_t size = std::min(64u, pool.neuron_count - first);
        std::array<uint64_t, 64> bits{};
        if (!beyond) {
          std::copy_n(of_block + uint64_t{layer} * pool.neuron_count + first, size, bits.begin());
          transpose_bits(bits);
        }
        for (uint64_t step = 0; step < 64; ++step) rows_[step * stride + word] = bits[step];
      }
    }
  }

  const FutureUses* uses_ = nullptr;
  uint64_t begin_ = UINT64_MAX;  // the block of 64 steps that rows_ has
  std::vector<uint64_t> rows_;   // (64, words_per_step)
};

// The resident whose next use comes last; of those in the same step, the one of the largest index,
// whose turn within a step is last.
class FarthestUse {
 public:
  void start(uint64_t neuron_count) {
    levels_.clear();
    for (uint64_t size = neuron_count; levels_.empty() || size > 1;) {
      size = (size + kBranches - 1) / kBranches;
      levels_.emplace_back(size * kBranches);
    }
  }

  // `next`: a step, or FutureUses::kNever; not before what it was.
  void set(uint32_t flat, uint32_t next) {
    const uint32_t key = next == FutureUses::kNever ? next : next + 1;
    size_t at = flat;
    levels_[0][at] = key;
    for (size_t level = 1; level < levels_.size(); ++level) {
      uint32_t& most = levels_[level][at /= kBranches];
      if (most >= key) return;
      most = key;
    }
  }

  void remove(uint32_t flat) {
    size_t at = flat;
    levels_[0][at] = 0;
    for (size_t level = 1; level < levels_.size(); ++level) {
      at /= kBranches;
      const uint32_t most = most_of(level - 1, at);
      if (levels_[level][at] == most) return;
      levels_[level][at] = most;
    }
  }

  // Only where there is a resident.
  uint32_t farthest() const {
    const uint32_t key = most_of(levels_.size() - 1, 0);
    size_t at = 0;
    for (size_t level = levels_.size(); level-- > 0;) {
      const uint32_t* keys = levels_[level].data() + at * kBranches;
      size_t last = kBranches - 1;
      while (keys[last] != key) --last;
      at = at * kBranches + last;
    }
    return static_cast<uint32_t>(at);
  }
  uint32_t next_of(uint32_t flat) const {
    const uint32_t key = levels_[0][flat];
    return key == FutureUses::kNever ? key : key - 1;
  }

 private:
  static constexpr size_t kBranches = 16;

  uint32_t most_of(size_t level, size_t parent) const {
    const uint32_t* keys = levels_[level].data() + parent * kBranches;
    uint32_t most = 0;
    for (size_t i = 0; i < kBranches; ++i) most = std::max(most, keys[i]);
    return most;
  }

  // Next uses + 1, 0 for neurons that are not resident; then the largest of each 16 of them, of
  // each 16 of those, up to at most 16.
  std::vector<std::vector<uint32_t>> levels_;
};

}  // namespace thermocline
