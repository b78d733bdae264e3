// The CPU kernels of one instruction set, written once over a 16-lane f32 vector type V.
//
// Goals: every instruction set runs the same arithmetic in the same order, so that results are the
//   same bits on every machine. cpu_dot.h, cpu_sum.h and cpu_attention.h hold the algorithms; this
//   is their table.
// Non-goals: choosing the instruction set (kernels.cc), threads.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_attention.h"
#include "runtime/kernels/cpu_decode.h"
#include "runtime/kernels/cpu_dot.h"
#include "runtime/kernels/cpu_sum.h"
#include "runtime/kernels/elementwise.h"

namespace thermocline {
namespace {

template <class V>
struct CpuKernels {
  // Four streams, each in two vectors a time: what the hardware prefetches best.
  static float largest(const float* x, uint64_t count) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
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

  static uint64_t multiply_only(uint64_t rounds) {
    constexpr int kSums = V::kAccumulators >= 16 ? 12 : 6;
    V sum[kSums];
    for (V& one : sum) one = V::zero();
    const V factor = V::broadcast(0.999f), term = V::broadcast(0.001f);
    for (uint64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
      for (int k = 0; k < kSums; ++k) sum[k] = V::fma(sum[k], factor, term);
    V total = V::zero();
    for (const V& one : sum) total = V::add(total, one);
    volatile float sink = V::sum(total);  // keeps it all from being optimised away
    static_cast<void>(sink);
    return rounds * kSums * 16;
  }

  // One entry per element type, in the order of DType.
  template <template <class, DType> class Of, class Get>
  static constexpr auto table_of(Get get) {
    return [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) {
      struct Table {
        decltype(get(Of<V, DType::f32>{})) at[kDTypeCount];
      };
      return Table{{get(Of<V, static_cast<DType>(kIndex)>{})...}};
    }
    (std::make_integer_sequence<int, kDTypeCount>{});
  }

  static void matmul(const WeightView& w, int row_begin, int row_end, const Inputs& x,
                     int token_count, float* y, int y_stride) {
    static constexpr auto kOf = table_of<Dot>([](auto of) { return &decltype(of)::matmul; });
    kOf.at[static_cast<int>(w.dtype)](w, row_begin, row_end, x, token_count, y, y_stride);
  }

  static void matmul_masked(const WeightView& w, int row_begin, int row_end, const uint64_t* mask,
                            int mask_stride, const Inputs& x, int token_count, float* y,
                            int y_stride) {
    static constexpr auto kOf = table_of<Dot>([](auto of) { return &decltype(of)::matmul_masked; });
    kOf.at[static_cast<int>(w.dtype)](w, row_begin, row_end, mask, mask_stride, x, token_count, y,
                                      y_stride);
  }

  static void weighted_rows(const WeightView& w, int col_begin, int col_end, const uint64_t* mask,
                            int mask_stride, const float* a, int a_stride, int token_count,
                            float* y, int y_stride) {
    static constexpr auto kOf =
        table_of<WeightedSum>([](auto of) { return &decltype(of)::weighted_rows; });
    kOf.at[static_cast<int>(w.dtype)](w, col_begin, col_end, mask, mask_stride, a, a_stride,
                                      token_count, y, y_stride);
  }

  static void decode_row(const WeightView& w, int row, float* y) {
    static constexpr auto kOf =
        table_of<DecodedRow>([](auto of) { return &decltype(of)::decode_row; });
    kOf.at[static_cast<int>(w.dtype)](w, row, y);
  }

  static constexpr Kernels kernels(const char* name) {
    return {name,         to_fixed, matmul, matmul_masked,        weighted_rows,
            decode_row,   rms_norm, rope,   Attention<V>::attend, largest,
            multiply_only};
  }
};

}  // namespace
}  // namespace thermocline
