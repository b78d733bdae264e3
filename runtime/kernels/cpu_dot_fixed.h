// Dot products of quantised rows with inputs in fixed point (Inputs::codes).
//
// A step's 32 products of codes are added in pairs, exactly, as integers below 2^24; the 16 sums
//   become f32 and are added to 16 lanes by one fused multiply-add, times the product of the two
//   scales. What a type adds to its codes, a minimum or minus the code of zero, meets the sums of
//   the inputs instead, those of step s of a chunk in lane s.
// V::codes<D>(block, step) are a step's codes as 16-bit integers, as they are stored (of Q6_K less
//   32; of Q8_0 times 256, which spares widening them with their sign: the sums of products are
//   then multiples of 256, and no less exact); V::products the 16 sums of pairs of products;
//   V::read_scales what block_scales.h says.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct FixedDot : Columns<V> {
  using Codes = typename V::Codes;
  static constexpr int kHalves = D == DType::q6_k ? 2 : 1;  // scales of a step
  static constexpr int kScales = kStepsPerChunk * kHalves;
  static constexpr bool kShifted = kHasMinimum<D> || kZeroCode<D> != 0;
  static constexpr float kUnit = D == DType::q8_0 ? 1.0f / 256 : 1.0f;  // of V::codes

  // The inputs of a token.
  struct Row {
    const int16_t* codes;
    const float* scales;
    const float* sums;
  };
  static Row row_of(const Inputs& x, int cols, int t) {
    const size_t first = static_cast<size_t>(t) * (cols / kFixedBlock);
    return {x.codes + first * kFixedBlock, x.scales + first, x.sums + first};
  }

  // Scales and sums of a chunk's inputs; zeros beyond a row's end.
  struct ChunkInputs {
    alignas(32) float scales[kStepsPerChunk] = {}, sums[kStepsPerChunk] = {};
    ChunkInputs(const Row& x, int first, int count) {
      std::memcpy(scales, x.scales + first, count * sizeof(float));
      std::memcpy(sums, x.sums + first, count * sizeof(float));
    }
  };

  using Eight = typename V::Eight;

  // A chunk of a row: scales, and what is added to scale times code.
  struct ChunkScales {
    alignas(32) float scales[kScales];
    alignas(32) float shifts[kStepsPerChunk];

    [[gnu::always_inline]] explicit ChunkScales(const float (&read)[kScaleCount<D>]) {
      for (int half = 0; half < kHalves; ++half)
        V::store(scales + 8 * half, V::mul(V::load_eight(read + 8 * half), V::eight(kUnit)));
      const float* minimums = read + minimum_at<D>(0) % kScaleCount<D>;
      V::store(shifts, V::mul(V::load_eight(minimums),
                              V::eight(kHasMinimum<D> ? 1.0f : -1.0f * kZeroCode<D>)));
    }
  };

  // products: of the scales. Returns the sum with the chunk's shifts.
  [[gnu::always_inline]] static V begin_chunk(const float* scales, const float* shifts,
                                              const float* x_scales, const float* x_sums, V sum,
                                              float* products) {
    const Eight x = V::load_eight(x_scales);
    if constexpr (kHalves == 1) {
      V::store(products, V::mul(V::load_eight(scales), x));
    } else {
      V::store(products, V::mul(V::load_eight(scales), V::each_twice(x, 0)));
      V::store(products + 8, V::mul(V::load_eight(scales + 8), V::each_twice(x, 1)));
    }
    if constexpr (!kShifted) return sum;
    return V::fma(V::load_eight(shifts), V::load_eight(x_sums), sum);
  }
  [[gnu::always_inline]] static V scale_of(const float* products, int step) {
    if constexpr (kHalves == 2) return V::halves(products[2 * step], products[2 * step + 1]);
    return V::broadcast(products[step]);
  }

  // sums[r][t] = rows[r] . x[t] for R rows and T tokens, a sum a vector.
  template <int R, int T>
  static void tile(const std::byte* const* rows, const std::byte* const* ahead, const Row* x,
                   int cols, V (&sums)[R][T]) {
    SumTile<V, R, T> sum(sums);
    size_t offset = 0;
    int c = 0;
    for (; c + kChunk<D> <= cols; c += kChunk<D>, offset += row_bytes<D>(kChunk<D>))
      add_chunk<R, T>(rows, ahead, offset, x, c, kStepsPerChunk, sum.of);
    if (c < cols) add_chunk<R, T>(rows, ahead, offset, x, c, (cols - c) / kStep, sum.of);
    sum.copy_to(sums);
  }

  template <int R, int T>
  [[gnu::always_inline]] static void add_chunk(const std::byte* const* rows,
                                               const std::byte* const* ahead, size_t offset,
                                               const Row* x, int c, int count, V (&sum)[R][T]) {
    alignas(64) float products[T][R][kScales];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      alignas(64) float read[kScaleCount<D>];
      V::template read_scales<D>(rows[r] + offset, count, read);
      const ChunkScales of_row(read);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const auto begin = [&](const float* scales, const float* sums) {
          sum[r][t] =
              begin_chunk(of_row.scales, of_row.shifts, scales, sums, sum[r][t], products[t][r]);
        };
        if (count == kStepsPerChunk) {
          begin(x[t].scales + c / kStep, x[t].sums + c / kStep);
        } else {
          const ChunkInputs part(x[t], c / kStep, count);
          begin(part.scales, part.sums);
        }
      }
    }
    keep_in_memory(products);
    Columns<V>::template for_each_step<D>(
        count, [&](int step) __attribute__((always_inline)) {
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            prefetch<D>(ahead[r] + offset, step);
            const Codes w = V::template codes<D>(block_of<D>(rows[r] + offset, step), step);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t)
              sum[r][t] = V::fma(scale_of(products[t][r], step),
                                 V::products(w, x[t].codes + c + step * kStep), sum[r][t]);
          }
        });
  }

  // Decoded columns of up to kPanelRows rows, which several tokens share.
  struct Panel {
    static constexpr int kCols = kPanelBytes / sizeof(int16_t);
    alignas(64) int16_t codes[kPanelRows][kCols];
    alignas(64) float scales[kPanelRows][kCols / kStep * kHalves];
    alignas(64) float shifts[kPanelRows][kCols / kStep];

    void decode(const std::byte* const* rows, int count, int begin, int width) {
      for (int r = 0; r < count; ++r)
        for (int c = 0; c < width; c += kChunk<D>) {
          const std::byte* chunk = rows[r] + row_bytes<D>(begin + c);
          const int steps = width - c < kChunk<D> ? (width - c) / kStep : kStepsPerChunk;
          alignas(64) float read[kScaleCount<D>];
          V::template read_scales<D>(chunk, steps, read);
          const ChunkScales of_row(read);
          std::memcpy(scales[r] + c / kStep * kHalves, of_row.scales, sizeof of_row.scales);
          std::memcpy(shifts[r] + c / kStep, of_row.shifts, sizeof of_row.shifts);
          Columns<V>::template for_each_step<D>(
              steps, [&](int step) __attribute__((always_inline)) {
                V::store_codes(codes[r] + c + step * kStep,
                               V::template codes<D>(block_of<D>(chunk, step), step));
              });
        }
    }

    template <int R, int T>
    void add_tile(int first, const Row* x, int begin, int width, V (&sums)[R][T]) const {
      SumTile<V, R, T> sum(sums);
      int c = 0;
      for (; c + kChunk<D> <= width; c += kChunk<D>)
        add_chunk<R, T>(first, x, begin, c, kStepsPerChunk, sum.of);
      if (c < width) add_chunk<R, T>(first, x, begin, c, (width - c) / kStep, sum.of);
      sum.copy_to(sums);
    }

   private:
    template <int R, int T>
    [[gnu::always_inline]] void add_chunk(int first, const Row* x, int begin, int c, int count,
                                          V (&sum)[R][T]) const {
      alignas(64) float products[R][T][kScales];
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const auto begin_rows = [&](const float* x_scales, const float* x_sums) {
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r)
            sum[r][t] =
                begin_chunk(scales[first + r] + c / kStep * kHalves, shifts[first + r] + c / kStep,
                            x_scales, x_sums, sum[r][t], products[r][t]);
        };
        const int at = (begin + c) / kStep;
        if (count == kStepsPerChunk) {
          begin_rows(x[t].scales + at, x[t].sums + at);
        } else {
          const ChunkInputs part(x[t], at, count);
          begin_rows(part.scales, part.sums);
        }
      }
      keep_in_memory(products);
      Columns<V>::template for_each_step<D>(
          count, [&](int step) __attribute__((always_inline)) {
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) {
              const Codes w = V::load_codes(codes[first + r] + c + step * kStep);
#pragma GCC unroll 4
              for (int t = 0; t < T; ++t)
                sum[r][t] =
                    V::fma(scale_of(products[r][t], step),
                           V::products(w, x[t].codes + begin + c + step * kStep), sum[r][t]);
            }
          });
    }
  };
};

}  // namespace
}  // namespace thermocline
