// FutureUses: when each neuron of a pool is active in a trace that is replayed. For oracles alone.
//
// Bits by neuron, 64 steps a word, so that the next use of a neuron is found by looking at one or
// two words. As large as the trace's bits: 280 KiB a step at 70B.
// Goals: exact to the last step. Non-goals: making it from a trace (sim/replay.cc).
// Thread-safety: concurrent reads are safe.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "models/neuron.h"

namespace thermocline {

struct FutureUses {
  static constexpr uint32_t kNever = UINT32_MAX;

  NeuronPool pool;
  uint64_t step_count = 0;
  std::vector<uint64_t> words;  // (ceil(step_count / 64), total): bit t is step 64 row + t

  // The first step after `step` at which the neuron is active; kNever where there is none.
  uint32_t next_after(uint32_t flat, uint64_t step) const { return next_from(flat, step + 1); }
  // The same from `step` on.
  uint32_t next_from(uint32_t flat, uint64_t step) const {
    const uint64_t total = pool.total(), blocks = (step_count + 63) / 64;
    uint64_t mask = ~uint64_t{0} << (step % 64);
    for (uint64_t block = step / 64; block < blocks; ++block, mask = ~uint64_t{0}) {
      const uint64_t word = words[block * total + flat] & mask;
      if (word != 0) {
        return static_cast<uint32_t>(block * 64 + static_cast<uint64_t>(std::countr_zero(word)));
      }
    }
    return kNever;
  }
};

}  // namespace thermocline
