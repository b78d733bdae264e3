// What one GPU thread computes: all index arithmetic and decoding of cuda.cu.
//
// Goals: run on the host as well, so that a test without a GPU covers it. The includer defines
//   TC_DEVICE: __host__ __device__ under nvcc, nothing elsewhere.
// A row is cut into units of 8 columns, which one thread decodes together. Units of q4_0 are the 4
//   low and the 4 high halves of 4 bytes.
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

TC_DEVICE inline int unit_count(int cols) { return (cols + kUnit - 1) / kUnit; }

// The column that element i of a unit belongs to; it may lie beyond the row's end.
template <DType D>
TC_DEVICE int unit_column(int unit, int i) {
  if constexpr (D == DType::q4_0) return unit / 4 * 32 + unit % 4 * 4 + i % 4 + i / 4 * 16;
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

// The 8 weights of a unit, exactly; columns beyond the row's end give zero.
template <DType D>
TC_DEVICE void unit_weights(const std::byte* row, int cols, int unit, float (&w)[kUnit]) {
  constexpr int kBlockBytes = kBytesPerBlock<D>;
  const std::byte* block = row + static_cast<size_t>(unit / 4) * kBlockBytes;
  const int part = unit % 4;
  if constexpr (D == DType::q8_0) {
    const float scale = f32_of_f16_bits(read_aligned<uint16_t>(block));
    for (int i = 0; i < kUnit; ++i) w[i] = scale * static_cast<int8_t>(block[2 + part * kUnit + i]);
  } else if constexpr (D == DType::q4_0) {
    const float scale = f32_of_f16_bits(read_aligned<uint16_t>(block));
    for (int i = 0; i < kUnit / 2; ++i) {
      const int both = static_cast<int>(block[2 + part * 4 + i]);
      w[i] = scale * ((both & 15) - 8);
      w[i + 4] = scale * ((both >> 4) - 8);
    }
  } else {
    const std::byte* first = row + static_cast<size_t>(unit) * kUnit * kBlockBytes;
    for (int i = 0; i < kUnit; ++i) {
      const std::byte* from = first + i * kBlockBytes;
      const bool inside = unit * kUnit + i < cols;
      if constexpr (D == DType::f32) w[i] = inside ? read_aligned<float>(from) : 0;
      if constexpr (D == DType::f16)
        w[i] = inside ? f32_of_f16_bits(read_aligned<uint16_t>(from)) : 0;
      if constexpr (D == DType::bf16)
        w[i] = inside ? float_of_bits(uint32_t{read_aligned<uint16_t>(from)} << 16) : 0;
    }
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
