// Scales of quantised rows, for AVX2 and AVX-512.
//
// Internal linkage: the files that include this are compiled for different machines.
// Thread-safety: pure.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "runtime/kernels/cpu_layout.h"

namespace thermocline {
namespace {

[[gnu::always_inline]] inline __m128i load_16_bytes(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
[[gnu::always_inline]] inline __m256i load_32_bytes(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

template <class T>
[[gnu::always_inline]] inline T load_word(const std::byte* from) {
  T word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// 16 codes times one factor each.
[[gnu::always_inline]] inline void store_scaled(__m256i low, __m256i high, __m256 low_factor,
                                                __m256 high_factor, float* scales) {
  _mm256_store_ps(scales, _mm256_mul_ps(low_factor, _mm256_cvtepi32_ps(low)));
  _mm256_store_ps(scales + 8, _mm256_mul_ps(high_factor, _mm256_cvtepi32_ps(high)));
}

// The eight pairs of 6-bit scales of Q4_K and Q5_K, after two f16: four bytes at a time.
[[gnu::always_inline]] inline void read_pairs(const std::byte* block, float* scales) {
  const auto first = load_word<uint32_t>(block + 4), second = load_word<uint32_t>(block + 8),
             third = load_word<uint32_t>(block + 12);
  constexpr uint32_t kSix = 0x3f3f3f3f, kFour = 0x0f0f0f0f, kUpperTwo = 0x30303030;
  const uint64_t scale =
      (first & kSix) | static_cast<uint64_t>((third & kFour) | (first >> 2 & kUpperTwo)) << 32;
  const uint64_t minimum =
      (second & kSix) | static_cast<uint64_t>((third >> 4 & kFour) | (second >> 2 & kUpperTwo))
                            << 32;
  const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128(load_word<int>(block)));
  const __m256 d_minimum = _mm256_broadcastss_ps(_mm_movehdup_ps(d));
  store_scaled(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(scale))),
               _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(minimum))),
               _mm256_broadcastss_ps(d), _mm256_xor_ps(d_minimum, _mm256_set1_ps(-0.0f)), scales);
}

// The sixteen 8-bit scales of Q6_K, times d.
[[gnu::always_inline]] inline void read_sixteen(const std::byte* codes, const std::byte* d_at,
                                                float* scales) {
  const __m128i bytes = load_16_bytes(codes);
  const __m256 d =
      _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(load_word<uint16_t>(d_at))));
  store_scaled(_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
               d, d, scales);
}

// Eight f16, of which the first `count` are there, the others zero.
[[gnu::always_inline]] inline void read_halves(const std::byte* from, int count, float* to) {
  if (count == kChunkBlocks) [[likely]]
    return _mm256_store_ps(to, _mm256_cvtph_ps(load_16_bytes(from)));
  alignas(16) std::byte padded[16] = {};
  std::memcpy(padded, from, 2 * count);
  _mm256_store_ps(to, _mm256_cvtph_ps(load_16_bytes(padded)));
}

// The scales of a chunk of `count` blocks, in cpu_layout.h's order.
template <DType D>
[[gnu::always_inline]] inline void read_chunk_scales(const std::byte* from, const std::byte* more,
                                                     int count, float (&scales)[scale_count(D)]) {
  if constexpr (D == DType::q6_k) {
    read_sixteen(from, more, scales);
  } else if constexpr (is_super_block(D)) {
    read_pairs(from, scales);
  } else {
    read_halves(from, count, scales);
    if constexpr (has_minimum(D)) read_halves(more, count, scales + kChunkBlocks);
  }
}

}  // namespace
}  // namespace thermocline
