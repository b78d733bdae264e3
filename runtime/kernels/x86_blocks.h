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
#include "runtime/kernels/cpu_columns.h"

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

// Eight f16 that lie kBytes >= 16 apart: a tree of interleavings, which cost less than insertions.
template <int kBytes>
[[gnu::always_inline]] inline __m128i gather_halves(const std::byte* from) {
  const auto two = [=](int i) {
    return _mm_unpacklo_epi16(load_16_bytes(from + i * kBytes),
                              load_16_bytes(from + (i + 1) * kBytes));
  };
  const auto four = [=](int i) { return _mm_unpacklo_epi32(two(i), two(i + 2)); };
  return _mm_unpacklo_epi64(four(0), four(4));
}

// The scales of `count` <= 8 steps; those beyond are zero.
template <DType D>
[[gnu::always_inline]] inline void read_chunk_scales(const std::byte* chunk, int count,
                                                     float (&scales)[kScaleCount<D>]) {
  constexpr int kBytes = facts(D).bytes_per_block;
  if constexpr (D == DType::q6_k) {
    read_sixteen(chunk, scales);
  } else if constexpr (kIsSuperBlock<D>) {
    read_pairs(chunk, scales);
  } else if (count == kStepsPerChunk) {
    _mm256_store_ps(scales, _mm256_cvtph_ps(gather_halves<kBytes>(chunk)));
    if constexpr (kHasMinimum<D>)
      _mm256_store_ps(scales + 8, _mm256_cvtph_ps(gather_halves<kBytes>(chunk + 2)));
  } else {
    alignas(16) uint16_t halves[2][kStepsPerChunk] = {};
    for (int i = 0; i < count; ++i) {
      halves[0][i] = load_word<uint16_t>(chunk + i * kBytes);
      halves[1][i] = load_word<uint16_t>(chunk + i * kBytes + 2);
    }
    for (int k = 0; k < kScaleCount<D> / kStepsPerChunk; ++k)
      _mm256_store_ps(scales + kStepsPerChunk * k,
                      _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<__m128i*>(halves[k]))));
  }
}

template <DType D>
constexpr bool kIsFourBits = D == DType::q4_0 || D == DType::q4_1 || D == DType::q4_k;

// The bytes whose low and high halves are a step's codes: of Q4_0 and Q4_1 columns 0..15
// and 16..31; of Q4_K one of the two for all 32 columns.
template <DType D>
[[gnu::always_inline]] inline const std::byte* four_bits_of(const std::byte* block, int step) {
  constexpr int kCodesAt = facts(D).bytes_per_block - facts(D).items_per_block / 2;
  return block + kCodesAt + (D == DType::q4_k ? step / 2 * 32 : 0);
}

// The codes of columns 0..15 and 16..31 of a step as they are stored (Q6_K: less 32), as signed
// bytes.
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
  return codes;
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

// The same, less the code of zero.
template <DType D>
[[gnu::always_inline]] inline StepCodes read_values(const std::byte* block, int step) {
  const StepCodes codes = read_codes<D>(block, step);
  if constexpr (kZeroCode<D> == 0) return codes;
  const __m128i zero = _mm_set1_epi8(kZeroCode<D>);
  return {_mm_sub_epi8(codes.first, zero), _mm_sub_epi8(codes.second, zero)};
}

}  // namespace
}  // namespace thermocline
