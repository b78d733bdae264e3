// The arithmetic of a decoder on CPU: pointers and ints, nothing else.
//
// Contract of every function: the caller owns all memory and sizes it as the comment says; no
//   allocation, no errors, no threads. A caller splits work over threads by rows (or, for
//   weighted_rows, by columns): results do not depend on the split.
// Bit-identity: a result is the same bits for every token_count, split and instruction set, so
//   prefill in chunks equals decode token by token.
// Weights are decoded exactly. Their rows lie as cpu_layout.h says. Types without blocks meet f32
//   inputs; quantised ones meet them in fixed point, 16 bits: inputs of a product with a scale for
//   each 32 columns (to_fixed), factors of a weighted sum with one for each 32 columns of 16 rows.
//   That is 256 times finer than the 8 bits that other engines round their inputs to.
// The set of functions for this machine's instruction set is chosen once, by cpu_kernels().
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/kernels/cpu_layout.h"
#include "runtime/kernels/weight_view.h"

namespace thermocline {

// Whether products with such weights read Inputs::fixed, and not Inputs::values.
constexpr bool takes_fixed(DType dtype) { return facts(dtype).items_per_block > 1; }

// Columns of a row of inputs in fixed point (FixedRow in cpu_fixed.h), and its bytes, a multiple
// of 64.
[[gnu::always_inline]] constexpr int padded_columns(int cols) {
  return (cols + kChunk - 1) / kChunk * kChunk;
}
[[gnu::always_inline]] constexpr size_t fixed_bytes(int cols) {
  return static_cast<size_t>(padded_columns(cols)) * 21 / 4;
}

// Heads that attend takes in one pass over keys and values, and the floats of scratch that it
// wants: queries and scores of so many heads, in fours, and what lets them begin at a cache line.
inline constexpr int kAttendedHeads = 8;
constexpr size_t attend_scratch(int head_count, int position_count, int head_dim) {
  const auto in_fours = [](int count) { return (static_cast<size_t>(count) + 3) / 4 * 4; };
  return in_fours(head_count < kAttendedHeads ? head_count : kAttendedHeads) *
             (in_fours(head_dim) + in_fours(position_count)) +
         15;
}

// The inputs of a product; what its weights' type does not take may be null.
struct Inputs {
  const float* values = nullptr;     // (token_count, stride)
  int stride = 0;                    // floats
  const std::byte* fixed = nullptr;  // (token_count, fixed_bytes(cols)), 64-byte aligned at best
};

struct Kernels {
  const char* name;  // "avx512-zen5" | "avx512" | "avx2" | "portable"

  // A row x (cols) in fixed point: code = round(x / scale), scale = max |x| / 32639 of each block
  // of 32 columns. A block with a NaN or an infinity has a scale of NaN, which reaches every result
  // that it is part of. Blocks below 1e-30 become zeros; above 1e36, sums may overflow. cols is a
  // multiple of 32; `fixed` has fixed_bytes(cols), a multiple of 4 bytes from a float's alignment.
  void (*to_fixed)(const float* x, int cols, std::byte* fixed);

  // y[t*y_stride + r] = sum_c w[r][c] * x[t][c]               for r in [row_begin, row_end)
  void (*matmul)(const WeightView& w, int row_begin, int row_end, const Inputs& x, int token_count,
                 float* y, int y_stride);

  // As matmul, but y[t][r] is computed only where bit r of mask row t is set (left untouched
  // elsewhere). mask: (token_count, mask_stride) words, little bit order.
  void (*matmul_masked)(const WeightView& w, int row_begin, int row_end, const uint64_t* mask,
                        int mask_stride, const Inputs& x, int token_count, float* y, int y_stride);

  // y[t*y_stride + c] += sum_r a[t*a_stride + r] * w[r][c]    over rows r whose mask bit is set, in
  // ascending order, for c in [col_begin, col_end); col_begin is a multiple of kChunk, and so is
  // col_end unless it is w.cols. Of quantised weights 16 such rows at a time, whose a times scale
  // is rounded to 1 / 65278 of the largest of them in each block of 32 columns; a block with a NaN
  // or an infinity gives NaN.
  void (*weighted_rows)(const WeightView& w, int col_begin, int col_end, const uint64_t* mask,
                        int mask_stride, const float* a, int a_stride, int token_count, float* y,
                        int y_stride);

  // y[c] = w[row][c], exactly; a minimum is added with one rounding.
  void (*decode_row)(const WeightView& w, int row, float* y);

  // y[i] = x[i] * weight[i] / sqrt(mean(x^2) + epsilon)        (Zhang & Sennrich 2019)
  void (*rms_norm)(const float* x, const float* weight, int dim, float epsilon, float* y);

  // Rotates pairs (2i, 2i+1) of each head in place by position * frequencies[i] radians.
  // x: (head_count, head_dim); frequencies: (head_dim / 2)     (Su et al. 2021, interleaved form)
  void (*rope)(float* x, int head_count, int head_dim, int position, const double* frequencies);

  // The query heads of a group over the keys and values that they share, each as if it were alone:
  // out = softmax(q k^T / sqrt(head_dim)) v.
  // q, out: (head_count, head_dim), apart; keys, values: (position_count, kv_stride) f32;
  // scratch: attend_scratch() floats.
  void (*attend)(const float* q, int head_count, const float* keys, const float* values,
                 int position_count, int kv_stride, int head_dim, float* scratch, float* out);

  // The largest of `count` values, a multiple of 128; NaNs are skipped. It does little but read:
  // read_bandwidth (runtime/kernels/bandwidth.h) times it.
  float (*largest)(const float* x, uint64_t count);

  // Multiplies and adds `rounds` times what fits the registers, and returns how many
  // multiplications that were: what compute_peak (runtime/kernels/bandwidth.h) times.
  uint64_t (*multiply_only)(uint64_t rounds);
};

// The set called `name`; null if there is none or this machine cannot run it.
const Kernels* kernels_by_name(const char* name);

// The set that TC_KERNELS=portable|avx2|avx512|avx512-zen5 asks for, chosen once; without it, or
// where kernels_by_name has no such set, the fastest that this machine can run.
const Kernels& cpu_kernels();

}  // namespace thermocline
