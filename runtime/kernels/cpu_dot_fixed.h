// Dot products of quantised rows with inputs in fixed point (Inputs::fixed).
//
// A group's 128 products of codes are added exactly, as integers, eight to each of 16 lanes; these
//   become f32 and are added to 16 lanes of sums by one fused multiply-add, times the product of
//   the two scales. What a type subtracts from its codes is subtracted from the integers; a
//   minimum, which has a scale of its own, meets the sums of the inputs, those of block s of a
//   chunk in lane s.
// V::codes<D>(codes, further) are a group's codes (cpu_layout.h), V::dot<D, kPart> the 16 sums as
//   f32, V::read_scales<D> the scales of a chunk, V::spread gives four scales to four lanes each.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"
#include "runtime/kernels/cpu_fixed.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct FixedDot {
  using Bytes = typename V::Bytes;
  static constexpr int kSets = scale_sets(D);
  static constexpr int kScales = kSets * kChunkBlocks;

  // The inputs of a token.
  using Row = FixedRow;
  static Row row_of(const Inputs& x, int cols, int t) {
    return {x.fixed + static_cast<size_t>(t) * fixed_bytes(cols), padded_columns(cols)};
  }

  // Scales of the products of a row's chunk with a token's; returns the sum with the minimums.
  [[gnu::always_inline]] static V begin_chunk(const float* scales, const Row& x, int chunk, V sum,
                                              float* products) {
    const auto of_x = V::load_eight(x.scales() + chunk * kChunkBlocks);
#pragma GCC unroll 2
    for (int set = 0; set < kSets; ++set)
      V::store(products + 8 * set, V::mul(V::load_eight(scales + 8 * set), of_x));
    if constexpr (!has_minimum(D)) return sum;
    return V::fma(V::load_eight(scales + 8 * kSets),
                  V::load_eight(x.scaled_sums() + chunk * kChunkBlocks), sum);
  }

  // The sum with a group's products; half: of its chunk.
  [[gnu::always_inline]] static V add_group(const Bytes& w, const Row& x, int group, int half,
                                            const float* products, V sum) {
    const int8_t* codes = x.codes() + 2 * kGroup * group;
    const int32_t *sums = x.sums() + 16 * group, *first_sums = x.first_sums() + 16 * group;
    if constexpr (kSets == 1) {
      return V::fma(V::spread(products, half), V::template dot<D, 0>(w, codes, sums, sums), sum);
    } else {
      sum =
          V::fma(V::spread(products, half), V::template dot<D, 1>(w, codes, sums, first_sums), sum);
      return V::fma(V::spread(products + 8, half),
                    V::template dot<D, 2>(w, codes, sums, first_sums), sum);
    }
  }

  // sums[r][t] = rows[r] . x[t] for R rows and T tokens, a sum a vector.
  template <int R, int T>
  static void tile(const std::byte* const* rows, const std::byte* const* ahead, const Row* x,
                   int cols, V (&sums)[R][T]) {
    const RowPlanes planes = planes_of(D, cols);
    SumTile<V, R, T> sum(sums);
    for (int c = 0; c < cols; c += kChunk) {
      const int chunk = c / kChunk, blocks = blocks_of_chunk(cols, c);
      alignas(64) float products[R][T][kScales];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        prefetch_chunk<D>(ahead[r], planes, chunk);
        alignas(64) float scales[scale_count(D)];
        read_scales<V, D>(rows[r], planes, chunk, blocks, scales);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
          sum.of[r][t] = begin_chunk(scales, x[t], chunk, sum.of[r][t], products[r][t]);
      }
      keep_in_memory(products);
      for_each_group<V>(
          blocks, [&](int half) __attribute__((always_inline)) {
            const int group = 2 * chunk + half;
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
              const Bytes w = codes_of_group<V, D>(rows[r], planes, cols, group);
#pragma GCC unroll 4
              for (int t = 0; t < T; ++t)
                sum.of[r][t] = add_group(w, x[t], group, half, products[r][t], sum.of[r][t]);
            }
          });
    }
    sum.copy_to(sums);
  }

  // Decoded columns of up to kPanelRows rows, which several tokens share.
  struct Panel {
    static constexpr int kCols = kPanelBytes;
    alignas(64) uint8_t codes[kPanelRows][kCols];
    alignas(64) float scales[kPanelRows][kCols / kChunk][scale_count(D)];

    // Columns [begin, begin + width); begin is a multiple of kCols.
    void decode(const std::byte* const* rows, int cols, int count, int begin, int width) {
      const RowPlanes planes = planes_of(D, cols);
      for (int r = 0; r < count; ++r) {
        for (int c = 0; c < width; c += kChunk)
          read_scales<V, D>(rows[r], planes, (begin + c) / kChunk, blocks_of_chunk(cols, begin + c),
                            scales[r][c / kChunk]);
        for (int c = 0; c < width; c += kGroup)
          V::store_bytes(codes[r] + c,
                         codes_of_group<V, D>(rows[r], planes, cols, (begin + c) / kGroup));
      }
    }

    template <int R, int T>
    void add_tile(int first, const Row* x, int begin, int width, V (&sums)[R][T]) const {
      SumTile<V, R, T> sum(sums);
      for (int c = 0; c < width; c += kChunk) {
        const int chunk = (begin + c) / kChunk;
        alignas(64) float products[R][T][kScales];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
          for (int t = 0; t < T; ++t)
            sum.of[r][t] = begin_chunk(scales[first + r][c / kChunk], x[t], chunk, sum.of[r][t],
                                       products[r][t]);
        keep_in_memory(products);
        const int blocks = blocks_of_chunk(width, c);
        for_each_group<V>(
            blocks, [&](int half) __attribute__((always_inline)) {
#pragma GCC unroll 4
              for (int r = 0; r < R; ++r) {
                const Bytes w = V::load_bytes(codes[first + r] + c + half * kGroup);
#pragma GCC unroll 4
                for (int t = 0; t < T; ++t)
                  sum.of[r][t] =
                      add_group(w, x[t], 2 * chunk + half, half, products[r][t], sum.of[r][t]);
              }
            });
      }
      sum.copy_to(sums);
    }
  };
};

}  // namespace
}  // namespace thermocline
