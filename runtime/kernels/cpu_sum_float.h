// Weighted sums of rows whose types have no blocks (f32, f16, bf16).
//
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct FloatSum : Columns<V> {
  using typename Columns<V>::Pair;
  using Columns<V>::load;
  using Columns<V>::store;
  static constexpr int kRows = kBlockRows;

  [[gnu::always_inline]] static void add_step(const Pair& w, float a, Pair& sum) {
    sum.first = V::fma(V::broadcast(a), w.first, sum.first);
    sum.second = V::fma(V::broadcast(a), w.second, sum.second);
  }

  // The sums of a token, where they belong.
  struct Sums {
    float* y;
    int begin, end;  // columns

    void begin_at(float* of_token, int first, int last) {
      y = of_token;
      begin = first;
      end = last;
    }
    void finish() {}
  };

  // sums[c] += a[r] * rows[r][c], r ascending, for R rows.
  template <int R>
  static void add_tile(const std::byte* const* rows, const std::byte* const* ahead, const float* a,
                       int, Sums& sums) {
    float* y = sums.y;
    const int end = sums.end;
    int c = sums.begin;
    for (; c + kStep <= end; c += kStep) {
      Pair sum = load(y + c);
      const Asked<sum_requests<V, D>()> asked(rows, ahead, c, end);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        asked.template of_row<prefetch_step<V::kRequests.cache, D>>(r);
        Pair w;
        V::template values<D>(rows[r] + row_bytes<D>(c), w.first, w.second);
        add_step(w, a[r], sum);
      }
      store(y + c, sum);
    }
    if (c == end) return;
    Pair sum = Columns<V>::load_first(y + c, end - c);
    for (int r = 0; r < R; ++r)
      add_step(Columns<V>::template values_of_first<D>(rows[r] + row_bytes<D>(c), end - c), a[r],
               sum);
    Columns<V>::store_first(y + c, sum, end - c);
  }

  // sums += a^T W over a block's rows.
  static void add_block(const RowBlock& block, const float* a, int cols, Sums& sums) {
    in_tiles<kRows>(0, block.count, [&]<int R>(int first) {
      float of_rows[R];
      for (int r = 0; r < R; ++r) of_rows[r] = a[block.index[first + r]];
      add_tile<R>(block.rows + first, block.ahead + first, of_rows, cols, sums);
    });
  }
};

}  // namespace
}  // namespace thermocline
