// The arithmetic of a decoder on CPU: pointers and ints, nothing else.
//
// Contract of every function: the caller owns all memory and sizes it as the comment says; no
//   allocation, no errors, no threads. A caller splits work over threads by rows (or, for
//   weighted_rows, by columns): results do not depend on the split.
// Bit-identity: y[t][r] of matmul is the same for every token_count and every row split, so
//   prefill in chunks equals decode token by token.
// Weights: row-major (rows, cols) in `dtype`, cols a multiple of the type's block; a row begins at
//   multiple of bytes_of(dtype, cols). x and y are f32.
// The set of functions for this machine's instruction set is chosen once, by cpu_kernels().
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/dtype.h"

namespace thermocline {

struct Kernels {
  const char* name;  // "avx512" | "avx2" | "portable"

  // y[t*y_stride + r] = sum_c w[r][c] * x[t*x_stride + c]     for r in [row_begin, row_end)
  void (*matmul)(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                 const float* x, int x_stride, int token_count, float* y, int y_stride);

  // As matmul, but y[t][r] is computed only where bit r of mask row t is set (left untouched
  // elsewhere). mask: (token_count, mask_stride) words, little bit order.
  void (*matmul_masked)(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                        const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                        int token_count, float* y, int y_stride);

  // y[t*y_stride + c] += sum_r a[t*a_stride + r] * w[r][c]    over rows r whose mask bit is set, in
  // ascending order, for c in [col_begin, col_end), multiples of the type's block.
  void (*weighted_rows)(DType dtype, const std::byte* w, int rows, int cols, int col_begin,
                        int col_end, const uint64_t* mask, int mask_stride, const float* a,
                        int a_stride, int token_count, float* y, int y_stride);

  // y[i] = x[i] * weight[i] / sqrt(mean(x^2) + epsilon)        (Zhang & Sennrich 2019)
  void (*rms_norm)(const float* x, const float* weight, int dim, float epsilon, float* y);

  // Rotates pairs (2i, 2i+1) of each head in place by position * frequencies[i] radians.
  // x: (head_count, head_dim); frequencies: (head_dim / 2)     (Su et al. 2021, interleaved form)
  void (*rope)(float* x, int head_count, int head_dim, int position, const double* frequencies);

  // One query head over its keys and values: out = softmax(q k^T / sqrt(head_dim)) v.
  // keys, values: (position_count, kv_stride) f32; scores: scratch (position_count).
  void (*attend)(const float* q, const float* keys, const float* values, int position_count,
                 int kv_stride, int head_dim, float* scores, float* out);

  // The largest of `count` values, a multiple of 128; NaNs are skipped. It does little but read:
  // read_bandwidth (runtime/kernels/bandwidth.h) times it.
  float (*largest)(const float* x, uint64_t count);
};

// The set called `name`; null if there is none or this machine cannot run it.
const Kernels* kernels_by_name(const char* name);

// The set that TC_KERNELS=portable|avx2|avx512 asks for, chosen once; without it, or where
// kernels_by_name has no such set, the fastest that this machine can run.
const Kernels& cpu_kernels();

}  // namespace thermocline
