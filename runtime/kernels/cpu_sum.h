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

  // A token's part: its rows in blocks, and what they are added to.
  struct Token {
    struct WordAt {
      const uint64_t* words;
      uint64_t operator()(int i) const { return words[i]; }
    };
    RowWalk<Kind::kRows, WordAt> walk;
    const float* a;
    Sums sums;

    Token(const Call& call, int t, int begin, int end, float* y)
        : walk(WordAt{call.masks.from(t).words}, call.memory, 0, call.rows),
          a(call.a + static_cast<size_t>(t) * call.a_stride) {
      sums.begin_at(y, begin, end);
    }
    // Blocks that begin before row `end`.
    void add_until(int end, int cols) {
      for (; walk.block().count > 0 && walk.block().index[0] < end; walk.step())
        Kind::add_block(walk.block(), a, cols, sums);
    }
  };

  // Columns [begin, end), at most a stripe, of up to kTurnTokens tokens.
  static void sum_stripe(const Call& call, int begin, int end, float* y, int y_stride) {
    alignas(Token) std::byte memory[kTurnTokens * sizeof(Token)];
    auto* tokens = reinterpret_cast<Token*>(memory);
    for (int t = 0; t < call.token_count; ++t)
      new (tokens + t) Token(call, t, begin, end, y + static_cast<size_t>(t) * y_stride);
    for (int r = kTurnRows; r < call.rows + kTurnRows; r += kTurnRows)
      for (int t = 0; t < call.token_count; ++t) tokens[t].add_until(r, call.cols);
    for (int t = 0; t < call.token_count; ++t) tokens[t].sums.finish();
  }

  static void weighted_rows(const WeightView& w, int col_begin, int col_end, const uint64_t* mask,
                            int mask_stride, const float* a, int a_stride, int token_count,
                            float* y, int y_stride) {
    for (int first = 0; first < token_count; first += kTurnTokens) {
      const int left = token_count - first;
      const Call call{{w.data, w.stride, w.places},
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
