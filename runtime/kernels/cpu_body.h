// The algorithms of the CPU kernels, written once over a 16-lane f32 vector type V.
//
// Goals: every instruction set runs the same arithmetic in the same order, so that results are the
//   same bits on every machine: element c of a row always goes through lane c % 16, in ascending
//   order, by one fused multiply-add; quantised weights are decoded to f32 exactly (an 11-bit scale
//   times at most 8 bits fits in 24) and are never rounded. How many rows and tokens share a tile
//   changes only what is reused from registers, never a result.
// Non-goals: choosing the instruction set (kernels.cc), threads.
// V has: kAccumulators (how many sums its registers hold) and the operations used below. It lives
//   in an anonymous namespace of the one file that includes this header, which gives everything
//   here internal linkage. Inline functions from elsewhere are not called: the linker keeps one
//   copy of those, and code for a newer machine must not leak into the others.
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cstring>
#include <limits>

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

  struct Pair {
    V first, second;  // columns 0..15 and 16..31 of a step
  };

  // The first `count` < 32 columns of a step, the others zero. Only types with blocks of one
  // element get here.
  template <DType D>
  static Pair decode_first(const std::byte* from, int count) {
    std::byte padded[row_bytes<D>(kStep)] = {};
    std::memcpy(padded, from, row_bytes<D>(count));
    Pair w;
    V::template decode<D>(padded, w.first, w.second);
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

  // sums[r][t] = rows[r] . x[t] for R rows and T tokens.
  template <DType D, int R, int T>
  static void dot_tile(const std::byte* const* rows, const float* const* x, int cols,
                       float (*sums)[T]) {
    V sum[R][T];
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) sum[r][t] = V::zero();
    size_t offset = 0;
    int c = 0;
    for (; c + kStep <= cols; c += kStep, offset += row_bytes<D>(kStep)) {
      Pair xs[T];
      for (int t = 0; t < T; ++t) xs[t] = {V::load(x[t] + c), V::load(x[t] + c + 16)};
      for (int r = 0; r < R; ++r) {
        Pair w;
        V::template decode<D>(rows[r] + offset, w.first, w.second);
        for (int t = 0; t < T; ++t) sum[r][t] = fma_pair(w, xs[t], sum[r][t]);
      }
    }
    if (c < cols) {
      for (int r = 0; r < R; ++r) {
        const Pair w = decode_first<D>(rows[r] + offset, cols - c);
        for (int t = 0; t < T; ++t)
          sum[r][t] = fma_pair(w, load_first(x[t] + c, cols - c), sum[r][t]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) sums[r][t] = V::sum(sum[r][t]);
  }

  // A block of up to kRows rows against T tokens, in tiles that fit the registers. Missing rows
  // are stood in for by the last one.
  struct RowBlock {
    const std::byte* rows[kRows];
    int index[kRows];
    int count = 0;

    void add(const std::byte* row, int r) {
      rows[count] = row;
      index[count++] = r;
    }
    void pad() {
      for (int i = count; i < kRows; ++i) rows[i] = rows[count - 1];
    }
  };

  template <DType D, int T>
  static void block_times_tokens(const RowBlock& block, int cols, const float* x, int x_stride,
                                 float* y, int y_stride) {
    constexpr int kFit = V::kAccumulators / T;
    constexpr int R = kFit > kRows ? kRows : kFit;
    const float* xs[T];
    for (int t = 0; t < T; ++t) xs[t] = x + static_cast<size_t>(t) * x_stride;
    for (int first = 0; first < block.count; first += R) {
      float sums[R][T];
      dot_tile<D, R, T>(block.rows + first, xs, cols, sums);
      for (int r = 0; r < R && first + r < block.count; ++r)
        for (int t = 0; t < T; ++t)
          y[static_cast<size_t>(t) * y_stride + block.index[first + r]] = sums[r][t];
    }
  }

  // All tokens of a block: groups of T, the rest in groups of T/2, and so on.
  template <DType D, int T>
  static void block_times_all(const RowBlock& block, int cols, const float* x, int x_stride,
                              int token_count, float* y, int y_stride) {
    int t = 0;
    for (; t + T <= token_count; t += T)
      block_times_tokens<D, T>(block, cols, x + static_cast<size_t>(t) * x_stride, x_stride,
                               y + static_cast<size_t>(t) * y_stride, y_stride);
    if constexpr (T > 1) {
      if (t < token_count)
        block_times_all<D, T / 2>(block, cols, x + static_cast<size_t>(t) * x_stride, x_stride,
                                  token_count - t, y + static_cast<size_t>(t) * y_stride, y_stride);
    }
  }

  template <DType D>
  static void matmul_of(const std::byte* w, int cols, int row_begin, int row_end, const float* x,
                        int x_stride, int token_count, float* y, int y_stride) {
    for (int r = row_begin; r < row_end; r += kRows) {
      RowBlock block;
      for (int i = r; i < row_end && i < r + kRows; ++i) block.add(w + i * row_bytes<D>(cols), i);
      block.pad();
      block_times_all<D, kTokens>(block, cols, x, x_stride, token_count, y, y_stride);
    }
  }

  // Word `word` of a mask without the rows outside [row_begin, row_end).
  static uint64_t clipped_word(const uint64_t* mask, int word, int row_begin, int row_end) {
    uint64_t bits = mask[word];
    const int first = row_begin - word * 64, end = row_end - word * 64;
    if (first > 0) bits &= ~uint64_t{0} << first;
    if (end < 64) bits &= ~(~uint64_t{0} << end);
    return bits;
  }

  // Calls visit(row) for the rows in [row_begin, row_end) that any of the tokens has set,
  // ascending.
  template <class Visit>
  static void for_each_row(const uint64_t* mask, int mask_stride, int token_count, int row_begin,
                           int row_end, Visit visit) {
    if (row_begin >= row_end) return;
    for (int word = row_begin / 64; word <= (row_end - 1) / 64; ++word) {
      uint64_t bits = 0;
      for (int t = 0; t < token_count; ++t)
        bits |= clipped_word(mask + static_cast<size_t>(t) * mask_stride, word, row_begin, row_end);
      for (; bits != 0; bits &= bits - 1) visit(word * 64 + __builtin_ctzll(bits));
    }
  }

  static bool is_set(const uint64_t* mask, int row) { return mask[row / 64] >> (row % 64) & 1; }

  // One row against the tokens that want it.
  template <DType D, int T>
  static void row_times_tokens(const std::byte* row, int cols, const float* const* x,
                               float* const* y, int token_count) {
    int t = 0;
    for (; t + T <= token_count; t += T) {
      float sums[1][T];
      dot_tile<D, 1, T>(&row, x + t, cols, sums);
      for (int i = 0; i < T; ++i) *y[t + i] = sums[0][i];
    }
    if constexpr (T > 1) {
      if (t < token_count) row_times_tokens<D, T / 2>(row, cols, x + t, y + t, token_count - t);
    }
  }

  template <DType D>
  static void matmul_masked_one(const std::byte* w, int cols, int row_begin, int row_end,
                                const uint64_t* mask, const float* x, float* y) {
    RowBlock block;
    const auto finish = [&] {
      block.pad();
      block_times_tokens<D, 1>(block, cols, x, 0, y, 0);
      block.count = 0;
    };
    for_each_row(mask, 0, 1, row_begin, row_end, [&](int r) {
      block.add(w + r * row_bytes<D>(cols), r);
      if (block.count == kRows) finish();
    });
    if (block.count > 0) finish();
  }

  template <DType D>
  static void matmul_masked_of(const std::byte* w, int cols, int row_begin, int row_end,
                               const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                               int token_count, float* y, int y_stride) {
    if (token_count == 1) return matmul_masked_one<D>(w, cols, row_begin, row_end, mask, x, y);
    for_each_row(mask, mask_stride, token_count, row_begin, row_end, [&](int r) {
      const float* xs[kTokens];
      float* ys[kTokens];
      int count = 0;
      for (int t = 0; t < token_count; ++t) {
        if (!is_set(mask + static_cast<size_t>(t) * mask_stride, r)) continue;
        xs[count] = x + static_cast<size_t>(t) * x_stride;
        ys[count++] = y + static_cast<size_t>(t) * y_stride + r;
        if (count < kTokens) continue;
        row_times_tokens<D, kTokens>(w + r * row_bytes<D>(cols), cols, xs, ys, count);
        count = 0;
      }
      row_times_tokens<D, kTokens / 2>(w + r * row_bytes<D>(cols), cols, xs, ys, count);
    });
  }

  // y[t][c] += a[r][t] * rows[r][c], r ascending, for R rows, T tokens and `cols` columns.
  template <DType D, int R, int T>
  static void sum_tile(const std::byte* const* rows, const float (*a)[T], int cols,
                       float* const* y) {
    V factor[R][T];
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) factor[r][t] = V::broadcast(a[r][t]);
    size_t offset = 0;
    int c = 0;
    for (; c + kStep <= cols; c += kStep, offset += row_bytes<D>(kStep)) {
      Pair w[R];
      for (int r = 0; r < R; ++r) V::template decode<D>(rows[r] + offset, w[r].first, w[r].second);
      for (int t = 0; t < T; ++t) {
        V first = V::load(y[t] + c), second = V::load(y[t] + c + 16);
        for (int r = 0; r < R; ++r) {
          first = V::fma(factor[r][t], w[r].first, first);
          second = V::fma(factor[r][t], w[r].second, second);
        }
        V::store(y[t] + c, first);
        V::store(y[t] + c + 16, second);
      }
    }
    for (int r = 0; c < cols && r < R; ++r) {
      const Pair w = decode_first<D>(rows[r] + offset, cols - c);
      for (int t = 0; t < T; ++t) add_first(w, factor[r][t], cols - c, y[t] + c);
    }
  }

  static void add_first(const Pair& w, V factor, int count, float* y) {
    const Pair before = load_first(y, count);
    float after[kStep];
    V::store(after, V::fma(factor, w.first, before.first));
    V::store(after + 16, V::fma(factor, w.second, before.second));
    std::memcpy(y, after, count * sizeof(float));
  }

  // `count` rows for one token: R at a time, then fewer, always ascending.
  template <DType D, int R>
  static void add_rows(const std::byte* const* rows, const float* a, int count, int cols,
                       float* y) {
    int r = 0;
    for (; r + R <= count; r += R) {
      float factors[R][1];
      for (int i = 0; i < R; ++i) factors[i][0] = a[r + i];
      sum_tile<D, R, 1>(rows + r, factors, cols, &y);
    }
    if constexpr (R > 1) {
      if (r < count) add_rows<D, R / 2>(rows + r, a + r, count - r, cols, y);
    }
  }

  // One row for the tokens that want it.
  template <DType D, int T>
  static void add_row(const std::byte* row, const float* a, int token_count, int cols,
                      float* const* y) {
    int t = 0;
    for (; t + T <= token_count; t += T) {
      float factors[1][T];
      for (int i = 0; i < T; ++i) factors[0][i] = a[t + i];
      sum_tile<D, 1, T>(&row, factors, cols, y + t);
    }
    if constexpr (T > 1) {
      if (t < token_count) add_row<D, T / 2>(row, a + t, token_count - t, cols, y + t);
    }
  }

  template <DType D>
  static void weighted_rows_one(const std::byte* w, int rows, size_t row_stride, int cols,
                                const uint64_t* mask, const float* a, float* y) {
    const std::byte* batch[kRows];
    float factors[kRows];
    int count = 0;
    for_each_row(mask, 0, 1, 0, rows, [&](int r) {
      batch[count] = w + r * row_stride;
      factors[count++] = a[r];
      if (count < kRows) return;
      add_rows<D, kRows>(batch, factors, count, cols, y);
      count = 0;
    });
    add_rows<D, kRows / 2>(batch, factors, count, cols, y);
  }

  template <DType D>
  static void weighted_rows_of(const std::byte* w, int rows, int cols, int col_begin, int col_end,
                               const uint64_t* mask, int mask_stride, const float* a, int a_stride,
                               int token_count, float* y, int y_stride) {
    const size_t row_stride = row_bytes<D>(cols);
    const std::byte* first = w + row_bytes<D>(col_begin);
    const int width = col_end - col_begin;
    if (token_count == 1)
      return weighted_rows_one<D>(first, rows, row_stride, width, mask, a, y + col_begin);
    for_each_row(mask, mask_stride, token_count, 0, rows, [&](int r) {
      float factors[kTokens];
      float* ys[kTokens];
      int count = 0;
      for (int t = 0; t < token_count; ++t) {
        if (!is_set(mask + static_cast<size_t>(t) * mask_stride, r)) continue;
        factors[count] = a[static_cast<size_t>(t) * a_stride + r];
        ys[count++] = y + static_cast<size_t>(t) * y_stride + col_begin;
        if (count < kTokens) continue;
        add_row<D, kTokens>(first + r * row_stride, factors, count, width, ys);
        count = 0;
      }
      add_row<D, kTokens / 2>(first + r * row_stride, factors, count, width, ys);
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
    const auto row = [kv_stride](const float* base, int p) {
      return reinterpret_cast<const std::byte*>(base + static_cast<size_t>(p) * kv_stride);
    };
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
    for (int p = 0; p < position_count; p += kRows) {
      RowBlock block;
      for (int i = p; i < position_count && i < p + kRows; ++i) block.add(row(keys, i), i);
      block.pad();
      block_times_tokens<DType::f32, 1>(block, head_dim, q, 0, scores, 0);
    }
    for (int p = 0; p < position_count; ++p) scores[p] *= scale;
    const float total = softmax_numerators(scores, position_count);
    for (int i = 0; i < head_dim; ++i) out[i] = 0;
    for (int p = 0; p < position_count; p += kRows) {
      const std::byte* rows[kRows];
      const int count = position_count - p < kRows ? position_count - p : kRows;
      for (int i = 0; i < count; ++i) rows[i] = row(values, p + i);
      add_rows<DType::f32, kRows>(rows, scores + p, count, head_dim, out);
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
    static constexpr decltype(&matmul_of<DType::f32>) kOf[kDTypeCount] = {
        matmul_of<DType::f32>, matmul_of<DType::f16>, matmul_of<DType::bf16>,
        matmul_of<DType::q8_0>, matmul_of<DType::q4_0>};
    kOf[static_cast<int>(dtype)](w, cols, row_begin, row_end, x, x_stride, token_count, y,
                                 y_stride);
  }

  static void matmul_masked(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                            const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                            int token_count, float* y, int y_stride) {
    static constexpr decltype(&matmul_masked_of<DType::f32>) kOf[kDTypeCount] = {
        matmul_masked_of<DType::f32>, matmul_masked_of<DType::f16>, matmul_masked_of<DType::bf16>,
        matmul_masked_of<DType::q8_0>, matmul_masked_of<DType::q4_0>};
    kOf[static_cast<int>(dtype)](w, cols, row_begin, row_end, mask, mask_stride, x, x_stride,
                                 token_count, y, y_stride);
  }

  static void weighted_rows(DType dtype, const std::byte* w, int rows, int cols, int col_begin,
                            int col_end, const uint64_t* mask, int mask_stride, const float* a,
                            int a_stride, int token_count, float* y, int y_stride) {
    static constexpr decltype(&weighted_rows_of<DType::f32>) kOf[kDTypeCount] = {
        weighted_rows_of<DType::f32>, weighted_rows_of<DType::f16>, weighted_rows_of<DType::bf16>,
        weighted_rows_of<DType::q8_0>, weighted_rows_of<DType::q4_0>};
    kOf[static_cast<int>(dtype)](w, rows, cols, col_begin, col_end, mask, mask_stride, a, a_stride,
                                 token_count, y, y_stride);
  }

  static constexpr Kernels kernels(const char* name) {
    return {name, matmul, matmul_masked, weighted_rows, rms_norm, rope, attend, largest};
  }
};

}  // namespace thermocline
