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

  // Columns [begin, begin + width) of a row.
  static void prefetch_columns(const std::byte* row, int, int begin, int width) {
    for (int c = begin; c < begin + width; c += kStep) prefetch_step<kSecondCache, D>(row, c);
  }

  // Inputs are operands in memory: there are not registers enough for those of four tokens.
  template <int T>
  [[gnu::always_inline]] static void add_step(const Pair& w, const Row* x, int c, V (&sum)[T]) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[t] = V::fma(w.first, V::load(x[t].values + c), sum[t]);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[t] = V::fma(w.second, V::load(x[t].values + c + 16), sum[t]);
  }

  // sum.of[r][t] += rows[r] . x[t].
  template <int R, int T>
  [[gnu::always_inline]] static void add_tile(const std::byte* const* rows,
                                              const std::byte* const* ahead, const Row* x, int cols,
                                              SumTile<V, R, T>& sum) {
    int c = 0;
    for (; c + kStep <= cols; c += kStep) {
      const Asked<product_requests<V, D>()> asked(rows, ahead, c, cols);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        asked.template of_row<prefetch_step<V::kRequests.cache, D>>(r);
        Pair w;
        V::template values<D>(rows[r] + row_bytes<D>(c), w.first, w.second);
        add_step(w, x, c, sum.of[r]);
      }
    }
    if (c == cols) [[likely]]
      return;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
      add_last(Columns<V>::template values_of_first<D>(rows[r] + row_bytes<D>(c), cols - c), x, c,
               cols - c, sum.of[r]);
  }

  // The last `count` columns, fewer than a step.
  template <int T>
  [[gnu::always_inline]] static void add_last(const Pair& w, const Row* x, int c, int count,
                                              V (&sum)[T]) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sum[t] = fma_pair(w, load_first(x[t].values + c, count), sum[t]);
  }

  // Decoded columns of up to kPanelRows rows, which several tokens share.
  struct Panel {
    static constexpr int kCols = kPanelBytes / sizeof(float);
    alignas(64) float values[kPanelRows][kCols];
    int begin;  // the first column

    // Columns [first, first + width) of `count` rows.
    void decode(const std::byte* const* rows, int, int count, int first, int width) {
      begin = first;
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
    [[gnu::always_inline]] void add_tile(int first, const Row* x, int width,
                                         SumTile<V, R, T>& sum) const {
      const int whole = width / kStep * kStep;
      for (int c = 0; c < whole; c += kLanes) {
        V of_x[T];
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) of_x[t] = V::load(x[t].values + begin + c);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const V w = V::load(values[first + r] + c);
#pragma GCC unroll 4
          for (int t = 0; t < T; ++t) sum.of[r][t] = V::fma(w, of_x[t], sum.of[r][t]);
        }
      }
      if (whole == width) [[likely]]
        return;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        add_last(load(values[first + r] + whole), x, begin + whole, width - whole, sum.of[r]);
    }
  };
};

}  // namespace
}  // namespace thermocline
