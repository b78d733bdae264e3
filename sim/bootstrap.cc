#include "sim/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/counter_random.h"
#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint64_t kStream = 0x626f6f7473747261;  // apart from other users of the generator
constexpr double kTieRelative = 1e-9;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

double ratio_in(const TaskSums& sums, TaskMetric metric) {
  const bool hits = metric == TaskMetric::hit_ratio;
  const double below = hits ? sums.needed : sums.decode_tokens;
  return below > 0 ? (hits ? sums.hits : sums.decode_ms) / below : kNone;
}

// A task as it is summed: without names, so that the compiler adds two or four numbers at once.
struct alignas(32) Row {
  double values[4];
};

std::vector<Row> rows_of(const std::vector<TaskSums>& tasks) {
  std::vector<Row> rows;
  rows.reserve(tasks.size());
  for (const TaskSums& task : tasks) {
    rows.push_back({{task.hits, task.needed, task.decode_ms, task.decode_tokens}});
  }
  return rows;
}

TaskSums sum_of(const std::vector<Row>& rows, const uint32_t* drawn) {
  Row sum = {};
  for (size_t draw = 0; draw < rows.size(); ++draw) {
    const Row& row = rows[drawn[draw]];
    for (int k = 0; k < 4; ++k) sum.values[k] += row.values[k];
  }
  return {sum.values[0], sum.values[1], sum.values[2], sum.values[3]};
}

uint64_t tasks_with_ratio(const std::vector<TaskSums>& tasks, TaskMetric metric) {
  return static_cast<uint64_t>(std::count_if(tasks.begin(), tasks.end(), [&](const TaskSums& task) {
    return !std::isnan(ratio_in(task, metric));
  }));
}

// Interpolated between order statistics: the definition of R's type 7 and of numpy.
double quantile(std::vector<double>& values, double share) {
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = values.begin() + static_cast<ptrdiff_t>(place);
  std::nth_element(values.begin(), below, values.end());
  if (below + 1 == values.end()) return *below;
  const double above = *std::min_element(below + 1, values.end());
  return *below + (place - std::floor(place)) * (above - *below);
}

std::optional<Interval> percentile_interval(std::vector<double> values) {
  values.erase(
      std::remove_if(values.begin(), values.end(), [](double value) { return std::isnan(value); }),
      values.end());
  if (values.empty()) return std::nullopt;
  const double low = quantile(values, 0.025);
  return Interval{low, quantile(values, 0.975)};
}

void count_task(PairedDifference& result, double ratio, double other, TaskMetric metric) {
  if (std::isnan(ratio) || std::isnan(other)) return;
  const double better = metric == TaskMetric::hit_ratio ? ratio - other : other - ratio;
  const double tie = kTieRelative * std::max(std::abs(ratio), std::abs(other));
  ++(better > tie ? result.tasks_won : better < -tie ? result.tasks_lost : result.tasks_tied);
}

}  // namespace

std::optional<double> ratio_of(const std::vector<TaskSums>& tasks, TaskMetric metric) {
  TaskSums sum;
  for (const TaskSums& task : tasks) {
    sum.hits += task.hits;
    sum.needed += task.needed;
    sum.decode_ms += task.decode_ms;
    sum.decode_tokens += task.decode_tokens;
  }
  const double ratio = ratio_in(sum, metric);
  if (std::isnan(ratio)) return std::nullopt;
  return ratio;
}

TaskBootstrap::TaskBootstrap(uint32_t task_count, uint64_t seed, uint32_t resample_count)
    : task_count_(task_count) {
  TC_CHECK(resample_count > 0, "an interval needs resamples");
  if (task_count < 2) return;
  drawn_.reserve(uint64_t{task_count} * resample_count);
  for (uint64_t resample = 0; resample < resample_count; ++resample) {
    for (uint32_t draw = 0; draw < task_count; ++draw) {
      const uint64_t word = philox2x64({resample << 32 | draw / 2, kStream}, seed)[draw % 2];
      // The upper half of the product maps 64 random bits onto the tasks, without a division.
      const auto product = static_cast<unsigned __int128>(word) * task_count;
      drawn_.push_back(static_cast<uint32_t>(product >> 64));
    }
  }
}

ResampledSide TaskBootstrap::resampled(std::vector<TaskSums> tasks) const {
  TC_CHECK(tasks.size() == task_count_, "each side has every task");
  ResampledSide side;
  const std::vector<Row> rows = rows_of(tasks);
  for (size_t begin = 0; begin < drawn_.size(); begin += task_count_) {
    const TaskSums sum = sum_of(rows, drawn_.data() + begin);
    side.hit_ratio.push_back(ratio_in(sum, TaskMetric::hit_ratio));
    side.tpot_ms.push_back(ratio_in(sum, TaskMetric::tpot_ms));
  }
  side.tasks = std::move(tasks);
  return side;
}

std::optional<Interval> interval_of(const ResampledSide& side, TaskMetric metric) {
  if (tasks_with_ratio(side.tasks, metric) < 2) return std::nullopt;
  return percentile_interval(side.ratios(metric));
}

std::optional<PairedDifference> difference_of(const ResampledSide& side, const ResampledSide& other,
                                              TaskMetric metric) {
  const std::vector<double>& own = side.ratios(metric);
  const std::vector<double>& theirs = other.ratios(metric);
  TC_CHECK(side.tasks.size() == other.tasks.size() && own.size() == theirs.size(),
           "two sides of the same resamples");
  const auto a = ratio_of(side.tasks, metric), b = ratio_of(other.tasks, metric);
  if (!a || !b) return std::nullopt;
  PairedDifference result{*a - *b, std::nullopt, 0, 0, 0};
  for (size_t i = 0; i < side.tasks.size(); ++i) {
    count_task(result, ratio_in(side.tasks[i], metric), ratio_in(other.tasks[i], metric), metric);
  }
  if (result.tasks() < 2) return result;
  std::vector<double> differences;
  differences.reserve(own.size());
  for (size_t i = 0; i < own.size(); ++i) differences.push_back(own[i] - theirs[i]);
  result.interval = percentile_interval(std::move(differences));
  return result;
}

}  // namespace thermocline
