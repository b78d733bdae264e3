// Paired bootstrap over tasks: how far a ratio, or a difference of two policies, may be due to the
// tasks that happened to be in the trace.
//
// Tasks are drawn with replacement (Efron and Tibshirani, "An introduction to the bootstrap",
// 1993),
//   as many as there are; both sides of a difference are summed over the same drawn tasks, since a
//   long or predictable task is so for every policy. Intervals are 95 % percentile intervals.
// Goals: the same seed gives the same bytes on every machine, draw j of resample i depends on
//   (seed, i, j) alone; the sums of a side are made once for all the pairs that it is in.
// Non-goals: steps as units (those of one task depend on each other), tests of significance.
// Thread-safety: const functions may be called from several threads.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace thermocline {

// What one task came to under one policy at one budget.
struct TaskSums {
  double hits = 0, needed = 0;              // active neurons: in fast memory, and all
  double decode_ms = 0, decode_tokens = 0;  // modelled time of the decode steps
  bool operator==(const TaskSums&) const = default;
};

// Ratios of sums over tasks: hits / needed, where more is better, and decode_ms / decode_tokens
// (time per output token), where less is.
enum class TaskMetric { hit_ratio, tpot_ms };

// The ratio over all tasks; nothing where the sum below is zero.
std::optional<double> ratio_of(const std::vector<TaskSums>& tasks, TaskMetric metric);

// 2.5 % of the resampled values lie below `low`, 2.5 % above `high`.
struct Interval {
  double low = 0, high = 0;
};

struct PairedDifference {
  double difference = 0;  // one side less the other, over all tasks
  std::optional<Interval> interval;
  // By each task's own ratio. A tie is equality but for rounding (1e-9 of the greater one); a task
  // that has no ratio on one of the sides is in none of the counts.
  uint64_t tasks_won = 0, tasks_lost = 0, tasks_tied = 0;

  uint64_t tasks() const { return tasks_won + tasks_lost + tasks_tied; }
};

// One side's tasks, and its ratios in every resample (NaN where the sum below was zero).
struct ResampledSide {
  std::vector<TaskSums> tasks;
  std::vector<double> hit_ratio, tpot_ms;

  const std::vector<double>& ratios(TaskMetric metric) const {
    return metric == TaskMetric::hit_ratio ? hit_ratio : tpot_ms;
  }
};

class TaskBootstrap {
 public:
  static constexpr uint32_t kResamples = 2000;

  // Holds 4 bytes for each draw: task_count times resample_count.
  explicit TaskBootstrap(uint32_t task_count, uint64_t seed = 1,
                         uint32_t resample_count = kResamples);

  // `tasks` has task_count entries, in the order of every other side.
  ResampledSide resampled(std::vector<TaskSums> tasks) const;

 private:
  uint32_t task_count_;
  std::vector<uint32_t> drawn_;  // (resample, draw): a task
};

// Nothing below two tasks with a ratio: one task cannot tell how tasks differ.
std::optional<Interval> interval_of(const ResampledSide& side, TaskMetric metric);
// `side` less `other`; nothing where a side has no ratio at all. Both come from one TaskBootstrap.
std::optional<PairedDifference> difference_of(const ResampledSide& side, const ResampledSide& other,
                                              TaskMetric metric);

}  // namespace thermocline
