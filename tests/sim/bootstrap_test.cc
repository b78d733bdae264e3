#include "sim/bootstrap.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "models/cli.h"
#include "models/counter_random.h"

namespace thermocline {
namespace {

using Tasks = std::vector<TaskSums>;

// Normal deviates by Box and Muller; `stream` and `index` say which.
double normal(uint64_t stream, uint64_t index) {
  const auto words = philox2x64({index, stream}, 99);
  const double u = (static_cast<double>(words[0] >> 11) + 1) * 0x1p-53;
  const double v = static_cast<double>(words[1] >> 11) * 0x1p-53;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * M_PI * v);
}

// One token a task: its time is 10 ms with a deviation of 1, its hit ratio 0.5 with one of 0.01.
Tasks normal_tasks(uint64_t stream, size_t count) {
  Tasks tasks;
  for (size_t i = 0; i < count; ++i) {
    const double z = normal(stream, i);
    tasks.push_back({1000 * (0.5 + 0.01 * z), 1000, 10 + z, 1});
  }
  return tasks;
}

double width(const std::optional<Interval>& interval) {
  REQUIRE(interval);
  return interval->high - interval->low;
}

double sample_deviation(const Tasks& tasks) {
  double sum = 0, squares = 0;
  for (const TaskSums& task : tasks) sum += task.decode_ms;
  const double n = static_cast<double>(tasks.size());
  for (const TaskSums& task : tasks) squares += std::pow(task.decode_ms - sum / n, 2);
  return std::sqrt(squares / (n - 1));
}

TEST_CASE("the interval of a mean of normal values has the width that theory gives") {
  const Tasks tasks = normal_tasks(1, 400);
  const TaskBootstrap bootstrap(400, 1, 20000);
  const ResampledSide side = bootstrap.resampled(tasks);
  const double expected = 2 * 1.959964 * sample_deviation(tasks) / std::sqrt(400);
  CHECK(width(interval_of(side, TaskMetric::tpot_ms)) == Approx(expected).epsilon(0.03));
  CHECK(width(interval_of(side, TaskMetric::hit_ratio)) == Approx(0.01 * expected).epsilon(0.03));
  CHECK(expected == Approx(3.92 / 20).epsilon(0.1));
}

TEST_CASE("95 of 100 intervals hold the true mean") {
  constexpr size_t kTasks = 60, kTrials = 1000;
  const TaskBootstrap bootstrap(kTasks, 5, 500);
  size_t held = 0;
  for (size_t trial = 0; trial < kTrials; ++trial) {
    const auto interval =
        interval_of(bootstrap.resampled(normal_tasks(1000 + trial, kTasks)), TaskMetric::tpot_ms);
    REQUIRE(interval);
    held += interval->low <= 10 && 10 <= interval->high ? 1 : 0;
  }
  // A percentile interval of 60 values is a little short: 94 % expected, 0.75 % its deviation.
  CHECK(held >= 915);
  CHECK(held <= 970);
}

// Both sides see how hard a task is; one of them is 0.3 ms and 0.01 better everywhere.
TEST_CASE("pairing takes out what the tasks have in common") {
  const Tasks tasks = normal_tasks(3, 100);
  Tasks better = tasks, unrelated = normal_tasks(4, 100);
  for (size_t i = 0; i < tasks.size(); ++i) {
    const double own = 0.1 * normal(5, i);
    better[i].decode_ms += own - 0.3;
    better[i].hits += own + 10;
  }
  const TaskBootstrap bootstrap(100);
  const ResampledSide side = bootstrap.resampled(tasks);
  for (const TaskMetric metric : {TaskMetric::tpot_ms, TaskMetric::hit_ratio}) {
    const auto paired = difference_of(bootstrap.resampled(better), side, metric);
    const auto unpaired = difference_of(bootstrap.resampled(unrelated), side, metric);
    REQUIRE(paired);
    CHECK(width(paired->interval) < 0.15 * width(unpaired->interval));
    CHECK(width(paired->interval) < 0.2 * width(interval_of(side, metric)));
    CHECK(paired->interval->low < paired->difference);
    CHECK(paired->interval->high > paired->difference);
    CHECK(paired->tasks_won > 95);  // fewer milliseconds, more hits
    CHECK(paired->tasks() == 100);
  }
}

TEST_CASE("exchanging the sides exchanges signs and counts") {
  const TaskBootstrap bootstrap(30);
  const ResampledSide a = bootstrap.resampled(normal_tasks(6, 30));
  const ResampledSide b = bootstrap.resampled(normal_tasks(7, 30));
  for (const TaskMetric metric : {TaskMetric::tpot_ms, TaskMetric::hit_ratio}) {
    const auto there = difference_of(a, b, metric), back = difference_of(b, a, metric);
    CHECK(there->difference == -back->difference);
    CHECK(there->interval->low == Approx(-back->interval->high).margin(1e-12));
    CHECK(there->interval->high == Approx(-back->interval->low).margin(1e-12));
    CHECK(there->tasks_won == back->tasks_lost);
    CHECK(there->tasks_lost == back->tasks_won);
    CHECK(there->tasks_tied == 0);
  }
}

TEST_CASE("a seed gives the same resamples, another one others") {
  const Tasks tasks = normal_tasks(8, 25);
  const ResampledSide first = TaskBootstrap(25, 3, 100).resampled(tasks);
  CHECK(first.tpot_ms == TaskBootstrap(25, 3, 100).resampled(tasks).tpot_ms);
  CHECK(first.tpot_ms != TaskBootstrap(25, 4, 100).resampled(tasks).tpot_ms);
  const std::vector<double> more = TaskBootstrap(25, 3, 200).resampled(tasks).tpot_ms;
  CHECK(std::equal(first.tpot_ms.begin(), first.tpot_ms.end(), more.begin()));
}

TEST_CASE("a resample draws as many tasks as there are, all of them alike") {
  constexpr uint32_t kTasks = 7, kResamples = 20000;
  const TaskBootstrap bootstrap(kTasks, 1, kResamples);
  for (uint32_t marked = 0; marked < kTasks; ++marked) {
    Tasks tasks(kTasks, {0, 1, 0, 1});
    tasks[marked].hits = 1;
    double sum = 0, squares = 0;
    for (const double share : bootstrap.resampled(tasks).hit_ratio) {
      const double times = share * kTasks;  // how often the marked task was drawn
      sum += times;
      squares += times * times;
    }
    const double mean = sum / kResamples;
    CHECK(mean == Approx(1).margin(0.03));
    CHECK(squares / kResamples - mean * mean == Approx(1 - 1.0 / kTasks).margin(0.05));
  }
}

TEST_CASE("tasks that need nothing count on neither side") {
  Tasks a = normal_tasks(9, 20), b = normal_tasks(10, 20);
  a[3] = b[3] = {0, 0, 0, 0};
  a[4] = b[4] = {};
  a[5] = b[5];
  const TaskBootstrap bootstrap(20);
  const auto result =
      difference_of(bootstrap.resampled(a), bootstrap.resampled(b), TaskMetric::hit_ratio);
  REQUIRE(result);
  CHECK(result->tasks() == 18);
  CHECK(result->tasks_tied == 1);
  CHECK(result->interval);
}

TEST_CASE("resamples without a ratio are left out, not counted as zero") {
  Tasks tasks(6, TaskSums{0, 0, 0, 0});  // a third of the draws need nothing: some resamples do not
  tasks[0] = {8, 10, 5, 1};
  tasks[1] = {9, 10, 6, 1};
  const ResampledSide side = TaskBootstrap(6).resampled(tasks);
  CHECK(std::any_of(side.hit_ratio.begin(), side.hit_ratio.end(),
                    [](double ratio) { return std::isnan(ratio); }));
  const auto interval = interval_of(side, TaskMetric::hit_ratio);
  REQUIRE(interval);
  CHECK(interval->low == Approx(0.8));
  CHECK(interval->high == Approx(0.9));
}

TEST_CASE("fewer than two tasks have no interval") {
  const auto nothing = [](const Tasks& tasks) {
    const TaskBootstrap bootstrap(static_cast<uint32_t>(tasks.size()));
    const ResampledSide side = bootstrap.resampled(tasks);
    CHECK_FALSE(interval_of(side, TaskMetric::hit_ratio));
    CHECK_FALSE(interval_of(side, TaskMetric::tpot_ms));
    return difference_of(side, side, TaskMetric::hit_ratio);
  };
  CHECK_FALSE(nothing({}));
  const auto one = nothing({{5, 10, 3, 1}});
  REQUIRE(one);
  CHECK(one->difference == 0);
  CHECK(one->tasks_tied == 1);
  CHECK_FALSE(one->interval);
  CHECK_FALSE(nothing({{0, 0, 0, 0}, {0, 0, 0, 0}}));
  CHECK_FALSE(nothing({{5, 10, 3, 1}, {}, {}})->interval);
  CHECK_FALSE(ratio_of({}, TaskMetric::tpot_ms));
  CHECK(*ratio_of({{5, 10, 3, 1}, {1, 10, 6, 2}}, TaskMetric::tpot_ms) == 3);
}

Tasks tasks_of(const nlohmann::json& rows) {
  Tasks tasks;
  for (const auto& row : rows) tasks.push_back({row[0], row[1], row[2], row[3]});
  return tasks;
}

// With 20,000 resamples the end of an interval has a deviation of 0.02 of the estimate's.
void check_ends(const std::optional<Interval>& ours, const nlohmann::json& numpy,
                double deviation) {
  REQUIRE(ours);
  CHECK(ours->low == Approx(numpy[0].get<double>()).margin(0.08 * deviation));
  CHECK(ours->high == Approx(numpy[1].get<double>()).margin(0.08 * deviation));
}

TEST_CASE("intervals are those of numpy's multinomial resamples") {
  const std::string path = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/bootstrap.json";
  const auto document = nlohmann::json::parse(read_file(path));
  REQUIRE(document["cases"].size() == 2);
  for (const auto& one : document["cases"]) {
    const Tasks a = tasks_of(one["sides"][0]), b = tasks_of(one["sides"][1]);
    const TaskBootstrap bootstrap(static_cast<uint32_t>(a.size()), 11, 20000);
    const ResampledSide side = bootstrap.resampled(a), other = bootstrap.resampled(b);
    for (const TaskMetric metric : {TaskMetric::hit_ratio, TaskMetric::tpot_ms}) {
      const auto& numpy = one[metric == TaskMetric::hit_ratio ? "hit_ratio" : "tpot_ms"];
      check_ends(interval_of(side, metric), numpy["side"], numpy["side_deviation"]);
      check_ends(difference_of(side, other, metric)->interval, numpy["difference"],
                 numpy["difference_deviation"]);
    }
  }
}

}  // namespace
}  // namespace thermocline
