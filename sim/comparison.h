// Policies side by side, over the tasks of a replay: by how much one is better, and how sure.
//
// Goals: paired: both sides are judged on the same tasks (sim/bootstrap.h).
// Non-goals: sentences (sim/answer.h).
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/bootstrap.h"
#include "sim/replay.h"

namespace thermocline {

struct PolicyComparison {
  size_t row, versus;  // indices of the result's rows, at the same budget
  TaskMetric metric;
  double value, versus_value;
  PairedDifference difference;  // row less versus
};

struct RowIntervals {
  std::optional<Interval> hit_ratio, tpot_ms;
};

struct TaskAnalysis {
  std::vector<RowIntervals> rows;
  std::vector<PolicyComparison> comparisons;
  uint32_t resample_count = 0;
};

// The policy that others are compared with: the one named, else fixed-topk, else the first that is
// ranked and no oracle; nothing where there is none. Usage Error for a name that was not replayed.
std::optional<std::string> versus_of(const std::vector<PolicySpec>& policies,
                                     const std::string& named);

// Every row against the row of `versus` (a label) at its budget.
TaskAnalysis analyse_tasks(const ReplayResult& result, const std::optional<std::string>& versus,
                           uint64_t seed);

}  // namespace thermocline
