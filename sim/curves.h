// Curves: replayed rows by policy and budget, and what stands out among them.
//
// Goals: rows of several batches, of parameters tuned for each budget and of other variants of one
//   policy do not get mixed; names say no more than tells curves apart.
// Non-goals: sentences (sim/answer.h), drawing.
// Thread-safety: pure functions. Curves point into the results that they were made of.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sim/results.h"

namespace thermocline {

// One policy over all budgets, ascending.
struct Curve {
  std::string name;  // the policy's; with the settings in which another of that policy differs
  bool oracle = false;
  int style = 0;  // counts policies and oracles apart; negative: not worth a line in a plot
  std::vector<const PolicyRow*> rows;

  const std::string& policy() const { return rows.front()->policy; }
};

// Sizes of batches in the replayed rows, in their order.
std::vector<uint64_t> batches_of(const ModelResults& model);
// Replayed rows of one batch as curves, in their order; of the first batch where none is given.
std::vector<Curve> curves_of(const ModelResults& model, std::optional<uint64_t> batch = {});
// The row at a budget, or null.
const PolicyRow* row_at(const Curve& curve, uint64_t budget_bytes);
// All budgets, ascending.
std::vector<uint64_t> budgets_of(const std::vector<Curve>& curves);
// The budget that tables and sentences begin with: the one of which the replay kept thresholds,
// else the middle one. Zero without curves.
uint64_t middle_budget(const std::vector<Curve>& curves);
// The least budget, in percent of the FFN, at which the curve reaches a hit ratio, interpolated
// between budgets; nothing where it does not within them.
std::optional<double> percent_for_hit_ratio(const Curve& curve, double hit_ratio);

// A policy that keeps its hot set: by its name, or since no row of it moved anything.
bool is_fixed(const Curve& curve);
// What others are compared with: the comparisons' other side, else the first fixed policy, else the
// first that is no oracle; null where there is none.
const Curve* baseline_of(const ModelResults& model, const std::vector<Curve>& curves);
// The row's comparison with the baseline, or null.
const ComparisonRow* comparison_of(const ModelResults& model, const PolicyRow& row,
                                   TaskMetric metric);

inline constexpr int kStylesMax = 6;
// Numbers the styles anew: the baseline, then the policies that are best in time or in hits at the
// middle, the least or the greatest budget, then the next best in time, kStylesMax in all. Other
// policies get -1, oracles keep theirs.
void choose_styles(const ModelResults& model, std::vector<Curve>& curves);

}  // namespace thermocline
