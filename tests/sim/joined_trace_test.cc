// Requests that decode together: every token once, unions of active sets, one budget of passes.
#include "sim/joined_trace.h"

#include <catch2/catch.hpp>
#include <map>

#include "models/error.h"
#include "tests/sim/memory_trace.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

MemoryTrace five_tasks() {
  MemoryTrace trace = random_trace(21, three_rank_header(), 90, 0);
  trace.cut_into_tasks(20, 6);  // the last task has 10 steps
  return trace;
}

}  // namespace

TEST_CASE("a batch of one is the trace itself") {
  const MemoryTrace trace = five_tasks();
  const JoinedTrace joined(trace, 1);
  REQUIRE(joined.step_count() == 90);
  StepBlock one, other;
  for (const NeuronPool& pool : trace.header().pools) {
    joined.read(pool, 13, 70, one);
    trace.read(pool, 13, 70, other);
    CHECK(one.words == other.words);
  }
  CHECK(joined.tasks().size() == 5);
  CHECK(joined.hash() == trace.hash());
}

TEST_CASE("every token is decoded once, and no more than the batch at a time") {
  const MemoryTrace trace = five_tasks();
  for (const uint32_t batch : {2u, 3u, 8u}) {
    const JoinedTrace joined(trace, batch);
    std::map<uint32_t, uint32_t> steps;
    uint32_t most = 0;
    const auto infos = joined.steps();
    for (uint64_t step = 0; step < joined.step_count(); ++step) {
      const auto tasks = joined.tasks_of(step);
      for (const uint32_t task : tasks) ++steps[task];
      CHECK((infos[step].phase == Phase::decode || tasks.size() == 1));
      CHECK(joined.shape_of(step).position_count == tasks.size());
      most = std::max(most, static_cast<uint32_t>(tasks.size()));
    }
    CHECK(most == std::min(batch, 5u));
    for (const auto& [task, count] : steps) {
      CHECK(count == trace.tasks()[task].step_count);
      CHECK(joined.tasks()[task].step_count == count);
    }
    CHECK(joined.step_count() < 90);
  }
}

TEST_CASE("a joined step needs what any of its requests needs") {
  const MemoryTrace trace = five_tasks();
  const JoinedTrace joined(trace, 3);
  // Slots begin with tasks 0, 1 and 2, six steps of prompt each; then their tokens join.
  const uint64_t first = 18;
  CHECK(joined.tasks_of(first).size() == 3);
  StepBlock block;
  for (const NeuronPool& pool : trace.header().pools) {
    joined.read(pool, first, 1, block);
    std::vector<uint64_t> expected(pool.words_per_step());
    for (const uint64_t source : {6, 26, 46}) {
      const PoolSteps row = trace.cut_of(pool, source, 1);
      for (size_t w = 0; w < expected.size(); ++w) expected[w] |= row.words[w];
    }
    CHECK(block.words == expected);
  }
  uint64_t active = 0;
  for (const uint64_t source : {6, 26, 46}) {
    for (const uint32_t count : trace.popcounts(source, 1)) active += count;
  }
  CHECK(joined.shape_of(first).active_sum == active);
  CHECK_THROWS_AS(JoinedTrace(trace, 0), Error);
}

TEST_CASE("joined requests are replayed: fewer steps, larger unions, every task accounted") {
  const MemoryTrace trace = five_tasks();
  ReplayOptions options{parse_policies("fixed,ewma"), {384 * 100}};
  const ReplayResult apart = replay(trace, &trace, options);
  const JoinedTrace joined(trace, 4);
  options.shape_of = [&](uint64_t step) { return joined.shape_of(step); };
  options.tasks_of = [&](uint64_t step) { return joined.tasks_of(step); };
  const ReplayResult together = replay(joined, &trace, options);
  for (size_t row = 0; row < 2; ++row) {
    CHECK(together.rows[row].total.step_count == joined.step_count());
    CHECK(together.rows[row].total.needed < apart.rows[row].total.needed);
    double needed = 0;
    for (const TaskSums& task : together.rows[row].account.tasks) {
      CHECK(task.needed > 0);
      needed += task.needed;
    }
    CHECK(needed == Approx(static_cast<double>(together.rows[row].total.needed)));
  }
}

TEST_CASE("a trace that was cut off within a task is replayed and joined to its last step") {
  MemoryTrace trace = five_tasks();
  trace.tasks_.pop_back();  // as --allow-partial finds it: steps without a record
  ReplayOptions options{parse_policies("fixed,ewma"), {384 * 100}};
  const ReplayResult apart = replay(trace, &trace, options);
  CHECK(apart.rows[0].account.tasks.size() == 5);
  CHECK(apart.rows[0].account.tasks[4].needed > 0);
  const JoinedTrace joined(trace, 2);
  CHECK(joined.tasks().size() == 5);
  CHECK(joined.tasks()[4].step_count == 10);
}
