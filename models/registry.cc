#include "models/registry.h"

#include <algorithm>
#include <cctype>
#include <cstdint>

namespace thermocline {
namespace {

constexpr size_t kEdit = 2;      // a letter added, dropped or replaced
constexpr size_t kCaseEdit = 1;  // "gib" is nearer to "GiB" than to "GB"

size_t replace_cost(char a, char b) {
  if (a == b) return 0;
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return lower(a) == lower(b) ? kCaseEdit : kEdit;
}

// Levenshtein distance with one row of the table.
size_t edit_cost(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = kEdit * j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = kEdit * i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + replace_cost(a[i - 1], b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + kEdit, row[j - 1] + kEdit, replaced});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& valid) {
  std::string best;
  size_t best_cost = SIZE_MAX;
  for (const std::string& candidate : valid) {
    const size_t cost = edit_cost(name, candidate);
    if (cost < best_cost) {
      best_cost = cost;
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
