// for_each_bit: the neurons that words of bits choose, ascending.
//
// Non-goals: kernels, which include nothing from elsewhere (runtime/kernels/cpu_rows.h).
// Thread-safety: a pure function of its arguments.
#pragma once

#include <bit>
#include <cstdint>

namespace thermocline {

// Calls visit(i) for every set bit in [begin, end); begin is a multiple of 64. Bits beyond the last
// neuron may be set.
template <class Visit>
void for_each_bit(const uint64_t* words, int begin, int end, Visit visit) {
  constexpr int kWordBits = 64;
  for (int first = begin; first < end; first += kWordBits) {
    uint64_t word = words[first / kWordBits];
    if (end - first < kWordBits) word &= ~(~uint64_t{0} << (end - first));
    for (; word != 0; word &= word - 1) visit(first + std::countr_zero(word));
  }
}

}  // namespace thermocline
