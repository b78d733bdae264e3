// RowPairs: gate and up rows that lie side by side as one matrix, whose rows alternate: gate 0, up
// 0, gate 1, ...
//
// Why: read in one go they come faster than all gates and then all ups, each with the other between
//   them, where prefetching reads on in vain (measured on a Zen 5, with a down row between them
//   too: 66 instead of 51 GB/s of 90 at 18 % of the neurons, 80 instead of 75 at all). Each product
//   is what it is alone, to the bit.
// Not for where up is read only of those that the gate leaves active (ReLU), and not for tiers,
//   whose rows have places already.
// Thread-safety: make() needs exclusive access; what it made may be read by many.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/backend.h"

namespace thermocline {

class RowPairs {
 public:
  // Whether the two lie so: up behind gate, within the distance of two gates.
  static bool fit(const WeightView& gate, const WeightView& up);

  // Of `token_count` tokens and the neurons that `candidates` has. gate and up must fit().
  void make(const WeightView& gate, const WeightView& up, const NeuronMask& candidates,
            int token_count);

  const WeightView& rows() const { return rows_; }  // 2 * neurons
  NeuronMask mask() const { return mask_; }         // of these rows
  float* products() { return products_.data(); }    // room: (token_count, 2 * neurons)

 private:
  void place(uint32_t of_neuron, uint32_t of_up, int neurons);
  void spread(const NeuronMask& candidates, int neurons, int token_count);

  WeightView rows_;
  NeuronMask mask_;
  uint32_t of_neuron_ = 0, of_up_ = 0;  // what places_ was made for
  std::vector<uint32_t> places_;
  std::vector<uint64_t> words_;
  std::vector<float> products_;
};

}  // namespace thermocline
