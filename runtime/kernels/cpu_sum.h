// weighted_rows: y += a^T W over the rows that a mask chooses.
//
// Element c of y takes row after row by one fused multiply-add of the row's code and a times the
//   scale; a minimum, times a, is added before it. Types without blocks: of the weight and a.
// One token: rows are decoded as they are read, four at a time, so that y is read and written once
//   for them. Several: the rows that any of them wants are decoded once, kPanelRows of them and
//   kPanelCols columns at a time.
// V::values<D>(chunk, step) are a step's codes (or weights) as f32; V::read_scales see
//   block_scales.h. Internal linkage: see cpu_rows.h.
// Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct WeightedSum : Columns<V> {
  using typename Columns<V>::Pair;
  using Columns<V>::load;
  using Columns<V>::store;
  static constexpr bool kScaled = takes_fixed(D);

  // sum + a row's step times its factor; factors: a times the scales that block_scales.h orders.
  [[gnu::always_inline]] static void add_step(const Pair& w, const float* factors, int step,
                                              Pair& sum) {
    if constexpr (kHasMinimum<D>) {
      const V minimum = V::broadcast(factors[minimum_at<D>(step)]);
      sum = {V::add(sum.first, minimum), V::add(sum.second, minimum)};
    }
    const int first = kScaled ? scale_at<D>(step, 0) : 0,
              second = kScaled ? scale_at<D>(step, 1) : 0;
    sum.first = V::fma(V::broadcast(factors[first]), w.first, sum.first);
    sum.second = V::fma(V::broadcast(factors[second]), w.second, sum.second);
  }

  // a times the scales of `count` steps of a row.
  [[gnu::always_inline]] static void read_factors(const std::byte* chunk, int count, float a,
                                                  float (&factors)[kScaleCount<D>]) {
    if constexpr (!kScaled) {
      factors[0] = a;
    } else {
      V::template read_scales<D>(chunk, count, factors);
      for (int i = 0; i < kScaleCount<D>; i += 8)
        V::store(factors + i, V::mul(V::load_eight(factors + i), V::eight(a)));
    }
  }

  // y[c] += a[r] * rows[r][c], r ascending, for R rows and `cols` columns.
  template <int R>
  static void sum_tile(const std::byte* const* rows, const std::byte* const* ahead, const float* a,
                       int cols, float* y) {
    size_t offset = 0;
    int c = 0;
    for (; c + kChunk<D> <= cols; c += kChunk<D>, offset += row_bytes<D>(kChunk<D>))
      sum_chunk<R>(rows, ahead, offset, a, kSteps<D>, y + c);
    if (c == cols) return;
    if constexpr (kScaled) {
      sum_chunk<R>(rows, ahead, offset, a, (cols - c) / kStep, y + c);
    } else {
      Pair sum = Columns<V>::load_first(y + c, cols - c);
      for (int r = 0; r < R; ++r)
        add_step(Columns<V>::template values_of_first<D>(rows[r] + offset, cols - c), a + r, 0,
                 sum);
      Columns<V>::store_first(y + c, sum, cols - c);
    }
  }

  template <int R>
  [[gnu::always_inline]] static void sum_chunk(const std::byte* const* rows,
                                               const std::byte* const* ahead, size_t offset,
                                               const float* a, int count, float* y) {
    alignas(64) float factors[R][kScaleCount<D>];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) read_factors(rows[r] + offset, count, a[r], factors[r]);
    keep_in_memory(factors);
    Columns<V>::template for_each_step<D>(
        count, [&](int step) __attribute__((always_inline)) {
          Pair sum = load(y + step * kStep);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            if constexpr (kPrefetches<D>) prefetch<D>(ahead[r] + offset, step);
            Pair w;
            V::template values<D>(block_of<D>(rows[r] + offset, step), step, w.first, w.second);
            add_step(w, factors[r], step, sum);
          }
          store(y + step * kStep, sum);
        });
  }

  // Decoded columns of rows that several tokens share.
  struct Panel {
    static constexpr int kCols = 256;
    alignas(64) float values[kPanelRows][kCols];
    alignas(64) float scales[kPanelRows][kScaleCount<D>];
    int index[kPanelRows];
    int count = 0;

    void add(const std::byte* row, int r, int width) {
      if constexpr (kScaled) V::template read_scales<D>(row, (width + 31) / kStep, scales[count]);
      for (int c = 0; c < width; c += kStep) {
        const std::byte* from = kScaled ? block_of<D>(row, c / kStep) : row + row_bytes<D>(c);
        Pair w;
        if (width - c >= kStep)
          V::template values<D>(from, c / kStep, w.first, w.second);
        else if constexpr (!kScaled)
          w = Columns<V>::template values_of_first<D>(from, width - c);
        store(values[count] + c, w);
      }
      index[count++] = r;
    }

    // y += its rows that `masks` choose for token t.
    void sum(const Masks& masks, int t, const float* a, int width, float* y) const {
      int rows[kPanelRows], chosen = 0;
      for (int i = 0; i < count; ++i) {
        rows[chosen] = i;
        chosen += static_cast<int>(masks.word(t, index[i] / 64) >> (index[i] % 64) & 1);
      }
      alignas(64) float factors[kPanelRows][kScaleCount<D>];
      for (int i = 0; i < chosen; ++i)
        for (int k = 0; k < kScaleCount<D>; ++k)
          factors[i][k] = kScaled ? a[index[rows[i]]] * scales[rows[i]][k] : a[index[rows[i]]];
      int c = 0;
      for (; c + 2 * kStep <= width; c += 2 * kStep) sum_steps<2>(rows, chosen, factors, c, y);
      for (; c + kStep <= width; c += kStep) sum_steps<1>(rows, chosen, factors, c, y);
      if (c == width) return;
      Pair total = Columns<V>::load_first(y + c, width - c);
      for (int i = 0; i < chosen; ++i) add_step(load(values[rows[i]] + c), factors[i], 0, total);
      Columns<V>::store_first(y + c, total, width - c);
    }

   private:
    // N steps at once: as many chains of additions as hide their latency.
    template <int N>
    [[gnu::always_inline]] void sum_steps(const int* rows, int chosen,
                                          const float (*factors)[kScaleCount<D>], int c,
                                          float* y) const {
      Pair total[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) total[n] = load(y + c + n * kStep);
      for (int i = 0; i < chosen; ++i)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n)
          add_step(load(values[rows[i]] + c + n * kStep), factors[i], kScaled ? c / kStep + n : 0,
                   total[n]);
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) store(y + c + n * kStep, total[n]);
    }
  };

  struct Call {
    const RowMemory memory;  // from the first column on
    int rows, width;
    Masks masks;
    const float* a;
    int a_stride, token_count;
    float* y;  // likewise
    int y_stride;
  };

  static void sum_one_token(const Call& call) {
    for_each_block([&](int i) { return call.masks.words[i]; }, call.memory, 0, call.rows,
                   [&](const RowBlock& block) {
                     in_tiles<kRows>(0, block.count, [&]<int R>(int first) {
                       float a[R];
                       for (int r = 0; r < R; ++r) a[r] = call.a[block.index[first + r]];
                       sum_tile<R>(block.rows + first, block.ahead + first, a, call.width, call.y);
                     });
                   });
  }

  // Columns [begin, begin + width) for all tokens.
  static void sum_panels(const Call& call, int begin, int width) {
    Panel panel;
    const auto pass_on = [&] {
      for (int t = 0; t < call.token_count; ++t)
        panel.sum(call.masks, t, call.a + static_cast<size_t>(t) * call.a_stride, width,
                  call.y + static_cast<size_t>(t) * call.y_stride + begin);
      panel.count = 0;
    };
    for_each_row([&](int i) { return call.masks.any(call.token_count, i); }, 0, call.rows,
                 [&](int r) {
                   panel.add(call.memory.at(r) + row_bytes<D>(begin), r, width);
                   if (panel.count == kPanelRows) pass_on();
                 });
    pass_on();
  }

  static void weighted_rows(const WeightView& w, int col_begin, int col_end, const uint64_t* mask,
                            int mask_stride, const float* a, int a_stride, int token_count,
                            float* y, int y_stride) {
    const Call call{{w.data + row_bytes<D>(col_begin), w.stride},
                    w.rows,
                    col_end - col_begin,
                    {mask, mask_stride},
                    a,
                    a_stride,
                    token_count,
                    y + col_begin,
                    y_stride};
    if (token_count == 1) return sum_one_token(call);
    for (int begin = 0; begin < call.width; begin += Panel::kCols) {
      const int left = call.width - begin;
      sum_panels(call, begin, left < Panel::kCols ? left : Panel::kCols);
    }
  }
};

}  // namespace
}  // namespace thermocline
