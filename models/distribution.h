// Distribution: what a list of measured or modelled values comes to in results.
//
// Goals: one definition of mean and percentiles wherever times are printed, modelled or read back.
// Thread-safety: plain data and pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

namespace thermocline {

// Percentiles are by nearest rank: a value that occurred.
struct Distribution {
  double mean = 0, p50 = 0, p95 = 0, p99 = 0;
};

// Nothing for no values.
std::optional<Distribution> distribution_of(std::vector<double> values);

// {mean, p50, p95, p99}, or null.
nlohmann::ordered_json json_of(const std::optional<Distribution>& distribution);

}  // namespace thermocline
