// Scales and codes of quantised blocks, for AVX2 and AVX-512.
//
// Goals: convert the scales of several rows together and leave them in memory: an instruction that
//   broadcasts from memory costs no shuffle, and shuffles are what decoding runs out of.
// Internal linkage: the files that include this are compiled for different machines.
// Thread-safety: pure.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "models/dtype.h"
#include "runtime/kernels/block_scales.h"

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

// What lies in memory stays there: the compiler would turn the store and loads into shuffles.
template <class T>
[[gnu::always_inline]] inline void keep_in_memory(T& scales) {
  asm("" : "+m"(scales));
}

// 16 codes times one factor each.
[[gnu::always_inline]] inline void store_scaled(__m256i low, __m256i high, __m256 low_factor,
                                                __m256 high_factor, float* scales) {
  _mm256_store_ps(scales, _mm256_mul_ps(low_factor, _mm256_cvtepi32_ps(low)));
  _mm256_store_ps(scales + 8, _mm256_mul_ps(high_factor, _mm256_cvtepi32_ps(high)));
}

// The eight pairs of 6-bit scales of Q4_K and Q5_K: four bytes at a time.
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

// The sixteen scales of Q6_K.
[[gnu::always_inline]] inline void read_sixteen(const std::byte* block, float* scales) {
  const __m128i bytes = load_16_bytes(block + 192);
  const __m256 d =
      _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(load_word<uint16_t>(block + 208))));
  store_scaled(_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes)),
               d, d, scales);
}

// One f16 of each of R rows, or two.
template <int R>
[[gnu::always_inline]] inline void read_halves(const std::byte* const* rows, size_t offset,
                                               float (&scales)[R][1]) {
  uint64_t joined = 0;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    joined |= static_cast<uint64_t>(load_word<uint16_t>(rows[r] + offset)) << (16 * r);
  }
  alignas(16) float converted[4];
  _mm_store_ps(converted, _mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<long long>(joined))));
  keep_in_memory(converted);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) scales[r][0] = converted[r];
}

template <int R>
[[gnu::always_inline]] inline void read_halves(const std::byte* const* rows, size_t offset,
                                               float (&scales)[R][2]) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const __m128 pair = _mm_cvtph_ps(_mm_cvtsi32_si128(load_word<int>(rows[r] + offset)));
    _mm_storel_pi(reinterpret_cast<__m64*>(scales[r]), pair);
  }
  keep_in_memory(scales);
}

template <DType D, int R>
[[gnu::always_inline]] inline void read_block_scales(const std::byte* const* rows, size_t offset,
                                                     float (&scales)[R][kScaleCount<D>]) {
  static_assert(R <= 4);
  if constexpr (kIsSuperBlock<D>) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      if constexpr (D == DType::q6_k) read_sixteen(rows[r] + offset, scales[r]);
      if constexpr (D != DType::q6_k) read_pairs(rows[r] + offset, scales[r]);
    }
    keep_in_memory(scales);
  } else if constexpr (facts(D).items_per_block > 1) {
    read_halves<R>(rows, offset, scales);
  }
}

// The codes of columns 0..15 and 16..31 of a step, as signed bytes.
struct StepCodes {
  __m128i first, second;
};

[[gnu::always_inline]] inline StepCodes split(__m256i codes) {
  return {_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1)};
}

// 16 in the bytes i whose bit i is set, else 0.
[[gnu::always_inline]] inline __m128i fifth_bits(const std::byte* from) {
  const __m128i spread = _mm_set_epi64x(0x0101010101010101, 0);  // byte 0 or 1, eight times each
  const __m128i bit = _mm_set1_epi64x(static_cast<long long>(0x8040201008040201));
  const __m128i bytes = _mm_shuffle_epi8(_mm_set1_epi16(load_word<int16_t>(from)), spread);
  return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(bytes, bit), bit), _mm_set1_epi8(16));
}

// Q4_0, Q4_1, Q5_0, Q5_1: low halves of 16 bytes, then their high halves.
template <DType D>
[[gnu::always_inline]] inline StepCodes read_halves_codes(const std::byte* block) {
  constexpr int kLowAt = facts(D).bytes_per_block - 16;
  const __m128i bytes = load_16_bytes(block + kLowAt), mask = _mm_set1_epi8(15);
  StepCodes codes = {_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16(bytes, 4), mask)};
  if constexpr (D == DType::q5_0 || D == DType::q5_1) {
    codes.first = _mm_or_si128(codes.first, fifth_bits(block + kLowAt - 4));
    codes.second = _mm_or_si128(codes.second, fifth_bits(block + kLowAt - 2));
  }
  if constexpr (kHasMinimum<D>) return codes;
  const __m128i zero = _mm_set1_epi8(D == DType::q4_0 ? 8 : 16);
  return {_mm_sub_epi8(codes.first, zero), _mm_sub_epi8(codes.second, zero)};
}

// The low or the high halves of 32 bytes.
[[gnu::always_inline]] inline __m256i one_half(const std::byte* from, bool high) {
  const __m256i bytes = load_32_bytes(from);
  return _mm256_and_si256(high ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
}

// `bits` of 32 bytes at position `at`, moved to position 4.
[[gnu::always_inline]] inline __m256i upper_bits(const std::byte* from, int at, int bits) {
  const __m256i bytes = load_32_bytes(from);
  const __m256i moved =
      at < 4 ? _mm256_slli_epi16(bytes, 4 - at) : _mm256_srli_epi16(bytes, at - 4);
  return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(((1 << bits) - 1) << 4)));
}

template <DType D>
[[gnu::always_inline]] inline StepCodes read_codes(const std::byte* block, int step) {
  if constexpr (D == DType::q8_0) {
    return {load_16_bytes(block + 2), load_16_bytes(block + 18)};
  } else if constexpr (D == DType::q6_k) {
    const int half = step / 4, group = step % 4;
    const __m256i low = one_half(block + half * 64 + group % 2 * 32, group >= 2);
    const __m256i high = upper_bits(block + 128 + half * 32, 2 * group, 2);
    return split(_mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32)));
  } else if constexpr (kIsSuperBlock<D>) {
    constexpr int kLowAt = facts(D).bytes_per_block - 128;
    const __m256i low = one_half(block + kLowAt + step / 2 * 32, step % 2 != 0);
    return split(D == DType::q4_k ? low : _mm256_or_si256(low, upper_bits(block + 16, step, 1)));
  } else {
    return read_halves_codes<D>(block);
  }
}

}  // namespace
}  // namespace thermocline
