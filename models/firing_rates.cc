#include "models/firing_rates.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "models/error.h"

namespace thermocline {

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// Phi2(bias, bias; r) = Phi(bias) - 2 T(bias, sqrt((1 - r) / (1 + r))), where Owen's T is the
// integral over x in [0, a] of exp(-bias^2 (1 + x^2) / 2) / (1 + x^2) / 2 pi: by Simpson's rule.
double joint_rate(double bias, double correlation) {
  constexpr int kIntervals = 24;
  const double end = std::sqrt((1 - correlation) / (1 + correlation)), step = end / kIntervals;
  double sum = 0;
  for (int i = 0; i <= kIntervals; ++i) {
    const double square = 1 + i * step * i * step;
    const double weight = i == 0 || i == kIntervals ? 1 : i % 2 == 0 ? 2 : 4;
    sum += weight * std::exp(-bias * bias * square / 2) / square;
  }
  return normal_cdf(bias) - sum * step / 3 / std::numbers::pi;
}

FiringRates::FiringRates(double mean, double concentration)
    : mean_(mean), concentration_(concentration) {
  TC_CHECK(mean > 0 && mean < 1 && concentration > 0,
           "Beta of mean " + std::to_string(mean) + ", c " + std::to_string(concentration));
  static const std::vector<double> log_cdf = [] {  // of each bias; mirrored, of its negative
    std::vector<double> logs;
    for (int i = 0; i <= 2 * kStepMax; ++i) logs.push_back(std::log(normal_cdf(bias_of(i))));
    return logs;
  }();
  const double a = mean * concentration, b = (1 - mean) * concentration;
  std::vector<double> mass(2 * kStepMax + 1);
  for (size_t i = 0; i < mass.size(); ++i) {
    // The Beta density times d pi / d bias = phi(bias), up to a factor.
    const double bias = bias_of(static_cast<int>(i));
    mass[i] = (a - 1) * log_cdf[i] + (b - 1) * log_cdf[mass.size() - 1 - i] - bias * bias / 2 -
              std::log(std::sqrt(2 * std::numbers::pi) * kStepsPerUnit);
  }
  // Clipped: the mass beyond either end lies on the end; there the density is pi^(a-1), or its
  // mirror image.
  mass.front() = a * log_cdf.front() - std::log(a);
  mass.back() = b * log_cdf.front() - std::log(b);

  // Relative to the largest: of a high concentration all others may be too small for a double.
  const double largest = *std::max_element(mass.begin(), mass.end());
  double total = 0;
  for (double& share : mass) total += share = std::exp(share - largest);
  double sum = 0;
  for (const double share : mass) cumulative_.push_back((sum += share) / total);
  cumulative_.back() = 1;
}

FiringRates FiringRates::with_share(double mean, double share_80) {
  // Neurons that always fire would need 0.8 mean of a layer, equal ones 0.8. From a fifth of the
  // way between them on, rates still differ smoothly.
  const double share = std::clamp(share_80, 0.16 + 0.64 * mean, 0.799);
  double low = 1.0 / 64, high = 4096;
  for (int i = 0; i < 24; ++i) {
    const double middle = std::sqrt(low * high);
    (share_of_80_percent({FiringRates(mean, middle)}) < share ? low : high) = middle;
  }
  return {mean, low};
}

double share_of_80_percent(const std::vector<FiringRates>& layers) {
  std::vector<double> biases, shares;  // all layers have the same biases
  for (const FiringRates& layer : layers) {
    size_t place = 0;
    layer.each([&](double bias, double share) {
      if (place == biases.size()) {
        biases.push_back(bias);
        shares.push_back(0);
      }
      shares[place++] += share;
    });
  }
  double total = 0;
  for (size_t i = 0; i < biases.size(); ++i) total += shares[i] * normal_cdf(biases[i]);
  double left = 0.8 * total, taken = 0;
  for (size_t i = 0; i < biases.size(); ++i) {
    const double fired = shares[i] * normal_cdf(biases[i]);
    if (fired >= left)
      return (taken + shares[i] * left / fired) / static_cast<double>(layers.size());
    left -= fired;
    taken += shares[i];
  }
  return 1;
}

double FiringRates::bias(double uniform) const {
  const auto at = std::lower_bound(cumulative_.begin(), cumulative_.end(), uniform);
  return bias_of(static_cast<int>(at - cumulative_.begin()));
}

}  // namespace thermocline
