// Replay against drivers that are stepped by hand, for any split, thread count and length.
#include "sim/replay.h"

#include <bit>
#include <catch2/catch.hpp>

#include "models/error.h"
#include "tests/sim/memory_trace.h"
#include "traces/profile.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

ReplayOptions options_of(const std::string& policies, std::vector<HotBudget> budgets) {
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

TEST_CASE("with two hot sets a replay counts what two replays count, and splits what is needed") {
  MemoryTrace trace = random_trace(7, three_rank_header(), 120, 15);
  trace.cut_into_tasks(24, 6);
  const Pools pools = GENERATE(Pools::rank, Pools::layer, Pools::model);
  const uint32_t group = GENERATE(1u, 4u);
  auto options = options_of("ewma:halflife=8,lru,oracle-static", {384 * 40, 384 * 120});
  options.pools = pools;
  options.group = group;
  options.warmup_steps = 5;
  const ReplayResult device = replay(trace, &trace, options);
  std::swap(options.budgets.front(), options.budgets.back());
  const ReplayResult host = replay(trace, &trace, options);
  std::swap(options.budgets.front(), options.budgets.back());
  options.host_budgets = {384 * 120, 384 * 40};
  options.thread_count = 2;
  const ReplayResult both = replay(trace, &trace, options);
  check_equal(device, both);
  REQUIRE(both.rows.size() == host.rows.size());
  for (size_t i = 0; i < both.rows.size(); ++i) {
    const ReplayStats& row = both.rows[i];
    REQUIRE(row.host.has_value());
    CHECK_FALSE(device.rows[i].host.has_value());
    CHECK(row.host->budget_bytes == host.rows[i].budget_bytes);
    CHECK(row.host->total == host.rows[i].total);
    CHECK(row.host->by_pool == host.rows[i].by_pool);
    CHECK(row.host->hot_max == host.rows[i].hot_max);
    const TierNeeds& needs = row.host->needs;
    CHECK(needs.device == row.total.hits);
    CHECK(needs.device + needs.host + needs.disk == row.total.needed);
    CHECK(needs.device + needs.host >= row.host->total.hits);
  }
}

TEST_CASE("what goes to the device without being hot on the host is counted as passing it") {
  const MemoryTrace trace = random_trace(8, three_rank_header(), 60, 15);
  auto options = options_of("ewma:halflife=8,lru", {384 * 60});
  options.warmup_steps = 7;
  const auto passed_with = [&](const HotBudget& host) {
    options.host_budgets = {host};
    return replay(trace, &trace, options);
  };
  const ReplayResult some = passed_with(384 * 90);
  for (const ReplayStats& row : some.rows) {
    uint64_t expected = 0;
    for (const NeuronPool& pool : trace.header().pools) {
      const PoolSteps steps = trace.cut_of(pool);
      const ActivationProfile known = steps.profile();
      const auto driver = [&](uint64_t bytes) {
        return std::make_unique<PolicyDriver>(
            row.policy, PolicyContext{pool, &known, nullptr, bundles_of_pool(bytes, 384, pool, 408),
                                      bundles_of_pool(384 * 40, 384, pool, 408)});
      };
      const auto device = driver(384 * 60), host = driver(384 * 90);
      for (uint64_t step = 0; step < 60; ++step) {
        const auto words = device->hot_neurons();
        const std::vector<uint64_t> before(words.begin(), words.end());
        device->step(steps.step(step));
        host->step(steps.step(step));
        for (size_t w = 0; w < before.size() && step >= 7; ++w) {
          const uint64_t arrived = device->hot_neurons()[w] & ~before[w];
          expected += static_cast<uint64_t>(std::popcount(arrived & ~host->hot_neurons()[w]));
        }
      }
    }
    CHECK(row.host->needs.passed == expected);
    CHECK(expected < row.total.admitted);
  }
  const ReplayResult nothing = passed_with(0), all = passed_with(384 * 408);
  CHECK(nothing.rows[1].host->needs.passed == nothing.rows[1].total.admitted);
  CHECK(nothing.rows[1].total.admitted > 0);
  CHECK(all.rows[1].host->needs.passed == 0);
}

TEST_CASE("a step in three tiers takes the time of what each layer needs from each of them") {
  // One rank, two layers of 4 neurons; the policy keeps what the profile says, the most first.
  const TraceHeader header = memory_header(2, 4, {{0, 2, 0, 4}});
  PoolSteps steps{{0, 2, 0, 4}, 4, std::vector<uint64_t>(8)};
  for (uint64_t step = 0; step < 4; ++step) {
    steps.words[2 * step] = 0b0111;      // neurons 0, 1 and 2 of the first layer
    steps.words[2 * step + 1] = 0b0001;  // and 0 of the second
  }
  steps.words[0] = 0b0011;
  const MemoryTrace trace(header, steps);
  Cluster cluster;
  cluster.nodes.resize(1);
  cluster.nodes[0].tiers = {TierProfile{1 << 20, 1000.0}, {1 << 20, 100.0}, {1 << 20, 10.0}};
  cluster.nodes[0].migration = {1000.0, 0.0};
  const RecordingConfig config{{}, {500}, {0}};
  const CostModel cost(header, config, cluster, GateReads::exact);
  ReplayOptions options = options_of("fixed-topk", {384 * 2});
  options.host_budgets = {384 * 3};
  options.cost = &cost;
  const ReplayStats row = replay(trace, &trace, options).rows.at(0);
  // Fired 4 times: 0 and 1 of the first layer and 0 of the second; 3 times: 2 of the first.
  CHECK(row.host->needs == TierNeeds{4 + 4, 4, 3});
  const double row_s = 128.0;
  // The last step: first layer two on the device, 2 from the disk; second one from host memory.
  const double first = (2 * 2 + 2) * row_s / 1000 + 2 * row_s / 100 + 2 * row_s / 10 +
                       2 * row_s / 100 + 2 * 128 / 1000.0;
  const double second = 4 * row_s / 100 + row_s / 100 + row_s / 100 + 2 * 128 / 1000.0;
  CHECK(row.account.token_count == 1);
  CHECK(row.account.decode_ms == Approx(1e3 * (0.5 + first + second)));
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

TEST_CASE("warm-up steps run but are not counted") {
  const MemoryTrace trace = random_trace(11, three_rank_header(), 120, 15);
  const MemoryTrace profile = random_trace(12, three_rank_header(), 50, 0);
  auto options = options_of("ewma:halflife=4,fixed", {384 * 90});
  const ReplayResult all = replay(trace, &profile, options);
  options.warmup_steps = 50;
  const ReplayResult late = replay(trace, &profile, options);
  for (size_t row = 0; row < all.rows.size(); ++row) {
    HotSetStats counted;
    for (uint64_t step = 50; step < 120; ++step) {
      counted.needed += all.rows[row].counts(step).needed;
      counted.hits += all.rows[row].counts(step).hits;
      counted.admitted += all.rows[row].counts(step).admitted;
    }
    const HotSetStats& total = late.rows[row].total;
    CHECK(total.step_count == 70);
    CHECK(total.needed == counted.needed);
    CHECK(total.hits == counted.hits);
    CHECK(total.admitted == counted.admitted);
    CHECK(late.rows[row].account.tasks[0].needed == static_cast<double>(counted.needed));
  }
}

TEST_CASE("pools by layer and one pool for all are what drivers on these pools count") {
  const MemoryTrace trace = random_trace(13, three_rank_header(), 60, 15);
  const MemoryTrace profile = random_trace(14, three_rank_header(), 50, 0);
  const auto by_hand = [&](const NeuronPool& pool) {
    const PoolSteps steps = trace.cut_of(pool);
    const ActivationProfile known = profile.cut_of(pool).profile();
    PolicyDriver driver(parse_policies("ewma:halflife=8")[0],
                        {pool, &known, nullptr, bundles_of_pool(384 * 130, 384, pool, 408),
                         bundles_of_pool(384 * 40, 384, pool, 408)});
    for (uint64_t step = 0; step < 60; ++step) driver.step(steps.step(step));
    return driver.stats();
  };
  auto options = options_of("ewma:halflife=8", {384 * 130});
  options.pools = Pools::model;
  const ReplayResult model = replay(trace, &profile, options);
  CHECK(model.rows[0].by_pool == std::vector<HotSetStats>{by_hand({0, 3, 0, 136})});
  CHECK(model.rows[0].hot_max.size() == 1);
  options.pools = Pools::layer;
  const ReplayResult layers = replay(trace, &profile, options);
  REQUIRE(layers.pool_count == 4);
  CHECK(layers.rows[0].by_pool[1] == by_hand({1, 1, 0, 136}));
  CHECK(layers.rows[0].by_pool[3] == by_hand({2, 1, 80, 56}));
  CHECK(layers.rows[0].hot_max.size() == 3);
}

TEST_CASE("groups move as one and are counted by neuron") {
  const TraceHeader header = memory_header(2, 70, {{0, 2, 0, 70}});
  const MemoryTrace trace = random_trace(15, header, 40, 0);
  for (const uint32_t group : {1u, 4u, 64u, 128u}) {
    auto options = options_of("fixed,ewma", {384 * 100});
    options.group = group;
    const ReplayResult result = replay(trace, &trace, options);
    for (const ReplayStats& row : result.rows) {
      INFO(row.policy.label() << " in groups of " << group);
      uint64_t needed = 0;
      for (uint64_t step = 0; step < 40; ++step) {
        for (uint32_t layer = 0; layer < 2; ++layer) {
          needed += trace.whole_.step(step).layer(layer).count();
        }
      }
      CHECK(row.total.needed == needed);
      CHECK(row.total.hits <= needed);
      CHECK(row.total.hot_count_peak <= 100);
    }
    // The fixed set by hand: groups by their summed counts, ties by index, as many as fit.
    const ActivationProfile counts = grouped(trace.whole_.profile(), group);
    const auto order = ranked_by_count(counts.counts);
    std::vector<uint8_t> hot(counts.counts.size());
    for (size_t i = 0; i < std::min<size_t>(100 / group, order.size()); ++i) hot[order[i]] = 1;
    uint64_t hits = 0;
    for (uint64_t step = 0; step < 40; ++step) {
      for_each_bit(header.pools[0], trace.whole_.step(step).words, [&](uint32_t flat) {
        hits += hot[flat / 70 * counts.pool.neuron_count + flat % 70 / group];
      });
    }
    CHECK(result.rows[0].total.hits == hits);
  }
}

TEST_CASE("an unequal budget gives each rank its own") {
  const MemoryTrace trace = random_trace(16, three_rank_header(), 20, 0);
  auto options = options_of("fixed", {HotBudget(std::vector<uint64_t>{384 * 10, 384 * 20, 0})});
  const ReplayResult result = replay(trace, &trace, options);
  CHECK(result.rows[0].budget_bytes == 384 * 30);
  CHECK(result.rows[0].hot_max == std::vector<uint64_t>{10, 20, 0});
  CHECK(result.rows[0].total.loaded == 30);
}

TEST_CASE("a prompt's pass reads the union of its positions, and tasks share the sums") {
  MemoryTrace trace = random_trace(17, memory_header(1, 64, {{0, 1, 0, 64}}), 40, 0);
  trace.cut_into_tasks(10, 4);
  Cluster cluster;
  cluster.name = "one";
  NodeProfile node;
  node.tiers[0] = {1 << 30, 384e3};  // a bundle in a microsecond
  node.tiers[1] = {1 << 30, 38400};  // in ten
  node.migration = {1e9, 0};
  cluster.nodes = {node};
  RecordingConfig config;
  config.dense_bytes = {0};
  config.rank_stage = {0};
  const CostModel cost(trace.header(), config, cluster, GateReads::predicted);
  auto options = options_of("fixed", {384 * 20});
  options.cost = &cost;
  const ReplayStats row = replay(trace, &trace, options).rows[0];
  const auto order = ranked_by_count(trace.whole_.profile().counts);
  uint64_t hot = 0;
  for (size_t i = 0; i < 20; ++i) hot |= uint64_t{1} << order[i];
  const auto milliseconds = [&](uint64_t active) {
    return std::popcount(active & hot) * 1.0 + std::popcount(active & ~hot) * 10.0;
  };
  double decode_ms = 0;
  for (uint32_t task = 0; task < 4; ++task) {
    uint64_t joined = 0, needed = 0;
    double of_task = 0;
    for (uint32_t i = 0; i < 10; ++i) {
      const uint64_t word = trace.whole_.step(task * 10 + i).words[0];
      needed += static_cast<uint64_t>(std::popcount(word));
      if (i < 4) joined |= word;
      if (i >= 4) of_task += milliseconds(word);
    }
    decode_ms += of_task;
    CHECK(row.account.ttft_ms[task] == Approx(milliseconds(joined)));
    CHECK(row.account.tasks[task].decode_ms == Approx(of_task));
    CHECK(row.account.tasks[task].decode_tokens == 6);
    CHECK(row.account.tasks[task].needed == static_cast<double>(needed));
  }
  CHECK(row.account.decode_ms == Approx(decode_ms));
  CHECK(row.account.token_count == 24);
}

TEST_CASE("rows that are not wanted are left alone, and parts make the whole") {
  const MemoryTrace trace = random_trace(18, three_rank_header(), 50, 10);
  auto options = options_of("ewma,fixed,oracle-static", {384 * 30, 384 * 60, 384 * 200});
  const ReplayResult whole = replay(trace, &trace, options);
  for (size_t part = 0; part < 2; ++part) {
    std::vector<size_t> done;
    options.wanted = [&](size_t row) { return row % 2 == part; };
    options.rows_done = [&](std::span<const size_t> rows, const std::vector<ReplayStats>& all) {
      done.insert(done.end(), rows.begin(), rows.end());
      for (const size_t row : rows) CHECK(all[row].total == whole.rows[row].total);
    };
    const ReplayResult result = replay(trace, &trace, options);
    CHECK(done.size() == (part == 0 ? 5 : 4));
    for (size_t row = 0; row < result.rows.size(); ++row) {
      CHECK(result.rows[row].budget_bytes == whole.rows[row].budget_bytes);
      if (row % 2 != part) {
        CHECK(result.rows[row].total == HotSetStats());
      } else {
        CHECK(result.rows[row].account == whole.rows[row].account);
      }
    }
  }
}

TEST_CASE("the hot threshold of the median task is kept step by step") {
  MemoryTrace trace = random_trace(19, three_rank_header(), 60, 10);
  trace.cut_into_tasks(12, 4);
  const ReplayResult result = replay(trace, &trace, options_of("ewma,oracle-static", {384 * 90}));
  CHECK(result.rows[0].watched_threshold.size() == 12);
  CHECK(result.rows[0].watched_threshold[11].has_value());
  CHECK_FALSE(result.rows[1].watched_threshold[0].has_value());
  double share = 0;
  for (const double layer : result.rows[0].hot_by_layer) share += layer / 3;
  const double mean = static_cast<double>(result.rows[0].total.hot_count_sum) / 60 / 408;
  CHECK(share == Approx(mean));
}

TEST_CASE("an oracle that would hold more than it may is refused, and only where it is run") {
  const MemoryTrace trace = random_trace(20, three_rank_header(), 90, 0);
  auto options = options_of("fixed,belady", {384 * 90});
  options.memory_bytes_max = 1;
  CHECK_THROWS_WITH(replay(trace, &trace, options), Catch::Contains("leave 'belady' out"));
  options.wanted = [](size_t row) { return row == 0; };
  CHECK(replay(trace, &trace, options).rows[0].total.step_count == 90);
}
