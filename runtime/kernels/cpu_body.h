// The algorithms of the CPU kernels, written once over a 16-lane f32 vector type V.
//
// Goals: every instruction set runs the same arithmetic in the same order, so that results are the
//   same bits on every machine: element c of a row always goes through lane c % 16, in ascending
//   order, by one fused multiply-add; quantised weights are decoded to the f32 values of
//   models/quantize.h (an 11-bit scale times a 6- or 8-bit one times a code fits in 24 bits, and
//   only adding a minimum rounds). How many rows and tokens share a tile changes only what is
//   reused from registers, never a result.
// Non-goals: choosing the instruction set (kernels.cc), threads.
// V has: kAccumulators (how many sums its registers hold), kUnrollsSteps and the operations used
//   below. It lives
//   in an anonymous namespace of the one file that includes this header, which gives everything
//   here internal linkage. Inline functions from elsewhere are not called: the linker keeps one
//   copy of those, and code for a newer machine must not leak into the others.
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cstring>
#include <limits>
#include <utility>

#include "runtime/kernels/block_scales.h"
#include "runtime/kernels/elementwise.h"
#include "runtime/kernels/kernels.h"

namespace thermocline {

template <class V>
struct CpuKernels {
  static constexpr int kStep = 32;  // columns decoded at a time: two vectors
  static constexpr int kRows = 4;   // rows in a full tile
  static constexpr int kTokens = 4;
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  template <DType D>
  static constexpr size_t row_bytes(size_t cols) {
    constexpr size_t kItems = facts(D).items_per_block, kBytes = facts(D).bytes_per_block;
    return cols / kItems * kBytes;
  }

  // Columns whose scales are read together, and their steps.
  template <DType D>
  static constexpr int kChunk = facts(D).items_per_block > kStep ? facts(D).items_per_block : kStep;
  template <DType D>
  static constexpr int kSteps = kChunk<D> / kStep;

  // Calls visit(step) for the steps of a chunk; where V wants them unrolled, with constants.
  template <DType D, class Visit>
  [[gnu::always_inline]] static void for_each_step(Visit visit) {
    if constexpr (V::kUnrollsSteps) {
      [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) __attribute__((always_inline)) {
        (visit(kIndex), ...);
      }
      (std::make_integer_sequence<int, kSteps<D>>{});
    } else {
      for (int step = 0; step < kSteps<D>; ++step) visit(step);
    }
  }

  struct Pair {
    V first, second;  // columns 0..15 and 16..31 of a step
  };

  // Rows of the other types end with a whole step.
  template <DType D>
  static constexpr bool kHasTail = facts(D).items_per_block == 1;

  // The first `count` < 32 columns of a step, the others zero.
  template <DType D>
  static Pair decode_first(const std::byte* from, int count) {
    std::byte padded[row_bytes<D>(kStep)] = {};
    std::memcpy(padded, from, row_bytes<D>(count));
    Pair w;
    V::template decode<D>(padded, 0, nullptr, w.first, w.second);
    return w;
  }

  static Pair load_first(const float* from, int count) {
    float padded[kStep] = {};
    std::memcpy(padded, from, count * sizeof(float));
    return {V::load(padded), V::load(padded + 16)};
  }

  static V fma_pair(const Pair& a, const Pair& b, V sum) {
    return V::fma(a.second, b.second, V::fma(a.first, b.first, sum));
  }

  // Short rows are prefetched, because the hardware starts anew in each row and page; for long ones
  // it does better alone. Measured with q8_0 and q4_0 against bf16, on 8192 columns.
  template <DType D>
  static constexpr bool kPrefetches = facts(D).items_per_block > 1;

  // Of a chunk, one cache line each step.
  template <DType D>
  static void prefetch(const std::byte* ahead, int step) {
    if (64 * step < static_cast<int>(row_bytes<D>(kChunk<D>)))
      __builtin_prefetch(ahead + 64 * step);
  }

  // Up to kRows rows, in ascending order, and the rows that will be wanted next: a tile prefetches
  // those while it reads its own. Of two tokens against 16384 x 8192 q4_0 on AVX-512: 4.3 ms;
  // 8.5 ms where only tiles for one token prefetch; 7.2 ms one after the other.
  struct RowBlock {
    const std::byte* rows[kRows] = {};
    const std::byte* ahead[kRows] = {};
    int index[kRows] = {};
    int count = 0;

    void add(const std::byte* row, int r) {
      rows[count] = row;
      index[count++] = r;
    }
    void look_ahead(const RowBlock& next) {
      for (int i = 0; i < kRows; ++i) ahead[i] = i < next.count ? next.rows[i] : rows[i];
    }
  };

