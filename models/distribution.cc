#include "models/distribution.h"

#include <algorithm>
#include <numeric>

namespace thermocline {

std::optional<Distribution> distribution_of(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  Distribution result;
  result.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  std::sort(values.begin(), values.end());
  const auto percentile = [&](size_t percent) {
    return values[(values.size() * percent + 99) / 100 - 1];
  };
  result.p50 = percentile(50);
  result.p95 = percentile(95);
  result.p99 = percentile(99);
  return result;
}

nlohmann::ordered_json json_of(const std::optional<Distribution>& distribution) {
  if (!distribution.has_value()) return nullptr;
  return {{"mean", distribution->mean},
          {"p50", distribution->p50},
          {"p95", distribution->p95},
          {"p99", distribution->p99}};
}

}  // namespace thermocline
