// weighted_rows: y += a^T W over the rows that a mask chooses.
//
// Element c of y takes row after row, ascending, by one fused multiply-add.
// Rows are decoded as they are read, several at a time, so that y is read and written once for
//   them; tokens take turns, a block of rows that stays in the second cache at a time.
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
  using Sums = typename Kind::Sums;
  static constexpr int kTurnRows = 64;
  static constexpr int kTurnTokens = 16;

  struct Call {
    const RowMemory memory;
    int rows, cols;
    Masks masks;
    const float* a;  // (token_count, a_stride)
    int a_stride, token_count;
  };

  // The rows in [begin, end) that token t wants.
  static void add_rows(const Call& call, int t, int begin, int end, Sums& sums) {
    const float* all = call.a + static_cast<size_t>(t) * call.a_stride;
    for_each_block([&](int i) { return call.masks.word(t, i); }, call.memory, begin, end,
                   [&](const RowBlock& block) {
                     in_tiles<Kind::kTileRows>(0, block.count, [&]<int R>(int first) {
                       float a[R];
                       for (int r = 0; r < R; ++r) a[r] = all[block.index[first + r]];
                       Kind::template add_tile<R>(block.rows + first, block.ahead + first, a,
                                                  call.cols, sums);
                     });
                   });
  }

  // Columns [begin, end), at most a stripe, of up to kTurnTokens tokens.
  static void sum_stripe(const Call& call, int begin, int end, float* y, int y_stride) {
    Sums sums[kTurnTokens];
    for (int t = 0; t < call.token_count; ++t)
      sums[t].begin_at(y + static_cast<size_t>(t) * y_stride, begin, end);
    const int turn = call.token_count == 1 ? call.rows : kTurnRows;
    for (int r = 0; r < call.rows; r += turn)
      for (int t = 0; t < call.token_count; ++t)
        add_rows(call, t, r, call.rows - r < turn ? call.rows : r + turn, sums[t]);
    for (int t = 0; t < call.token_count; ++t) sums[t].finish();
  }

  static void weighted_rows(const WeightView& w, int col_begin, int col_end, const uint64_t* mask,
                            int mask_stride, const float* a, int a_stride, int token_count,
                            float* y, int y_stride) {
    for (int first = 0; first < token_count; first += kTurnTokens) {
      const int left = token_count - first;
      const Call call{{w.data, w.stride},
                      w.rows,
                      w.cols,
                      Masks{mask, mask_stride}.from(first),
                      a + static_cast<size_t>(first) * a_stride,
                      a_stride,
                      left < kTurnTokens ? left : kTurnTokens};
      for (int begin = col_begin; begin < col_end;) {
        const int next = (begin / kSumStripe + 1) * kSumStripe,
                  end = next < col_end ? next : col_end;
        sum_stripe(call, begin, end, y + static_cast<size_t>(first) * y_stride, y_stride);
        begin = end;
      }
    }
  }
};

}  // namespace
}  // namespace thermocline
