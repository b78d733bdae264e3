#include "models/rope_scaling.h"

#include <cmath>
#include <numbers>

namespace thermocline {

std::vector<float> llama3_rope_divisors(const Llama3RopeScaling& scaling, double theta,
                                        uint32_t head_dim) {
  std::vector<float> divisors;
  for (uint32_t i = 0; i < head_dim; i += 2) {
    const double frequency = std::pow(theta, -double(i) / head_dim);  // radians a position
    const double turns = scaling.original_context * frequency / (2 * std::numbers::pi);
    const double kept =
        (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    const double share = kept < 0 ? 0 : kept > 1 ? 1 : kept;  // of the unscaled frequency
    divisors.push_back(static_cast<float>(1 / ((1 - share) / scaling.factor + share)));
  }
  return divisors;
}

std::vector<float> linear_rope_divisors(double factor, uint32_t head_dim) {
  return std::vector<float>(head_dim / 2, static_cast<float>(factor));
}

}  // namespace thermocline
