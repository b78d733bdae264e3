// The split of a stage is held to every split that there is, and where these are too many, to what
// must hold of any.
#include "runtime/stage_split.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace thermocline::test {
namespace {

StageTask random_task(std::mt19937_64& random, uint32_t units_max) {
  const auto below = [&](uint64_t limit) { return random() % limit; };
  StageTask task;
  const size_t nodes = 1 + below(3);
  for (int kind = 0; kind < kUnitKinds; ++kind) {
    task.units[kind] = static_cast<uint32_t>(nodes + below(units_max));
    task.unit_bytes[kind] = 1 + below(100);
  }
  task.rank_bytes = below(50);
  for (size_t i = 0; i < nodes; ++i) {
    StageNode node;
    node.rank_count = below(4) == 0 ? 2 : 1;
    node.memory_bytes = 100 + below(200 * units_max);
    const double speed = static_cast<double>(1 + below(9));
    node.seconds = {7 / speed, 3 / speed, below(2) == 0 ? 0.0 : 1 / speed};
    if (below(4) == 0) node.neuron_units_max = static_cast<uint32_t>(1 + below(units_max));
    task.nodes.push_back(node);
  }
  return task;
}

// The least time of all splits; infinity where none fits.
double by_trying_all(const StageTask& task) {
  const double never = std::numeric_limits<double>::infinity();
  double best = never;
  std::vector<PerKind<uint32_t>> units(task.nodes.size());
  const std::function<void(size_t, PerKind<uint32_t>, double)> follow =
      [&](size_t node, PerKind<uint32_t> left, double slowest) {
        if (node == task.nodes.size()) {
          if (left == PerKind<uint32_t>{}) best = std::min(best, slowest);
          return;
        }
        const StageNode& at = task.nodes[node];
        for (uint32_t h = at.rank_count; h <= left[0]; ++h)
          for (uint32_t n = at.rank_count; n <= left[1]; ++n)
            for (uint32_t v = at.rank_count; v <= left[2]; ++v) {
              if (bytes_of(task, at, {h, n, v}) > at.memory_bytes) continue;
              if (n > at.neuron_units_max) continue;
              follow(node + 1, {left[0] - h, left[1] - n, left[2] - v},
                     std::max(slowest, seconds_of(at, {h, n, v})));
            }
      };
  follow(0, task.units, 0);
  return best;
}

TEST_CASE("of few units the split is as fast as the best of all splits, and fits where one does") {
  std::mt19937_64 random(7);
  int fitting = 0, unfit = 0;
  for (int round = 0; round < 400; ++round) {
    const StageTask task = random_task(random, 5);
    const double best = by_trying_all(task);
    const auto split = split_stage(task);
    INFO("round " << round);
    REQUIRE(split.has_value() == std::isfinite(best));
    if (!split.has_value()) {
      ++unfit;
      continue;
    }
    ++fitting;
    CHECK(split->seconds == Approx(best).epsilon(1e-12));
  }
  CHECK(fitting > 100);
  CHECK(unfit > 10);
}

TEST_CASE("of many units each is given once, no node is above its memory, and times are even") {
  std::mt19937_64 random(8);
  for (int round = 0; round < 50; ++round) {
    StageTask task = random_task(random, 3000);
    for (StageNode& node : task.nodes) {
      node.memory_bytes = 4'000'000;
      node.neuron_units_max = UINT32_MAX;
    }
    for (uint32_t& units : task.units) units += 6;  // at least one a rank
    const auto split = split_stage(task);
    REQUIRE(split.has_value());
    PerKind<uint32_t> sum = {};
    double fastest = std::numeric_limits<double>::infinity(), largest_unit = 0;
    for (size_t i = 0; i < task.nodes.size(); ++i) {
      const StageNode& node = task.nodes[i];
      CHECK(bytes_of(task, node, split->units[i]) <= node.memory_bytes);
      for (int kind = 0; kind < kUnitKinds; ++kind) {
        CHECK(split->units[i][kind] >= node.rank_count);
        sum[kind] += split->units[i][kind];
        largest_unit = std::max(largest_unit, node.seconds[kind]);
      }
      fastest = std::min(fastest, seconds_of(node, split->units[i]));
    }
    INFO("round " << round);
    CHECK(sum == task.units);
    CHECK(split->seconds - fastest <= 2 * largest_unit);  // moving one unit would not help
    CHECK(split->units == split_stage(task)->units);
  }
}

TEST_CASE("a node that is full is clamped, and the others take the rest in their proportions") {
  StageTask task;
  task.units = {30, 3000, 300};
  task.unit_bytes = {100, 10, 1};
  StageNode fast, slow, small;
  fast.seconds = {2, 0.1, 0.01};
  slow.seconds = {4, 0.2, 0.02};
  small.seconds = {1, 0.05, 0.005};  // the fastest, without room
  fast.memory_bytes = slow.memory_bytes = 1'000'000;
  small.memory_bytes = 1500;
  task.nodes = {fast, slow, small};
  const auto split = split_stage(task);
  REQUIRE(split.has_value());
  const uint64_t held = bytes_of(task, small, split->units[2]);
  CHECK(held <= 1500);
  CHECK(held > 1400);
  const double ratio = static_cast<double>(split->units[0][kNeuronUnits]) /
                       static_cast<double>(split->units[1][kNeuronUnits]);
  CHECK(ratio == Approx(2.0).epsilon(0.1));
}

TEST_CASE("a full fast node holds what is read most for the memory that it takes") {
  StageTask task;
  task.units = {2, 2000, 2000};
  task.unit_bytes = {10, 10, 10};
  StageNode fast, slow;
  fast.seconds = {0.1, 0.01, 0.03};  // of vocabulary rows all is read, of neurons a third
  slow.seconds = {1, 0.1, 0.3};
  fast.memory_bytes = 15'000;
  slow.memory_bytes = 1'000'000;
  task.nodes = {fast, slow};
  const auto split = split_stage(task);
  REQUIRE(split.has_value());
  CHECK(split->units[0][kVocabUnits] > 1450);
  CHECK(split->units[0][kNeuronUnits] < 50);
}

}  // namespace
}  // namespace thermocline::test
