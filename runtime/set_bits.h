// The neurons that words of bits choose: word by word, and each, ascending.
//
// Non-goals: kernels, which include nothing from elsewhere (runtime/kernels/cpu_rows.h).
// Thread-safety: pure functions of their arguments.
#pragma once

#include <bit>
#include <cstdint>

namespace thermocline {

// Word i of those, less the bits from `end` on, which may be set.
inline uint64_t word_before(const uint64_t* words, int end, int i) {
  const int left = end - i * 64;
  return left >= 64 ? words[i] : words[i] & ~(~uint64_t{0} << left);
}

// Calls visit(i) for every set bit in [begin, end); begin is a multiple of 64. Bits beyond the last
// neuron may be set.
template <class Visit>
void for_each_bit(const uint64_t* words, int begin, int end, Visit visit) {
  for (int first = begin; first < end; first += 64) {
    for (uint64_t word = word_before(words, end, first / 64); word != 0; word &= word - 1)
      visit(first + std::countr_zero(word));
  }
}

}  // namespace thermocline
