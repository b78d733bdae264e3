#include "models/registry.h"

#include <algorithm>
#include <numeric>

namespace thermocline {
namespace {

// Levenshtein distance with one row of the table.
size_t edit_count(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& valid) {
  std::string best;
  size_t best_count = SIZE_MAX;
  for (const std::string& candidate : valid) {
    const size_t count = edit_count(name, candidate);
    if (count < best_count) {
      best_count = count;
      best = candidate;
    }
  }
  return best;
}

Error unknown_name(std::string_view what, std::string_view name,
                   const std::vector<std::string>& valid) {
  std::string message = "unknown " + std::string(what) + " '" + std::string(name) + "'";
  const std::string nearest = nearest_name(name, valid);
  if (!nearest.empty()) message += "; did you mean '" + nearest + "'?";
  message += " valid:";
  for (size_t i = 0; i < valid.size(); ++i) message += (i == 0 ? " " : ", ") + valid[i];
  return bad_usage(message);
}

}  // namespace thermocline
