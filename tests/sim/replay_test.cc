// Replay against drivers that are stepped by hand, for any split, thread count and length.
#include "sim/replay.h"

#include <catch2/catch.hpp>

#include "models/error.h"
#include "tests/sim/memory_trace.h"
#include "traces/profile.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

ReplayOptions options_of(const std::string& policies, std::vector<ReplayBudget> budgets) {
  ReplayOptions options;
  options.keep_steps = true;
  options.policies = parse_policies(policies);
  options.budgets = std::move(budgets);
  options.migration_bytes = 384 * 40;
  return options;
}

void check_equal(const ReplayResult& a, const ReplayResult& b) {
  REQUIRE(a.rows.size() == b.rows.size());
  for (size_t i = 0; i < a.rows.size(); ++i) {
    CHECK(a.rows[i].total == b.rows[i].total);
    CHECK(a.rows[i].by_pool == b.rows[i].by_pool);
    CHECK(a.rows[i].steps.size() == b.rows[i].steps.size());
    for (size_t s = 0; s < a.rows[i].steps.size(); ++s) {
      REQUIRE(a.rows[i].steps[s].hits == b.rows[i].steps[s].hits);
      REQUIRE(a.rows[i].steps[s].admitted == b.rows[i].steps[s].admitted);
    }
  }
}

}  // namespace

TEST_CASE("replay counts what a driver per pool counts") {
  const MemoryTrace trace = random_trace(1, three_rank_header(), 90, 15);
  const TraceHeader one_rank = memory_header(3, 136, {{0, 3, 0, 136}});
  const MemoryTrace profile = random_trace(2, one_rank, 50, 0);  // pools differ from the trace's
  const auto options = options_of("ewma:halflife=8,fixed,oracle-static", {384 * 40, 384 * 200});
  const ReplayResult result = replay(trace, &profile, options);
  REQUIRE(result.rows.size() == 6);
  CHECK(result.pool_count == 3);
  size_t i = 0;
  for (const PolicySpec& policy : options.policies) {
    for (const uint64_t budget : {uint64_t{384 * 40}, uint64_t{384 * 200}}) {
      const ReplayStats& row = result.rows[i++];
      CHECK(row.policy.label() == policy.label());
      CHECK(row.budget_bytes == budget);
      HotSetStats total;
      for (uint32_t p = 0; p < 3; ++p) {
        const NeuronPool& pool = trace.header().pools[p];
        const PoolSteps steps = trace.cut_of(pool);
        const ActivationProfile known = profile.cut_of(pool).profile();
        const ActivationProfile future = steps.profile();
        PolicyDriver driver(policy, {pool, &known, &future, bundles_of_pool(budget, 384, pool, 408),
                                     bundles_of_pool(384 * 40, 384, pool, 408)});
        for (uint64_t s = 0; s < 90; ++s) {
          const StepCounts counts = driver.step(steps.step(s));
          CHECK(counts.hits == row.steps[s * 3 + p].hits);
          CHECK(counts.needed == row.steps[s * 3 + p].needed);
          CHECK(counts.admitted == row.steps[s * 3 + p].admitted);
        }
        CHECK(driver.stats() == row.by_pool[p]);
        add_pool(total, driver.stats());
      }
      CHECK(total == row.total);
    }
  }
}

TEST_CASE("replay is the same for any number of threads and any length of trace") {
  const TraceHeader header = memory_header(1, 24, {{0, 1, 0, 16}, {0, 1, 16, 8}});
  const MemoryTrace trace = random_trace(3, header, 9000, 100);  // more than two blocks
  auto options = options_of("ewma,fixed,oracle-static", {384 * 6, 384 * 12, 384 * 24});
  std::vector<uint64_t> progress;
  options.progress = [&](uint64_t done, uint64_t total) {
    progress.push_back(done);
    CHECK(total % 9000 == 0);
  };
  const ReplayResult one = replay(trace, &trace, options);
  CHECK(progress.size() % 3 == 0);  // blocks of each pass over the trace
  CHECK(progress.back() % 9000 == 0);
  for (const uint32_t thread_count : {2u, 3u, 16u}) {
    options.thread_count = thread_count;
    check_equal(one, replay(trace, &trace, options));
  }
  for (const ReplayStats& row : one.rows) {
    uint64_t needed = 0, hits = 0, admitted = 0;
    for (uint64_t s = 0; s < one.step_count; ++s) {
      needed += row.counts(s).needed;
      hits += row.counts(s).hits;
      admitted += row.counts(s).admitted;
    }
    CHECK(needed == row.total.needed);
    CHECK(hits == row.total.hits);
    CHECK(admitted == row.total.admitted);
    CHECK(row.total.step_count == 9000);
    if (row.budget_bytes == 384 * 24) CHECK(row.total.hits == row.total.needed);
  }
}

TEST_CASE("a static oracle is the best static set, and dynamic ones may beat it under drift") {
  const MemoryTrace trace = random_trace(4, three_rank_header(), 400, 40);
  const MemoryTrace profile = random_trace(5, three_rank_header(), 100, 0);
  const ReplayResult result =
      replay(trace, &profile, options_of("fixed,oracle-static", {384 * 100, 384 * 300}));
  CHECK(result.rows[0].total.hits <= result.rows[2].total.hits);
  CHECK(result.rows[1].total.hits <= result.rows[3].total.hits);
}

TEST_CASE("thresholds are recorded over the steps") {
  const MemoryTrace trace = random_trace(6, three_rank_header(), 200, 20);
  const ReplayResult result =
      replay(trace, &trace, options_of("ewma:halflife=8,fixed,oracle-static", {384 * 120}));
  const ThresholdRange dynamic = result.rows[0].threshold.value();
  CHECK(dynamic.lowest < dynamic.highest);
  CHECK(dynamic.lowest <= dynamic.last);
  const ThresholdRange fixed = result.rows[1].threshold.value();
  CHECK(fixed.lowest == fixed.highest);
  CHECK_FALSE(result.rows[2].threshold.has_value());
}

TEST_CASE("empty traces and budgets too small for a pool are replayed") {
  const MemoryTrace empty = random_trace(7, three_rank_header(), 0, 0);
  const MemoryTrace trace = random_trace(8, three_rank_header(), 5, 0);
  for (const ReplayStats& row :
       replay(empty, &trace, options_of("ewma,fixed,oracle-static", {384})).rows) {
    CHECK(row.total.step_count == 0);
  }
  for (const ReplayStats& row :
       replay(trace, &empty, options_of("ewma,fixed,oracle-static", {384})).rows) {
    CHECK(row.total.hits == 0);
    CHECK(row.total.needed > 0);
    CHECK(row.hot_max == std::vector<uint64_t>{0, 0, 0});
  }
}

TEST_CASE("a profile of another model or other weights is refused") {
  const TraceHeader trace = three_rank_header();
  TraceHeader profile = trace;
  const auto check = [&] {
    check_profile(profile, "p.h5", trace.shape, trace.weight_hash, "trace");
  };
  check();
  profile.weight_hash = "f";
  CHECK_THROWS_WITH(check(), Catch::Contains("p.h5: expected a profile of the trace's weights"));
  profile = memory_header(3, 128, {{0, 3, 0, 128}});
  CHECK_THROWS_WITH(check(), Catch::Contains("3 layers of 136 neurons") &&
                                 Catch::Contains("3 layers of 128 neurons"));
}
