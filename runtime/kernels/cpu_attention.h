// attend: one query head over its keys and values, f32.
//
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <limits>

#include "runtime/kernels/cpu_dot_float.h"
#include "runtime/kernels/cpu_sum.h"

namespace thermocline {
namespace {

template <class V>
struct Attention {
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
    float largest = -std::numeric_limits<float>::infinity();
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

  // The positions in blocks of rows, without looking ahead: the hardware does it better.
  template <class Visit>
  static void for_each_tile(const float* base, int position_count, int kv_stride, Visit visit) {
    in_tiles<kTileRows>(0, position_count, [&]<int R>(int p) {
      const std::byte* rows[R];
      for (int r = 0; r < R; ++r)
        rows[r] = reinterpret_cast<const std::byte*>(base + static_cast<size_t>(p + r) * kv_stride);
      visit.template operator()<R>(p, rows);
    });
  }

  static void attend(const float* q, const float* keys, const float* values, int position_count,
                     int kv_stride, int head_dim, float* scores, float* out) {
    using Scores = FloatDot<V, DType::f32>;
    using Values = FloatSum<V, DType::f32>;
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
    const typename Scores::Row x[] = {{q}};
    for_each_tile(keys, position_count, kv_stride, [&]<int R>(int p, const std::byte* const* rows) {
      V sum[R][1];
      for (auto& of_row : sum) of_row[0] = V::zero();
      Scores::template tile<R, 1>(rows, rows, x, head_dim, sum);
      for (int r = 0; r < R; ++r) scores[p + r] = V::sum(sum[r][0]) * scale;
    });
    const float total = softmax_numerators(scores, position_count);
    for (int i = 0; i < head_dim; ++i) out[i] = 0;
    for_each_tile(values, position_count, kv_stride,
                  [&]<int R>(int p, const std::byte* const* rows) {
                    Values::template sum_tile<R>(rows, rows, scores + p, 0, head_dim, out);
                  });
    for (int i = 0; i < head_dim; ++i) out[i] /= total;
  }
};

}  // namespace
}  // namespace thermocline
