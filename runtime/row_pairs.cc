#include "runtime/row_pairs.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

namespace thermocline {
namespace {

constexpr int kWordBits = 64;

// Bit i of `half` to bits 2 i and 2 i + 1.
uint64_t doubled(uint32_t half) {
  uint64_t bits = half;
  bits = (bits | bits << 16) & 0x0000ffff0000ffff;
  bits = (bits | bits << 8) & 0x00ff00ff00ff00ff;
  bits = (bits | bits << 4) & 0x0f0f0f0f0f0f0f0f;
  bits = (bits | bits << 2) & 0x3333333333333333;
  bits = (bits | bits << 1) & 0x5555555555555555;
  return bits | bits << 1;
}

// Bytes from a neuron's gate row to its up row.
uint64_t distance(const WeightView& gate, const WeightView& up) {
  return static_cast<uint64_t>(up.data - gate.data);
}

// What both distances are whole numbers of.
uint64_t unit_of(const WeightView& gate, const WeightView& up) {
  return std::gcd(gate.stride, distance(gate, up));
}

}  // namespace

bool RowPairs::fit(const WeightView& gate, const WeightView& up) {
  if (gate.dtype != up.dtype || gate.rows != up.rows || gate.cols != up.cols ||
      gate.stride != up.stride || gate.places != nullptr || up.places != nullptr)
    return false;
  if (std::less<>()(up.data, gate.data) || distance(gate, up) >= gate.stride) return false;
  if (distance(gate, up) == 0 || gate.rows > std::numeric_limits<int>::max() / 2) return false;
  const uint64_t last = gate.stride / unit_of(gate, up) * static_cast<uint64_t>(gate.rows);
  return last <= std::numeric_limits<uint32_t>::max();
}

void RowPairs::make(const WeightView& gate, const WeightView& up, const NeuronMask& candidates,
                    int token_count) {
  const uint64_t unit = unit_of(gate, up);
  place(static_cast<uint32_t>(gate.stride / unit), static_cast<uint32_t>(distance(gate, up) / unit),
        gate.rows);
  rows_ = gate;
  rows_.rows = 2 * gate.rows;
  rows_.stride = unit;
  rows_.places = places_.data();
  spread(candidates, gate.rows, token_count);
  const size_t products = static_cast<size_t>(token_count) * static_cast<size_t>(rows_.rows);
  products_.resize(std::max(products_.size(), products));
}

// The same for all layers of a model, so it is kept.
void RowPairs::place(uint32_t of_neuron, uint32_t of_up, int neurons) {
  const size_t rows = 2 * static_cast<size_t>(neurons);
  if (of_neuron == of_neuron_ && of_up == of_up_ && places_.size() >= rows) return;
  places_.resize(rows);
  for (uint32_t i = 0; i < static_cast<uint32_t>(neurons); ++i) {
    places_[2 * i] = i * of_neuron;
    places_[2 * i + 1] = i * of_neuron + of_up;
  }
  of_neuron_ = of_neuron;
  of_up_ = of_up;
}

void RowPairs::spread(const NeuronMask& candidates, int neurons, int token_count) {
  mask_ = {};
  if (candidates.words == nullptr) return;
  const size_t words = (static_cast<size_t>(neurons) + kWordBits - 1) / kWordBits;
  words_.resize(std::max(words_.size(), 2 * words * static_cast<size_t>(token_count)));
  mask_ = {words_.data(), 2 * words};
  uint64_t* to = words_.data();
  for (int t = 0; t < token_count; ++t) {
    const uint64_t* from = candidates.words + static_cast<size_t>(t) * candidates.stride;
    for (size_t i = 0; i < words; ++i) {
      *to++ = doubled(static_cast<uint32_t>(from[i]));
      *to++ = doubled(static_cast<uint32_t>(from[i] >> 32));
    }
  }
}

}  // namespace thermocline
