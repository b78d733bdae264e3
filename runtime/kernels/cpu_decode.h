// A row of a matrix in f32: what a token's embedding is.
//
// Exact but for a minimum, which is added with one rounding.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct DecodedRow {
  static void step(const std::byte* row, int c, int cols, float* y) {
    typename Columns<V>::Pair pair;
    if (cols - c >= kStep) {
      V::template values<D>(row + row_bytes<D>(c), pair.first, pair.second);
      return Columns<V>::store(y + c, pair);
    }
    pair = Columns<V>::template values_of_first<D>(row + row_bytes<D>(c), cols - c);
    Columns<V>::store_first(y + c, pair, cols - c);
  }

  static void chunk(const std::byte* row, int c, int cols, float* y) {
    const RowPlanes planes = planes_of(D, cols);
    const int blocks = blocks_of_chunk(cols, c);
    alignas(64) float scales[scale_count(D)];
    read_scales<V, D>(row, planes, c / kChunk, blocks, scales);
    uint8_t codes[2][kGroup];
    for (int half = 0; half * kGroupBlocks < blocks; ++half)
      V::store_bytes(codes[half],
                     codes_of_group<V, D, false>(row, planes, cols, c / kGroup + half));
    for (int i = 0; i < blocks * kBlock; ++i) {
      const int block = i / kBlock, second = i / 16 % 2, set = second % scale_sets(D);
      const int code = codes[i / kGroup][64 * second + block % kGroupBlocks * 16 + i % 16];
      y[c + i] = scales[kChunkBlocks * set + block] * static_cast<float>(code - zero_code(D));
      if constexpr (has_minimum(D)) y[c + i] += scales[kChunkBlocks + block];
    }
  }

  static void decode_row(const WeightView& w, int r, float* y) {
    if constexpr (takes_fixed(D)) {
      for (int c = 0; c < w.cols; c += kChunk) chunk(w.row(r), c, w.cols, y);
    } else {
      for (int c = 0; c < w.cols; c += kStep) step(w.row(r), c, w.cols, y);
    }
  }
};

}  // namespace
}  // namespace thermocline
