// What one GPU thread computes: all index arithmetic and decoding of cuda.cu.
//
// Goals: run on the host as well, so that a test without a GPU covers it. The includer defines
//   TC_DEVICE: __host__ __device__ under nvcc, nothing elsewhere.
// A row is cut into units of 8 columns, which one thread decodes together. Units of Q4_0, Q4_1,
// Q5_0
//   and Q5_1 are the 4 low and the 4 high halves of 4 bytes.
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "models/dtype.h"

namespace thermocline {

inline constexpr int kWarp = 32;
inline constexpr int kUnit = 8;          // columns
inline constexpr int kRowGroups = 128;   // of weighted_rows
inline constexpr int kUnitsPerTile = 8;  // columns of one thread block of weighted_rows: 64

template <DType D>
inline constexpr int kBytesPerBlock = facts(D).bytes_per_block;
template <DType D>
inline constexpr int kUnitsPerBlock = facts(D).items_per_block / kUnit;  // 0: no blocks
template <DType D>
inline constexpr bool kPairsHalves =
    D == DType::q4_0 || D == DType::q4_1 || D == DType::q5_0 || D == DType::q5_1;

TC_DEVICE inline int unit_count(int cols) { return (cols + kUnit - 1) / kUnit; }

// The column that element i of a unit belongs to; it may lie beyond the row's end.
template <DType D>
TC_DEVICE int unit_column(int unit, int i) {
  if constexpr (kPairsHalves<D>) return unit / 4 * 32 + unit % 4 * 4 + i % 4 + i / 4 * 16;
  return unit * kUnit + i;
}

TC_DEVICE inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

TC_DEVICE inline float f32_of_f16_bits(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t rest = bits & 0x7fff;
  if (rest >= 0x7c00) return float_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  return float_of_bits(sign | rest << 13) * 0x1p112f;  // the difference of the exponents' biases
}

template <class T>
TC_DEVICE T read_aligned(const std::byte* from) {
  return *reinterpret_cast<const T*>(from);
}

TC_DEVICE inline float read_f16(const std::byte* from) {
  return f32_of_f16_bits(read_aligned<uint16_t>(from));
}

TC_DEVICE inline int read_byte(const std::byte* from) { return static_cast<int>(*from); }

// Q4_0, Q4_1, Q5_0, Q5_1: part 0..3 of a block.
template <DType D>
TC_DEVICE void halves_weights(const std::byte* block, int part, float (&w)[kUnit]) {
  constexpr bool kFromMinimum = D == DType::q4_1 || D == DType::q5_1;
  constexpr bool kFiveBits = D == DType::q5_0 || D == DType::q5_1;
  constexpr int kZero = kFromMinimum ? 0 : kFiveBits ? 16 : 8;
  constexpr int kCodesAt = kBytesPerBlock<D> - 16;
  const float scale = read_f16(block);
  const float minimum = kFromMinimum ? read_f16(block + 2) : 0;
  for (int i = 0; i < kUnit / 2; ++i) {
    const int at = part * 4 + i;
    const int both = read_byte(block + kCodesAt + at);
    int low = both & 15, high = both >> 4;
    if constexpr (kFiveBits) {
      const std::byte* fifths = block + kCodesAt - 4;
      low |= (read_aligned<uint16_t>(fifths) >> at & 1) << 4;
      high |= (read_aligned<uint16_t>(fifths + 2) >> at & 1) << 4;
    }
    w[i] = scale * (low - kZero);
    w[i + 4] = scale * (high - kZero);
    if constexpr (kFromMinimum) w[i] += minimum;
    if constexpr (kFromMinimum) w[i + 4] += minimum;
  }
}

// Q4_K, Q5_K: part 0..31 of a block, in a sub-block of four parts.
template <DType D>
TC_DEVICE void with_minimum_weights(const std::byte* block, int part, float (&w)[kUnit]) {
  const int sub = part / 4;
  const std::byte* pairs = block + 4 + sub % 4;
  const int first = read_byte(pairs), second = read_byte(pairs + 4), third = read_byte(pairs + 8);
  const int s = sub < 4 ? first & 63 : (third & 15) | first >> 6 << 4;
  const int m = sub < 4 ? second & 63 : third >> 4 | second >> 6 << 4;
  const float scale = read_f16(block) * s, minimum = read_f16(block + 2) * m;
  for (int i = 0; i < kUnit; ++i) {
    const int at = part % 4 * kUnit + i;
    int code = read_byte(block + kBytesPerBlock<D> - 128 + sub / 2 * 32 + at) >> sub % 2 * 4 & 15;
    if constexpr (D == DType::q5_k) code |= (read_byte(block + 16 + at) >> sub & 1) << 4;
    w[i] = scale * code - minimum;
  }
}

// Q6_K: part 0..31 of a block, in one of two halves of four groups of four parts.
TC_DEVICE inline void q6_k_weights(const std::byte* block, int part, float (&w)[kUnit]) {
  const int half = part / 16, group = part / 4 % 4;
  const float scale = read_f16(block + 208) * static_cast<int8_t>(block[192 + part / 2]);
  for (int i = 0; i < kUnit; ++i) {
    const int at = part % 4 * kUnit + i;
    const int low = read_byte(block + half * 64 + group % 2 * 32 + at) >> group / 2 * 4 & 15;
    const int high = read_byte(block + 128 + half * 32 + at) >> group * 2 & 3;
    w[i] = scale * ((low | high << 4) - 32);
  }
}

template <DType D>
TC_DEVICE void plain_weights(const std::byte* first, int count, float (&w)[kUnit]) {
  for (int i = 0; i < kUnit; ++i) {
    const std::byte* from = first + i * kBytesPerBlock<D>;
    const bool inside = i < count;
    if constexpr (D == DType::f32) w[i] = inside ? read_aligned<float>(from) : 0;
    if constexpr (D == DType::f16) w[i] = inside ? read_f16(from) : 0;
    if constexpr (D == DType::bf16)
      w[i] = inside ? float_of_bits(uint32_t{read_aligned<uint16_t>(from)} << 16) : 0;
  }
}

// The 8 weights of a unit, the values of models/quantize.h; columns beyond the row's end give zero.
template <DType D>
TC_DEVICE void unit_weights(const std::byte* row, int cols, int unit, float (&w)[kUnit]) {
  if constexpr (kUnitsPerBlock<D> == 0) {
    const std::byte* first = row + static_cast<size_t>(unit) * kUnit * kBytesPerBlock<D>;
    plain_weights<D>(first, cols - unit * kUnit, w);
  } else {
    const std::byte* block =
        row + static_cast<size_t>(unit / kUnitsPerBlock<D>) * kBytesPerBlock<D>;
    const int part = unit % kUnitsPerBlock<D>;
    if constexpr (D == DType::q8_0) {
      const float scale = read_f16(block);
      for (int i = 0; i < kUnit; ++i)
        w[i] = scale * static_cast<int8_t>(block[2 + part * kUnit + i]);
    }
    if constexpr (kPairsHalves<D>) halves_weights<D>(block, part, w);
    if constexpr (D == DType::q4_k || D == DType::q5_k) with_minimum_weights<D>(block, part, w);
    if constexpr (D == DType::q6_k) q6_k_weights(block, part, w);
  }
}

// A lane's share of a row's products with T tokens: units lane, lane + 32, and so on. Bit t of
// `wanted` says whether token t is computed; the others' memory is not touched.
template <DType D, int T>
TC_DEVICE void lane_sums(const std::byte* row, int cols, int lane, const float* x, int x_stride,
                         unsigned wanted, float (&sums)[T]) {
  for (int t = 0; t < T; ++t) sums[t] = 0;
  for (int unit = lane; unit < unit_count(cols); unit += kWarp) {
    float w[kUnit];
    unit_weights<D>(row, cols, unit, w);
    for (int t = 0; t < T; ++t) {
      if ((wanted >> t & 1) == 0) continue;
      const float* token = x + static_cast<size_t>(t) * x_stride;
      for (int i = 0; i < kUnit; ++i) {
        const int c = unit_column<D>(unit, i);
        if (c < cols) sums[t] = fmaf(w[i], token[c], sums[t]);
      }
    }
  }
}

TC_DEVICE inline bool bit_is_set(const uint64_t* mask, int index) {
  return (mask[index / 64] >> (index % 64) & 1) != 0;
}

// A thread's share of weighted_rows: one unit, over rows group, group + kRowGroups, and so on.
// `w` points to the first column of row 0; `cols` counts from there.
template <DType D>
TC_DEVICE void group_sums(const std::byte* w, size_t row_stride, int rows, int cols, int unit,
                          int group, const uint64_t* mask, const float* a, float (&sums)[kUnit]) {
  for (int i = 0; i < kUnit; ++i) sums[i] = 0;
  if (unit >= unit_count(cols)) return;
  for (int r = group; r < rows; r += kRowGroups) {
    if (!bit_is_set(mask, r)) continue;
    float weights[kUnit];
    unit_weights<D>(w + r * row_stride, cols, unit, weights);
    for (int i = 0; i < kUnit; ++i) sums[i] = fmaf(a[r], weights[i], sums[i]);
  }
}

}  // namespace thermocline
