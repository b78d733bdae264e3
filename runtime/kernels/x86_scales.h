// The scales of one block of each of R rows, for AVX2 and AVX-512.
//
// Goals: convert them together and leave them in memory: an instruction that broadcasts from memory
//   costs no shuffle, and shuffles are what decoding runs out of.
// Internal linkage: the files that include this are compiled for different machines.
// Thread-safety: pure.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "models/dtype.h"

namespace thermocline {
namespace {

template <DType D, int R>
[[gnu::always_inline]] inline void read_f16_scales(const std::byte* const* rows, size_t offset,
                                                   float* scales) {
  static_assert(R <= 4);
  if constexpr (facts(D).items_per_block > 1) {
    uint64_t joined = 0;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      uint16_t bits;
      std::memcpy(&bits, rows[r] + offset, sizeof bits);
      joined |= static_cast<uint64_t>(bits) << (16 * r);
    }
    alignas(16) float converted[4];
    _mm_store_ps(converted, _mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<long long>(joined))));
    asm("" : "+m"(converted));  // the compiler would turn the store and loads into shuffles
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) scales[r] = converted[r];
  }
}

}  // namespace
}  // namespace thermocline
