// Seconds that the intervals of a study take: 300 policies and budgets against one other side, by
// hit ratio and by time, over 500 tasks in 2,000 resamples; limit: 2 s of one core.
//
//   bootstrap_bench
#include <cstdio>
#include <ctime>

#include "sim/bootstrap.h"

using namespace thermocline;

namespace {

constexpr uint32_t kTasks = 500, kPairs = 300;
constexpr double kLimit = 2;

std::vector<TaskSums> tasks_of(uint32_t pair) {
  std::vector<TaskSums> tasks;
  for (uint32_t i = 0; i < kTasks; ++i) {
    const double tokens = 20 + i % 97;
    tasks.push_back(
        {tokens * (60 + (i * pair) % 7), tokens * 100, tokens * (40 - (i + pair) % 5), tokens});
  }
  return tasks;
}

}  // namespace

int main() {
  const std::clock_t begin = std::clock();
  const TaskBootstrap bootstrap(kTasks);
  const ResampledSide versus = bootstrap.resampled(tasks_of(0));
  double widths = 0;  // printed, so that nothing is left out
  for (uint32_t pair = 1; pair <= kPairs; ++pair) {
    const ResampledSide side = bootstrap.resampled(tasks_of(pair));
    for (const TaskMetric metric : {TaskMetric::hit_ratio, TaskMetric::tpot_ms}) {
      const auto paired = difference_of(side, versus, metric)->interval;
      const auto own = interval_of(side, metric);
      widths += paired->high - paired->low + own->high - own->low;
    }
  }
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  std::printf("%u pairs, %u tasks, %u resamples: %.2f s (limit %.0f s), mean width %.4f\n", kPairs,
              kTasks, TaskBootstrap::kResamples, seconds, kLimit, widths / (4 * kPairs));
  return seconds <= kLimit ? 0 : 1;
}
