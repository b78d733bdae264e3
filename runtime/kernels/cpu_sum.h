// weighted_rows: y += a^T W over the rows that a mask chooses.
//
// Element c of y takes row after row, ascending, by one fused multiply-add.
// One token: rows are decoded as they are read, four at a time, so that y is read and written once
//   for them. Several: the rows that any of them wants are decoded once, a panel of kPanelRows rows
//   and kSumPanelCols columns at a time, for up to kPanelTokens tokens.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <type_traits>

#include "runtime/kernels/cpu_sum_fixed.h"
#include "runtime/kernels/cpu_sum_float.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct WeightedSum {
  using Kind = std::conditional_t<takes_fixed(D), FixedSum<V, D>, FloatSum<V, D>>;

  // The rows of a panel, while they are gathered.
  struct Gathered {
    const std::byte* rows[kPanelRows];
    int index[kPanelRows];
    int count = 0;
  };

  // The places of the rows that token t wants, and its a of each; returns how many.
  static int chosen_of(const SumCall& call, const Gathered& gathered, int t, int* places,
                       float* a) {
    int count = 0;
    for (int i = 0; i < gathered.count; ++i) {
      const int r = gathered.index[i];
      places[count] = i;
      a[count] = call.a[static_cast<size_t>(t) * call.a_stride + r];
      count += static_cast<int>(call.masks.word(t, r / 64) >> (r % 64) & 1);
    }
    return count;
  }

  // Columns [begin, begin + width) of up to kPanelTokens tokens.
  static void sum_columns(const SumCall& call, int begin, int width) {
    SumsOfToken sums[kPanelTokens];
    float* y = call.y + begin;
    for (int t = 0; t < call.token_count; ++t)
      Kind::load_sums(y + static_cast<size_t>(t) * call.y_stride, width, sums[t]);
    typename Kind::Panel panel(call.cols);
    Gathered gathered;
    const auto pass_on = [&] {
      for (int i = 0; i < gathered.count; ++i) panel.decode(gathered.rows[i], i, begin, width);
      for (int t = 0; t < call.token_count; ++t) {
        int places[kPanelRows];
        float a[kPanelRows];
        const int count = chosen_of(call, gathered, t, places, a);
        panel.add(places, count, a, width, sums[t]);
      }
      gathered.count = 0;
    };
    for_each_row([&](int i) { return call.masks.any(call.token_count, i); }, 0, call.rows,
                 [&](int r) {
                   gathered.rows[gathered.count] = call.memory.at(r);
                   gathered.index[gathered.count++] = r;
                   if (gathered.count == kPanelRows) pass_on();
                 });
    pass_on();
    for (int t = 0; t < call.token_count; ++t)
      Kind::store_sums(sums[t], width, y + static_cast<size_t>(t) * call.y_stride);
  }

  static void weighted_rows(const WeightView& w, int col_begin, int col_end, const uint64_t* mask,
                            int mask_stride, const float* a, int a_stride, int token_count,
                            float* y, int y_stride) {
    for (int first = 0; first < token_count; first += kPanelTokens) {
      const int left = token_count - first;
      const Masks masks = Masks{mask, mask_stride}.from(first);
      const SumCall call{{w.data, w.stride},
                         w.rows,
                         w.cols,
                         col_begin,
                         col_end,
                         masks,
                         a + static_cast<size_t>(first) * a_stride,
                         a_stride,
                         left < kPanelTokens ? left : kPanelTokens,
                         y + static_cast<size_t>(first) * y_stride,
                         y_stride};
      if (call.token_count == 1) {
        Kind::sum_one_token(call);
        continue;
      }
      for (int begin = col_begin; begin < col_end; begin += kSumPanelCols)
        sum_columns(call, begin, col_end - begin < kSumPanelCols ? col_end - begin : kSumPanelCols);
    }
  }
};

}  // namespace
}  // namespace thermocline
