#include "runtime/kernels/elementwise.h"

#include <cmath>
#include <cstddef>

namespace thermocline {

void rms_norm(const float* x, const float* weight, int dim, float epsilon, float* y) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int i = 0;
  for (; i + kSums <= dim; i += kSums)
    for (int k = 0; k < kSums; ++k) sums[k] += static_cast<double>(x[i + k]) * x[i + k];
  for (int k = 0; i < dim; ++i, ++k) sums[k] += static_cast<double>(x[i]) * x[i];
  double sum = 0;
  for (const double partial : sums) sum += partial;
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / dim + epsilon));
  for (i = 0; i < dim; ++i) y[i] = x[i] * scale * weight[i];
}

void rope(float* x, int head_count, int head_dim, int position, const double* frequencies) {
  for (int i = 0; i < head_dim; i += 2) {
    const double angle = position * frequencies[i / 2];
    const float cosine = static_cast<float>(std::cos(angle));
    const float sine = static_cast<float>(std::sin(angle));
    for (int head = 0; head < head_count; ++head) {
      float* pair = x + static_cast<size_t>(head) * head_dim + i;
      const float first = pair[0], second = pair[1];
      pair[0] = first * cosine - second * sine;
      pair[1] = first * sine + second * cosine;
    }
  }
}

}  // namespace thermocline
