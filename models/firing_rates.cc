#include "models/firing_rates.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "models/error.h"

namespace thermocline {

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

FiringRates::FiringRates(double mean, double concentration) {
  TC_CHECK(mean > 0 && mean < 1 && concentration > 0,
           "Beta of mean " + std::to_string(mean) + ", c " + std::to_string(concentration));
  const double a = mean * concentration, b = (1 - mean) * concentration;
  std::vector<double> mass(2 * kStepMax + 1);
  for (size_t i = 0; i < mass.size(); ++i) {
    // The Beta density times d pi / d bias = phi(bias).
    const double bias = bias_of(static_cast<int>(i));
    mass[i] = std::pow(normal_cdf(bias), a - 1) * std::pow(normal_cdf(-bias), b - 1) *
              std::exp(-bias * bias / 2) / std::sqrt(2 * std::numbers::pi) / kStepsPerUnit;
  }
  // Clipped: the mass beyond either end lies on the end; there the density is pi^(a-1), or its
  // mirror image.
  const double end = normal_cdf(bias_of(0));
  mass.front() = std::pow(end, a) / a;
  mass.back() = std::pow(end, b) / b;

  double total = 0;
  for (const double share : mass) total += share;
  double sum = 0;
  for (const double share : mass) cumulative_.push_back((sum += share) / total);
  cumulative_.back() = 1;
}

double FiringRates::bias(double uniform) const {
  const auto at = std::lower_bound(cumulative_.begin(), cumulative_.end(), uniform);
  return bias_of(static_cast<int>(at - cumulative_.begin()));
}

}  // namespace thermocline
