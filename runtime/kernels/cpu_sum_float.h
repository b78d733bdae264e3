// Weighted sums of rows whose types have no blocks (f32, f16, bf16).
//
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"
#include "runtime/kernels/cpu_sum_call.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct FloatSum : Columns<V> {
  using typename Columns<V>::Pair;
  using Columns<V>::load;
  using Columns<V>::store;

  [[gnu::always_inline]] static void add_step(const Pair& w, float a, Pair& sum) {
    sum.first = V::fma(V::broadcast(a), w.first, sum.first);
    sum.second = V::fma(V::broadcast(a), w.second, sum.second);
  }

  // y[c] += a[r] * rows[r][c], r ascending, for R rows and columns [begin, end).
  template <int R>
  static void sum_tile(const std::byte* const* rows, const std::byte* const* ahead, const float* a,
                       int begin, int end, float* y) {
    int c = begin;
    for (; c + kStep <= end; c += kStep) {
      Pair sum = load(y + c);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        prefetch<row_bytes<D>(kStep)>(ahead[r] + row_bytes<D>(c));
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

  static void sum_one_token(const SumCall& call) {
    for_each_block([&](int i) { return call.masks.words[i]; }, call.memory, 0, call.rows,
                   [&](const RowBlock& block) {
                     in_tiles<kTileRows>(0, block.count, [&]<int R>(int first) {
                       float a[R];
                       for (int r = 0; r < R; ++r) a[r] = call.a[block.index[first + r]];
                       sum_tile<R>(block.rows + first, block.ahead + first, a, call.begin, call.end,
                                   call.y);
                     });
                   });
  }

  // Decoded columns of rows that several tokens share.
  struct Panel {
    static constexpr int kCols = kSumPanelCols;
    alignas(64) float values[kPanelRows][kCols];

    explicit Panel(int) {}
    void decode(const std::byte* row, int i, int begin, int width) {
      row += row_bytes<D>(begin);
      for (int c = 0; c < width; c += kStep) {
        Pair w;
        if (width - c >= kStep)
          V::template values<D>(row + row_bytes<D>(c), w.first, w.second);
        else
          w = Columns<V>::template values_of_first<D>(row + row_bytes<D>(c), width - c);
        store(values[i] + c, w);
      }
    }

    // y (width) += the rows whose places are listed, times a of each place.
    void add(const int* places, int count, const float* a, int width, SumsOfToken& sums) const {
      float* y = sums.columns;
      int c = 0;
      for (; c + 2 * kStep <= width; c += 2 * kStep) add_steps<2>(places, count, a, c, y);
      for (; c + kStep <= width; c += kStep) add_steps<1>(places, count, a, c, y);
      if (c == width) return;
      Pair total = Columns<V>::load_first(y + c, width - c);
      for (int i = 0; i < count; ++i) add_step(load(values[places[i]] + c), a[i], total);
      Columns<V>::store_first(y + c, total, width - c);
    }

   private:
    // N steps at once: as many chains of additions as hide their latency.
    template <int N>
    [[gnu::always_inline]] void add_steps(const int* places, int count, const float* a, int c,
                                          float* y) const {
      Pair total[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) total[n] = load(y + c + n * kStep);
      for (int i = 0; i < count; ++i)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
          add_step(load(values[places[i]] + c + n * kStep), a[i], total[n]);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) store(y + c + n * kStep, total[n]);
    }
  };

  // Sums of several tokens lie as they do in memory.
  static void load_sums(const float* y, int width, SumsOfToken& sums) {
    std::memcpy(sums.columns, y, width * sizeof(float));
  }
  static void store_sums(const SumsOfToken& sums, int width, float* y) {
    std::memcpy(y, sums.columns, width * sizeof(float));
  }
};

}  // namespace
}  // namespace thermocline