  // sums[r][t] = rows[r] . x[t] for R rows and T tokens.
  template <DType D, int R, int T>
  static void dot_tile(const std::byte* const* rows, const std::byte* const* ahead,
                       const float* const* x, int cols, float (*sums)[T]) {
    V sum[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sum[r][t] = V::zero();
    size_t offset = 0;
    int c = 0;
    for (; c + kChunk<D> <= cols; c += kChunk<D>, offset += row_bytes<D>(kChunk<D>)) {
      alignas(64) float scales[R][kScaleCount<D>];
      V::template read_scales<D, R>(rows, offset, scales);
      for_each_step<D>([&](int step) __attribute__((always_inline)) {
        const int first = c + step * kStep;
        Pair xs[T];
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) xs[t] = {V::load(x[t] + first), V::load(x[t] + first + 16)};
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          if constexpr (kPrefetches<D>) prefetch<D>(ahead[r] + offset, step);
          Pair w;
          V::template decode<D>(rows[r] + offset, step, scales[r], w.first, w.second);
#pragma GCC unroll 4
          for (int t = 0; t < T; ++t) sum[r][t] = fma_pair(w, xs[t], sum[r][t]);
        }
      });
    }
    if (kHasTail<D> && c < cols) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Pair w = decode_first<D>(rows[r] + offset, cols - c);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t)
          sum[r][t] = fma_pair(w, load_first(x[t] + c, cols - c), sum[r][t]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sums[r][t] = V::sum(sum[r][t]);
  }

