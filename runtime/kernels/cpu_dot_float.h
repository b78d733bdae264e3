// Dot products of rows whose types have no blocks (f32, f16, bf16) with f32 inputs.
//
// Element c goes through lane c % 16, in ascending order, by one fused multiply-add.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct FloatDot : Columns<V> {
  using typename Columns<V>::Pair;
  using Columns<V>::load;
  using Columns<V>::load_first;
  using Columns<V>::fma_pair;

  // The inputs of a token.
  struct Row {
    const float* values;
  };
  static Row row_of(const Inputs& x, int, int t) {
    return {x.values + static_cast<size_t>(t) * x.stride};
  }

  // Inputs are operands in memory: there are not registers enough for those of four tokens.
  template <int T>
  [[gnu::always_inline]] static void add_step(const Pair& w, const Row* x, int c, V (&sum)[T]) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[t] = V::fma(w.first, V::load(x[t].values + c), sum[t]);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[t] = V::fma(w.second, V::load(x[t].values + c + 16), sum[t]);
  }

  // sums[r][t] = rows[r] . x[t] for R rows and T tokens, a sum a vector.
  template <int R, int T>
  static void tile(const std::byte* const* rows, const std::byte* const* ahead, const Row* x,
                   int cols, V (&sums)[R][T]) {
    SumTile<V, R, T> in(sums);
    V(&sum)[R][T] = in.of;
    int c = 0;
    for (; c + kStep <= cols; c += kStep) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        prefetch<row_bytes<D>(kStep)>(ahead[r] + row_bytes<D>(c));
        Pair w;
        V::template values<D>(rows[r] + row_bytes<D>(c), w.first, w.second);
        add_step(w, x, c, sum[r]);
      }
    }
    in.copy_to(sums);
    for (int r = 0; c < cols && r < R; ++r) {
      const Pair w = Columns<V>::template values_of_first<D>(rows[r] + row_bytes<D>(c), cols - c);
      for (int t = 0; t < T; ++t)
        sums[r][t] = fma_pair(w, load_first(x[t].values + c, cols - c), sums[r][t]);
    }
  }

  // Decoded columns of up to kPanelRows rows, which several tokens share.
  struct Panel {
    static constexpr int kCols = kPanelBytes / sizeof(float);
    alignas(64) float values[kPanelRows][kCols];

    void decode(const std::byte* const* rows, int, int count, int begin, int width) {
      for (int r = 0; r < count; ++r) {
        const std::byte* from = rows[r] + row_bytes<D>(begin);
        for (int c = 0; c < width; c += kStep) {
          Pair w;
          if (width - c >= kStep)
            V::template values<D>(from + row_bytes<D>(c), w.first, w.second);
          else
            w = Columns<V>::template values_of_first<D>(from + row_bytes<D>(c), width - c);
          Columns<V>::store(values[r] + c, w);
        }
      }
    }

    template <int R, int T>
    void add_tile(int first, const Row* x, int begin, int width, V (&sums)[R][T]) const {
      SumTile<V, R, T> in(sums);
      V(&sum)[R][T] = in.of;
      int c = 0;
      for (; c + kStep <= width; c += kStep) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) add_step(load(values[first + r] + c), x, begin + c, sum[r]);
      }
      in.copy_to(sums);
      for (int r = 0; c < width && r < R; ++r)
        for (int t = 0; t < T; ++t)
          sums[r][t] = fma_pair(load(values[first + r] + c),
                                load_first(x[t].values + begin + c, width - c), sums[r][t]);
    }
  };
};

}  // namespace
}  // namespace thermocline