  // Rows `first` and up of a block against T tokens: R at a time, the rest R / 2 at a time, and so
  // on.
  template <DType D, int R, int T>
  static void dot_rows(const RowBlock& block, int first, int cols, const float* const* x, float* y,
                       int y_stride) {
    for (; first + R <= block.count; first += R) {
      float sums[R][T];
      dot_tile<D, R, T>(block.rows + first, block.ahead + first, x, cols, sums);
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t)
          y[static_cast<size_t>(t) * y_stride + block.index[first + r]] = sums[r][t];
    }
    if constexpr (R > 1) {
      if (first < block.count) dot_rows<D, R / 2, T>(block, first, cols, x, y, y_stride);
    }
  }

  // A block against all tokens: T at a time, the rest T / 2 at a time, and so on.
  template <DType D, int T>
  static void dot_block(const RowBlock& block, int cols, const float* x, int x_stride,
                        int token_count, float* y, int y_stride) {
    constexpr int kFit = V::kAccumulators / T;
    for (; token_count >= T; token_count -= T) {
      const float* xs[T];
      for (int t = 0; t < T; ++t) xs[t] = x + static_cast<size_t>(t) * x_stride;
      dot_rows < D, kFit<kRows ? kFit : kRows, T>(block, 0, cols, xs, y, y_stride);
      x += static_cast<size_t>(T) * x_stride;
      y += static_cast<size_t>(T) * y_stride;
    }
    if constexpr (T > 1) {
      if (token_count > 0) dot_block<D, T / 2>(block, cols, x, x_stride, token_count, y, y_stride);
    }
  }

  template <DType D>
  static void matmul_of(const std::byte* w, int cols, int row_begin, int row_end, const float* x,
                        int x_stride, int token_count, float* y, int y_stride) {
    const size_t row_stride = row_bytes<D>(cols);
    for (int r = row_begin; r < row_end; r += kRows) {
      RowBlock block, next;
      for (int i = r; i < row_end && i < r + kRows; ++i) block.add(w + i * row_stride, i);
      for (int i = r + kRows; i < row_end && i < r + 2 * kRows; ++i)
        next.add(w + i * row_stride, i);
      block.look_ahead(next);
      dot_block<D, kTokens>(block, cols, x, x_stride, token_count, y, y_stride);
    }
  }

  // Calls visit(row) for the rows in [row_begin, row_end) whose bit is set, ascending.
  template <class Visit>
  static void for_each_row(const uint64_t* mask, int row_begin, int row_end, Visit visit) {
    for (int begin = row_begin / 64 * 64; begin < row_end; begin += 64) {
      uint64_t bits = mask[begin / 64];
      if (begin < row_begin) bits &= ~uint64_t{0} << (row_begin - begin);
      if (row_end - begin < 64) bits &= ~(~uint64_t{0} << (row_end - begin));
      for (; bits != 0; bits &= bits - 1) visit(begin + __builtin_ctzll(bits));
    }
  }

  // The same rows of a matrix, in blocks.
  template <class Visit>
  static void for_each_block(const uint64_t* mask, int row_begin, int row_end, const std::byte* w,
                             size_t row_stride, Visit visit) {
    RowBlock before, block;
    const auto pass_on = [&] {
      if (before.count > 0) {
        before.look_ahead(block);
        visit(before);
      }
      before = block;
      block.count = 0;
    };
    for_each_row(mask, row_begin, row_end, [&](int r) {
      block.add(w + r * row_stride, r);
      if (block.count == kRows) pass_on();
    });
    pass_on();
    pass_on();
  }

  // Splits a masked product into pieces that share what they can. One token is one piece. Several
  // tokens go 64 rows at a time, so that the rows stay in cache from token to token, and neighbours
  // that want the same rows go together.
  // Calls visit(row_begin, row_end, first token, number of tokens); row_begin ascends.
  template <class Visit>
  static void for_each_piece(const uint64_t* mask, int mask_stride, int token_count, int row_begin,
                             int row_end, Visit visit) {
    if (token_count == 1) return visit(row_begin, row_end, 0, 1);
    for (int begin = row_begin, end; begin < row_end; begin = end) {
      end = (begin / 64 + 1) * 64 < row_end ? (begin / 64 + 1) * 64 : row_end;
      const auto word = [&](int t) {
        return mask[static_cast<size_t>(t) * mask_stride + begin / 64];
      };
      for (int t = 0, together; t < token_count; t += together) {
        together = 1;
        while (together < kTokens && t + together < token_count && word(t + together) == word(t))
          ++together;
        visit(begin, end, t, together);
      }
    }
  }

  template <DType D>
  static void matmul_masked_of(const std::byte* w, int cols, int row_begin, int row_end,
                               const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                               int token_count, float* y, int y_stride) {
    for_each_piece(mask, mask_stride, token_count, row_begin, row_end,
                   [&](int begin, int end, size_t t, int together) {
                     for_each_block(mask + t * mask_stride, begin, end, w, row_bytes<D>(cols),
                                    [&](const RowBlock& block) {
                                      dot_block<D, kTokens>(block, cols, x + t * x_stride, x_stride,
                                                            together, y + t * y_stride, y_stride);
                                    });
                   });
  }

  // y[t][c] += a[r][t] * rows[r][c], r ascending, for R rows, T tokens and `cols` columns.
  template <DType D, int R, int T>
  static void sum_tile(const std::byte* const* rows, const std::byte* const* ahead,
                       const float (*a)[T], int cols, float* const* y) {
    V factor[R][T];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) factor[r][t] = V::broadcast(a[r][t]);
    size_t offset = 0;
    int c = 0;
    for (; c + kChunk<D> <= cols; c += kChunk<D>, offset += row_bytes<D>(kChunk<D>)) {
      alignas(64) float scales[R][kScaleCount<D>];
      V::template read_scales<D, R>(rows, offset, scales);
      for_each_step<D>([&](int step) __attribute__((always_inline)) {
        const int first = c + step * kStep;
        Pair sum[T];
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) sum[t] = {V::load(y[t] + first), V::load(y[t] + first + 16)};
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          if constexpr (kPrefetches<D>) prefetch<D>(ahead[r] + offset, step);
          Pair w;
          V::template decode<D>(rows[r] + offset, step, scales[r], w.first, w.second);
#pragma GCC unroll 4
          for (int t = 0; t < T; ++t) {
            sum[t].first = V::fma(factor[r][t], w.first, sum[t].first);
            sum[t].second = V::fma(factor[r][t], w.second, sum[t].second);
          }
        }
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          V::store(y[t] + first, sum[t].first);
          V::store(y[t] + first + 16, sum[t].second);
        }
      });
    }
    if constexpr (kHasTail<D>) {
      for (int r = 0; c < cols && r < R; ++r) {
        const Pair w = decode_first<D>(rows[r] + offset, cols - c);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) add_first(w, factor[r][t], cols - c, y[t] + c);
      }
    }
  }

  static void add_first(const Pair& w, V factor, int count, float* y) {
    const Pair before = load_first(y, count);
    float after[kStep];
    V::store(after, V::fma(factor, w.first, before.first));
    V::store(after + 16, V::fma(factor, w.second, before.second));
    std::memcpy(y, after, count * sizeof(float));
  }

  // Rows `first` and up of a block for T tokens: R at a time, the rest R / 2 at a time, and so on.
  template <DType D, int R, int T>
  static void sum_rows(const RowBlock& block, int first, int cols, const float* a, int a_stride,
                       float* const* y) {
    for (; first + R <= block.count; first += R) {
      float factors[R][T];
      for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t)
          factors[r][t] = a[static_cast<size_t>(t) * a_stride + block.index[first + r]];
      sum_tile<D, R, T>(block.rows + first, block.ahead + first, factors, cols, y);
    }
    if constexpr (R > 1) {
      if (first < block.count) sum_rows<D, R / 2, T>(block, first, cols, a, a_stride, y);
    }
  }

  // A block for all tokens: T at a time, the rest T / 2 at a time, and so on.
  template <DType D, int T>
  static void sum_block(const RowBlock& block, int cols, const float* a, int a_stride,
                        int token_count, float* y, int y_stride) {
    for (; token_count >= T; token_count -= T) {
      float* ys[T];
      for (int t = 0; t < T; ++t) ys[t] = y + static_cast<size_t>(t) * y_stride;
      sum_rows<D, kRows, T>(block, 0, cols, a, a_stride, ys);
      a += static_cast<size_t>(T) * a_stride;
      y += static_cast<size_t>(T) * y_stride;
    }
    if constexpr (T > 1) {
      if (token_count > 0) sum_block<D, T / 2>(block, cols, a, a_stride, token_count, y, y_stride);
    }
  }

  template <DType D>
  static void weighted_rows_of(const std::byte* w, int rows, int cols, int col_begin, int col_end,
                               const uint64_t* mask, int mask_stride, const float* a, int a_stride,
                               int token_count, float* y, int y_stride) {
    constexpr int kSumTokens = V::kAccumulators / 4;  // a sum takes more registers than a dot
    const std::byte* first = w + row_bytes<D>(col_begin);
    const int width = col_end - col_begin;
    y += col_begin;
    for_each_piece(
        mask, mask_stride, token_count, 0, rows, [&](int begin, int end, size_t t, int together) {
          for_each_block(mask + t * mask_stride, begin, end, first, row_bytes<D>(cols),
                         [&](const RowBlock& block) {
                           sum_block<D, kSumTokens>(block, width, a + t * a_stride, a_stride,
                                                    together, y + t * y_stride, y_stride);
                         });
        });
  }

  // e^x for x <= 0 (below -87 as if -87: a weight of 2e-38): x = n ln2 + r with |r| <= ln2 / 2, and
  // e^r by its Taylor series to r^7, whose remainder is below 6e-9. NaN stays NaN.
  static V exp(V x) {
    const V kRound = V::broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    x = V::max(V::broadcast(-87.0f), x);
    const V n = V::sub(V::fma(x, V::broadcast(1.44269504f), kRound), kRound);
    V r = V::fma(n, V::broadcast(-0.693359375f), x);  // ln2 in two parts, the first exact
    r = V::fma(n, V::broadcast(2.12194440e-4f), r);
    V sum = V::broadcast(1.0f / 5040);
    constexpr float kFactors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    for (const float factor : kFactors) sum = V::fma(sum, r, V::broadcast(factor));
    return V::mul(sum, V::shifted_to_exponent(V::add(n, V::broadcast(12582912.0f + 127))));
  }

  // scores[p] = e^(scores[p] - largest); returns their sum.
  static float softmax_numerators(float* scores, int count) {
    float largest = -kInfinity;
    for (int p = 0; p < count; ++p) largest = scores[p] > largest ? scores[p] : largest;
    V total = V::zero();
    for (int p = 0; p < count; p += 16) {
      const int width = count - p < 16 ? count - p : 16;
      float padded[16];
      for (int i = 0; i < 16; ++i) padded[i] = i < width ? scores[p + i] : largest;
      V::store(padded, exp(V::sub(V::load(padded), V::broadcast(largest))));
      for (int i = width; i < 16; ++i) padded[i] = 0;
      total = V::add(total, V::load(padded));
      std::memcpy(scores + p, padded, width * sizeof(float));
    }
    return V::sum(total);
  }

  static void attend(const float* q, const float* keys, const float* values, int position_count,
                     int kv_stride, int head_dim, float* scores, float* out) {
    const auto block_at = [=](const float* base, int p) {
      RowBlock block;
      for (; block.count < kRows && p < position_count; ++p)
        block.add(reinterpret_cast<const std::byte*>(base + static_cast<size_t>(p) * kv_stride), p);
      return block;
    };
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
    for (int p = 0; p < position_count; p += kRows) {
      RowBlock block = block_at(keys, p);
      block.look_ahead(block_at(keys, p + kRows));
      dot_block<DType::f32, 1>(block, head_dim, q, 0, 1, scores, 0);
    }
    for (int p = 0; p < position_count; ++p) scores[p] *= scale;
    const float total = softmax_numerators(scores, position_count);
    for (int i = 0; i < head_dim; ++i) out[i] = 0;
    for (int p = 0; p < position_count; p += kRows) {
      RowBlock block = block_at(values, p);
      block.look_ahead(block_at(values, p + kRows));
      sum_block<DType::f32, 1>(block, head_dim, scores, 0, 1, out, 0);
    }
    for (int i = 0; i < head_dim; ++i) out[i] /= total;
  }

  // Four streams, each in two vectors a time: what the hardware prefetches best.
  static float largest(const float* x, uint64_t count) {
    constexpr int kStreams = 4;
    const uint64_t share = count / kStreams;
    V found[kStreams][2];
    for (int s = 0; s < kStreams; ++s) found[s][0] = found[s][1] = V::broadcast(-kInfinity);
    for (uint64_t i = 0; i < share; i += kStep)
      for (int s = 0; s < kStreams; ++s)
        for (int half = 0; half < 2; ++half)
          found[s][half] = V::max(V::load(x + s * share + i + 16 * half), found[s][half]);
    float all[16], result = -kInfinity;
    for (int s = 0; s < kStreams; ++s)
      for (int half = 0; half < 2; ++half) {
        V::store(all, found[s][half]);
        for (const float value : all) result = value > result ? value : result;
      }
    return result;
  }

  // One entry per element type, in the order of DType.
  static void matmul(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                     const float* x, int x_stride, int token_count, float* y, int y_stride) {
    static constexpr decltype(&matmul_of<DType::f32>) kOf[] = {
        matmul_of<DType::f32>,  matmul_of<DType::f16>,  matmul_of<DType::bf16>,
        matmul_of<DType::q8_0>, matmul_of<DType::q4_0>, matmul_of<DType::q4_1>,
        matmul_of<DType::q5_0>, matmul_of<DType::q5_1>, matmul_of<DType::q4_k>,
        matmul_of<DType::q5_k>, matmul_of<DType::q6_k>};
    static_assert(sizeof kOf / sizeof kOf[0] == kDTypeCount);
    kOf[static_cast<int>(dtype)](w, cols, row_begin, row_end, x, x_stride, token_count, y,
                                 y_stride);
  }

  static void matmul_masked(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                            const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                            int token_count, float* y, int y_stride) {
    static constexpr decltype(&matmul_masked_of<DType::f32>) kOf[] = {
        matmul_masked_of<DType::f32>,  matmul_masked_of<DType::f16>,  matmul_masked_of<DType::bf16>,
        matmul_masked_of<DType::q8_0>, matmul_masked_of<DType::q4_0>, matmul_masked_of<DType::q4_1>,
        matmul_masked_of<DType::q5_0>, matmul_masked_of<DType::q5_1>, matmul_masked_of<DType::q4_k>,
        matmul_masked_of<DType::q5_k>, matmul_masked_of<DType::q6_k>};
    static_assert(sizeof kOf / sizeof kOf[0] == kDTypeCount);
    kOf[static_cast<int>(dtype)](w, cols, row_begin, row_end, mask, mask_stride, x, x_stride,
                                 token_count, y, y_stride);
  }

  static void weighted_rows(DType dtype, const std::byte* w, int rows, int cols, int col_begin,
                            int col_end, const uint64_t* mask, int mask_stride, const float* a,
                            int a_stride, int token_count, float* y, int y_stride) {
    static constexpr decltype(&weighted_rows_of<DType::f32>) kOf[] = {
        weighted_rows_of<DType::f32>,  weighted_rows_of<DType::f16>,  weighted_rows_of<DType::bf16>,
        weighted_rows_of<DType::q8_0>, weighted_rows_of<DType::q4_0>, weighted_rows_of<DType::q4_1>,
        weighted_rows_of<DType::q5_0>, weighted_rows_of<DType::q5_1>, weighted_rows_of<DType::q4_k>,
        weighted_rows_of<DType::q5_k>, weighted_rows_of<DType::q6_k>};
    static_assert(sizeof kOf / sizeof kOf[0] == kDTypeCount);
    kOf[static_cast<int>(dtype)](w, rows, cols, col_begin, col_end, mask, mask_stride, a, a_stride,
                                 token_count, y, y_stride);
  }

  static constexpr Kernels kernels(const char* name) {
    return {name, matmul, matmul_masked, weighted_rows, rms_norm, rope, attend, largest};
  }
};

}  // namespace thermocline
