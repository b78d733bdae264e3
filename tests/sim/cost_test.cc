// The cost model against times worked out by hand.
#include "sim/cost.h"

#include <catch2/catch.hpp>

#include "models/error.h"
#include "sim/executed.h"
#include "sim/replay.h"
#include "tests/sim/memory_trace.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// A bundle of memory_header's models: 3 rows of 32 f32.
constexpr double kBundle = 384, kRow = 128;

NodeProfile tiered_node() {
  NodeProfile node;
  node.name = "test";
  node.tiers[0] = {10'000, 1000.0};
  node.tiers[1] = {20'000, 100.0};
  node.migration = {500.0, 0.25};
  return node;
}

Cluster cluster_of(size_t node_count) {
  Cluster cluster;
  cluster.name = "test";
  cluster.nodes.assign(node_count, tiered_node());
  cluster.network = {1280.0, 0.5};  // 0.6 s for one vector of 128 bytes
  return cluster;
}

TraceHeader one_rank() { return memory_header(2, 16, {{0, 2, 0, 16}}); }
TraceHeader two_ranks() { return memory_header(2, 16, {{0, 2, 0, 8}, {0, 2, 8, 8}}); }
TraceHeader two_stages() { return memory_header(2, 16, {{0, 1, 0, 16}, {1, 1, 0, 16}}); }

RecordingConfig config_of(const TraceHeader& header, const std::string& json) {
  TraceHeader copy = header;
  copy.config_json = json;
  return recording_config(copy, "t.h5");
}

}  // namespace

TEST_CASE("a step of one node is dense, hot, cold and moved bytes over their bandwidths") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[2000]})");
  const std::vector<StepCounts> counts{{10, 6, 2}};
  const std::vector<uint64_t> hot{20};
  Cluster cluster = cluster_of(1);
  const double hot_s = 6 * kBundle / 1000, cold_s = 4 * kBundle / 100;
  const double moved_s = 0.25 + 2 * kBundle / 500;
  const CostModel serial(one_rank(), config, cluster, GateReads::predicted);
  CHECK(serial.step_seconds(counts, hot) == Approx(2.0 + hot_s + cold_s + moved_s));
  const std::vector<StepCounts> still{{10, 6, 0}};
  CHECK(serial.step_seconds(still, hot) == Approx(2.0 + hot_s + cold_s));
  cluster.overlap = true;
  const CostModel overlapped(one_rank(), config, cluster, GateReads::predicted);
  CHECK(overlapped.step_seconds(counts, hot) == Approx(2.0 + cold_s + moved_s));
  cluster.overlap = false;
  const CostModel exact(one_rank(), config, cluster, GateReads::exact);
  // Of 32 neurons, 20 gate rows are read in the fast tier and 12 in the slow one.
  CHECK(exact.step_seconds(still, hot) ==
        Approx(2.0 + (6 * 2 * kRow + 20 * kRow) / 1000 + (4 * 2 * kRow + 12 * kRow) / 100));
}

TEST_CASE("over a disk, cold bundles are read while the first rows of the hot ones are computed") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[2000]})");
  const std::vector<uint64_t> hot{20};
  Cluster cluster = cluster_of(1);
  cluster.nodes[0].tiers = {};
  cluster.nodes[0].tiers[1] = {10'000, 1000.0};
  cluster.nodes[0].tiers[2] = {20'000, 100.0};
  REQUIRE(cluster.nodes[0].stages_cold());
  const CostModel exact(one_rank(), config, cluster, GateReads::exact);
  // 32 gate rows stay in memory; 4 cold bundles of two rows come from the disk.
  const double dense_s = (2000 + 32 * kRow) / 1000, reading_s = 4 * 2 * kRow / 100;
  const double after_s = (6 * kRow + 4 * 2 * kRow) / 1000;
  const std::vector<StepCounts> still{{10, 6, 0}};
  CHECK(exact.step_seconds(still, hot) == Approx(dense_s + reading_s + after_s));
  const std::vector<StepCounts> warm{{10, 10, 0}};
  CHECK(exact.step_seconds(warm, hot) == Approx(dense_s + 10 * 2 * kRow / 1000));
  // Two bundles move: in full, or as far as the disk is not done with them meanwhile.
  const RankLoad load{10, 6, 2, 6, 4};
  const double moved_s = 0.25 + 2 * 2 * kRow / 500;
  const PassTime time = exact.pass_time(std::span(&load, 1), hot, 1);
  CHECK(time.seconds == Approx(dense_s + reading_s + after_s + moved_s));
  CHECK(time.hidden == Approx(std::max(dense_s + reading_s + after_s, reading_s + moved_s)));
  // A predictor that finds them needs no gate rows: all three rows are on the disk.
  const CostModel predicted(one_rank(), config, cluster, GateReads::predicted);
  CHECK(predicted.step_seconds(still, hot) ==
        Approx(2.0 + 4 * kBundle / 100 + (6 * kRow + 4 * kBundle) / 1000));
}

TEST_CASE("with three tiers, device and host part of each layer run at once, and the host reads") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[2000]})");
  Cluster cluster = cluster_of(1);
  cluster.nodes[0].tiers[2] = {30'000, 10.0};
  // Of the first layer's 16 neurons the device has 6, of which 3 are needed; of the second's, all.
  RankLoad load;
  load.layers = {{3, 2, 1, 3, 2, 1, 6}, {5, 0, 0, 5, 0, 0, 16}};
  const std::vector<uint64_t> unused{0};
  const auto seconds = [&](GateReads gate, bool overlap, const RankLoad& of) {
    cluster.overlap = overlap;
    const CostModel model(one_rank(), config, cluster, gate);
    return model.pass_time(std::span(&of, 1), unused, 1);
  };
  const double device = (3 * 2 * kRow + 6 * kRow) / 1000, reading = 2 * kRow / 10;
  const double host = 10 * kRow / 100 + reading + (2 * kRow + 2 * kRow) / 100;
  const double second = (5 * 2 * kRow + 16 * kRow) / 1000;
  const double exchange = 2 * (0.25 + 128.0 / 500);  // of the first layer's input and sum
  const double serial = 2.0 + device + host + second + exchange;
  CHECK(seconds(GateReads::exact, false, load).seconds == Approx(serial));
  CHECK(seconds(GateReads::exact, true, load).seconds ==
        Approx(2.0 + std::max(device, host) + second + exchange));
  // A predictor that finds them needs no gate rows, but three rows of each active neuron.
  CHECK(seconds(GateReads::predicted, false, load).seconds ==
        Approx(2.0 + 3 * kBundle / 1000 + std::max(2 * 2 * kRow / 100, kBundle / 10) +
               (2 * kRow + kBundle) / 100 + 5 * kBundle / 1000 + exchange));
  // Whole bundles go to the device, up and down rows come from the disk; the disk is read anyway.
  load.admitted = 2;
  load.host_admitted = 3;
  const double to_device = 0.25 + 2 * kBundle / 500, to_host = 3 * 2 * kRow / 10;
  const PassTime moving = seconds(GateReads::exact, false, load);
  CHECK(moving.seconds == Approx(serial + to_device + to_host));
  CHECK(moving.hidden == Approx(std::max(serial, reading + to_host)));
  load.passed = 1;  // of the two to the device, one is read from the disk on its way
  const PassTime passing = seconds(GateReads::exact, false, load);
  CHECK(passing.seconds == Approx(moving.seconds + 2 * kRow / 10));
  CHECK(passing.hidden == Approx(std::max(serial, reading + to_host + 2 * kRow / 10)));
}

TEST_CASE("with three tiers each has to hold what lies there") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[2320]})");
  Cluster cluster = cluster_of(1);
  CHECK_THROWS_WITH(require_three_tiers(cluster),
                    Catch::Contains("expected all three on every node of cluster 'test'"));
  cluster.nodes[0].tiers[1].memory_bytes = 32 * 128 + 10 * 256;
  cluster.nodes[0].tiers[2] = {32 * 256, 10.0};
  require_three_tiers(cluster);
  const auto fits = [&](uint64_t device, uint64_t host) {
    const CostModel model(one_rank(), config, cluster, GateReads::exact);
    return model.fits(std::vector<uint64_t>{device}, std::vector<uint64_t>{host});
  };
  CHECK(fits(20, 10));
  CHECK_FALSE(fits(21, 10));
  CHECK_FALSE(fits(20, 11));
  const CostModel model(one_rank(), config, cluster, GateReads::exact);
  CHECK(model.host_budget_ranks().room() == std::vector<uint64_t>{0});  // no layer can be staged
  Cluster larger = cluster;
  larger.nodes[0].tiers[1].memory_bytes += 16 * 256;
  const CostModel staging(one_rank(), config, larger, GateReads::exact);
  CHECK(staging.host_budget_ranks().room() == std::vector<uint64_t>{10 * 384});
  cluster.nodes[0].tiers[2].memory_bytes -= 1;
  CHECK_FALSE(fits(20, 10));
}

TEST_CASE("tensor parallel ranks on several nodes wait for the slowest and pay for sums") {
  const RecordingConfig config = config_of(two_ranks(), R"({"dense_bytes":[0,1000]})");
  const std::vector<StepCounts> counts{{5, 5, 0}, {3, 3, 0}};
  const std::vector<uint64_t> hot{16, 16};
  const double first = 5 * kBundle / 1000, second = 1.0 + 3 * kBundle / 1000;
  const CostModel together(two_ranks(), config, cluster_of(1), GateReads::predicted);
  CHECK(together.step_seconds(counts, hot) == Approx(first + second));
  const CostModel apart(two_ranks(), config, cluster_of(2), GateReads::predicted);
  CHECK(apart.step_seconds(counts, hot) == Approx(second + 2 * 2 * 0.6));
  const CostModel idle_node(two_ranks(), config, cluster_of(3), GateReads::predicted);
  CHECK(idle_node.step_seconds(counts, hot) == Approx(second + 2 * 2 * 0.6));
}

TEST_CASE("stages add up, and pay for the transfer between nodes") {
  const RecordingConfig config =
      config_of(two_stages(), R"({"dense_bytes":[0,1000],"rank_stage":[0,1]})");
  const std::vector<StepCounts> counts{{5, 5, 0}, {3, 3, 0}};
  const std::vector<uint64_t> hot{16, 16};
  const double sum = 5 * kBundle / 1000 + 1.0 + 3 * kBundle / 1000;
  const CostModel one(two_stages(), config, cluster_of(1), GateReads::predicted);
  CHECK(one.step_seconds(counts, hot) == Approx(sum));
  const CostModel two(two_stages(), config, cluster_of(2), GateReads::predicted);
  CHECK(two.step_seconds(counts, hot) == Approx(sum + 0.6));
}

TEST_CASE("what does not fit is found in both tiers") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[2320]})");
  const CostModel model(one_rank(), config, cluster_of(1), GateReads::predicted);
  const auto fits = [&](uint64_t hot) { return model.fits(std::vector<uint64_t>{hot}); };
  CHECK(fits(20));  // 2320 + 20 * 384 = 10000 exactly
  CHECK_FALSE(fits(21));
  CHECK(fits(0));
  Cluster small = cluster_of(1);
  small.nodes[0].tiers[1].memory_bytes = 31 * 384;
  const CostModel tight(one_rank(), config, small, GateReads::predicted);
  CHECK_FALSE(tight.fits(std::vector<uint64_t>{0}));
  CHECK(tight.fits(std::vector<uint64_t>{1}));
  small.nodes[0].tiers[1] = {};  // one tier holds all
  const CostModel single(one_rank(), config, small, GateReads::predicted);
  CHECK_FALSE(single.fits(std::vector<uint64_t>{0}));
}

TEST_CASE("percentiles are of the nearest rank") {
  CHECK_FALSE(distribution_of({}).has_value());
  const Distribution one = distribution_of({7.0}).value();
  CHECK(one.mean == 7.0);
  CHECK(one.p99 == 7.0);
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  const Distribution many = distribution_of(values).value();
  CHECK(many.mean == 50.5);
  CHECK(many.p50 == 50.0);
  CHECK(many.p95 == 95.0);
  CHECK(many.p99 == 99.0);
}

TEST_CASE("only decode steps have a time per token, and prompts a time to the first") {
  const MemoryTrace trace = random_trace(1, one_rank(), 10, 0);  // three steps of prefill
  const CostModel model(one_rank(), config_of(one_rank(), ""), cluster_of(1), GateReads::predicted);
  ReplayOptions options{parse_policies("fixed"), {384 * 8}};
  options.cost = &model;
  const ReplayStats row = replay(trace, &trace, options).rows[0];
  CHECK(row.account.token_count == 7);
  CHECK(row.account.tpot_ms.count() == 7);
  CHECK(row.account.tasks[0].decode_tokens == 7);
  CHECK(row.account.ttft_ms[0] > 0);
}

TEST_CASE("what a tier computes takes its time where that is longer than reading") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[2000]})");
  Cluster cluster = cluster_of(1);
  const std::vector<uint64_t> hot{20};
  // Ten positions share the bundles that they read: 10 of them, 6 hot, worked on 40 and 30 times.
  const std::vector<RankLoad> load{{10, 6, 0, 40, 30}};
  const CostModel reading(one_rank(), config, cluster, GateReads::predicted);
  const double hot_s = 6 * kBundle / 1000, cold_s = 4 * kBundle / 100;
  CHECK(reading.pass_time(load, hot, 10).seconds == Approx(2.0 + hot_s + cold_s));
  cluster.nodes[0].tiers[1].operations_per_second = 100.0;  // 192 for each neuron and position
  const CostModel limited(one_rank(), config, cluster, GateReads::predicted);
  CHECK(limited.pass_time(load, hot, 10).seconds == Approx(2.0 + hot_s + 30 * 192 / 100.0));
  cluster.nodes[0].tiers[0].operations_per_second = 1000.0;  // dense: half an operation a byte
  const CostModel both(one_rank(), config, cluster, GateReads::predicted);
  CHECK(both.pass_time(load, hot, 10).seconds ==
        Approx(2000 * 0.5 * 10 / 1000 + 40 * 192 / 1000.0 + 30 * 192 / 100.0));
}

TEST_CASE("migrations that are hidden cost what the node's own work does not cover") {
  const RecordingConfig config = config_of(one_rank(), R"({"dense_bytes":[0]})");
  const CostModel model(one_rank(), config, cluster_of(1), GateReads::predicted);
  const std::vector<uint64_t> hot{20};
  const double work = 4 * kBundle / 100;
  const PassTime few = model.pass_time(std::vector<RankLoad>{{4, 0, 1, 0, 4}}, hot, 1);
  CHECK(few.seconds == Approx(work + 0.25 + kBundle / 500));
  CHECK(few.hidden == Approx(work));
  const PassTime many = model.pass_time(std::vector<RankLoad>{{4, 0, 90, 0, 4}}, hot, 1);
  CHECK(many.hidden == Approx(0.25 + 90 * kBundle / 500));
}

TEST_CASE("ranks are on the nodes that the recording run had them on, if there are as many") {
  const std::string lists = R"("dense_bytes":[0,0],"rank_node":[2,0],"node_count":)";
  const auto nodes = [&](const std::string& count, uint32_t cluster_nodes) {
    const RecordingConfig config = config_of(two_ranks(), "{" + lists + count + "}");
    const CostModel model(two_ranks(), config, cluster_of(cluster_nodes), GateReads::predicted);
    return model.budget_ranks().nodes;
  };
  CHECK(nodes("3", 3) == std::vector<uint32_t>{2, 0});
  CHECK(nodes("3", 2) == std::vector<uint32_t>{0, 1});
  CHECK(nodes("3", 1) == std::vector<uint32_t>{0, 0});
  for (const char* bad : {"2", "0", "-1", "\"3\"", "5000", "1e9"}) {
    INFO(bad);
    CHECK_THROWS_WITH(nodes(bad, 3), Catch::Contains("config_json."));
  }
}

TEST_CASE("a budget of the cluster is what its fast tiers have left, and nodes may be unequal") {
  const RecordingConfig config = config_of(two_ranks(), R"({"dense_bytes":[0,9000]})");
  Cluster cluster = cluster_of(2);
  const CostModel model(two_ranks(), config, cluster, GateReads::predicted);
  CHECK(model.budget_ranks().room() == std::vector<uint64_t>{16 * 384, 1000});
  CHECK(model.budget_ranks().over_ranks(std::vector<uint64_t>{500, 700}) ==
        std::vector<uint64_t>{500, 700});
  const CostModel one(two_ranks(), config, cluster_of(1), GateReads::predicted);
  CHECK(one.budget_ranks().room() == std::vector<uint64_t>{500, 500});
  CHECK_THROWS_WITH(at_border(cluster, Tier::host), Catch::Contains("--tier host"));
  CHECK_THROWS_WITH(at_border(cluster, Tier::disk), Catch::Contains("--tier disk"));
  for (NodeProfile& node : cluster.nodes) node.tiers[2] = {1 << 20, 10.0};
  const Cluster border = at_border(cluster, Tier::host);
  CHECK(border.nodes[0].fast().bytes_per_second == 100.0);
  CHECK(border.nodes[0].slow().bytes_per_second == 10.0);
}

TEST_CASE("without a configuration, dense bytes follow from the shape and stages from the pools") {
  const RecordingConfig config = config_of(three_rank_header(), "");
  CHECK(config.rank_stage == std::vector<uint32_t>{0, 1, 1});
  CHECK(config.read_bandwidth.empty());
  // Four 32 x 32 matrices in each of 3 layers and a 64 x 32 head, in f32.
  const double whole = 4.0 * (3 * 4 * 32 * 32 + 64 * 32);
  CHECK(config.dense_bytes[0] == static_cast<uint64_t>(whole * 272 / 408));
  CHECK(config.dense_bytes[2] == static_cast<uint64_t>(whole * 56 / 408));
}

TEST_CASE("a configuration that cannot be is an input error that names the trace") {
  for (const char* json :
       {"[1]", "{", "3", R"({"dense_bytes":[1,2]})", R"({"dense_bytes":1})",
        R"({"dense_bytes":[-1]})", R"({"dense_bytes":["x"]})", R"({"dense_bytes":[1e30]})",
        R"({"rank_stage":[1]})", R"({"read_bandwidth":[1e19]})", R"({"read_bandwidth":[null]})"}) {
    INFO(json);
    CHECK_THROWS_WITH(config_of(one_rank(), json), Catch::Contains("t.h5: expected config_json"));
  }
}

TEST_CASE("a machine that reads as fast as it says is predicted exactly") {
  MemoryTrace trace = random_trace(2, two_stages(), 40, 0);
  trace.header_.config_json =
      R"({"dense_bytes":[0,1000],"rank_stage":[0,1],"read_bandwidth":[1e9,2e9]})";
  const RecordingConfig config = recording_config(trace.header(), "t.h5");
  ReplayOptions options{parse_policies("fixed"), {384 * 8}};
  options.keep_steps = true;
  const ReplayResult result = replay(trace, &trace, options);
  for (uint64_t i = 0; i < 40; ++i) {
    const auto bytes = [&](size_t rank) {  // 16 gate rows, and two more rows of each active neuron
      return 128 * 16 + 256 * uint64_t{result.rows[0].steps[i * 2 + rank].needed};
    };
    const uint64_t first = bytes(0), second = (bytes(1) + 1000) / 2;
    trace.times_[0][i] = {first, 50, second + 50};  // waits while the second stage computes
    trace.times_[1][i] = {second, 100, first};
  }
  std::string reason;
  const ExecutedComparison comparison = compare_executed(trace, config, reason).value();
  CHECK(comparison.step_count == 37);
  CHECK(comparison.measured_overhead_ms == Approx(100e-6));
  CHECK(comparison.predicted_over_executed == Approx(1.0).epsilon(1e-3));
  CHECK(comparison.compute_ratio == Approx(1.0).epsilon(1e-3));
  CHECK(comparison.executed_ms.p95 == Approx(comparison.predicted_ms.p95).epsilon(1e-3));
}

TEST_CASE("a trace that cannot be compared says why") {
  MemoryTrace trace = random_trace(2, one_rank(), 10, 0);
  std::string reason;
  CHECK_FALSE(compare_executed(trace, config_of(one_rank(), ""), reason).has_value());
  CHECK_THAT(reason, Catch::Contains("no read bandwidth"));
  const RecordingConfig config = config_of(one_rank(), R"({"read_bandwidth":[1e9]})");
  CHECK_FALSE(compare_executed(trace, config, reason).has_value());
  CHECK_THAT(reason, Catch::Contains("no measured times"));
  MemoryTrace three_tiers = trace;
  three_tiers.header_.config_json = R"({"ffn_tier":"device,host,disk"})";
  CHECK_FALSE(compare_executed(three_tiers, config, reason).has_value());
  CHECK_THAT(reason, Catch::Contains("the FFN was in three tiers"));
  CHECK_FALSE(executed_in_tiers(three_tiers, config, "t.h5").has_value());  // nor a policy
  for (auto& times : three_tiers.times_[0]) times = {3'000'000, 1'000'000, 0, 1'000'000};
  three_tiers.header_.config_json =
      R"({"ffn_tier":"device,host,disk","hot_policy":"p","hot_budgets":[7,9],"migration_bytes":3})";
  const ExecutedInTiers executed = executed_in_tiers(three_tiers, config, "t.h5").value();
  CHECK(executed.policy == "p");
  CHECK(executed.device_bytes == 7);
  CHECK(executed.host_bytes == 9);
  CHECK(executed.migration_bytes == 3);
  CHECK(executed.step_ms.mean == Approx(5.0));
  const std::string whole = three_tiers.header_.config_json;
  three_tiers.header_.config_json.insert(1, R"("cut":{"tasks":"1..2"},)");
  CHECK_FALSE(executed_in_tiers(three_tiers, config, "t.h5").has_value());
  three_tiers.header_.config_json = whole;
  three_tiers.header_.activation_rule = "abs(act)>p90";
  CHECK_FALSE(executed_in_tiers(three_tiers, config, "t.h5").has_value());
  three_tiers.header_.activation_rule = "";
  three_tiers.header_.config_json =
      R"({"ffn_tier":"device,host,disk","hot_policy":"p","hot_budgets":[7]})";
  CHECK_THROWS_WITH(executed_in_tiers(three_tiers, config, "t.h5"),
                    Catch::Contains("t.h5: expected config_json to name a policy"));
  const RecordingConfig zero = config_of(one_rank(), R"({"read_bandwidth":[0]})");
  CHECK_FALSE(compare_executed(trace, zero, reason).has_value());
  CHECK_THAT(reason, Catch::Contains("bandwidth of zero"));
  for (StepInfo& step : trace.steps_) step.phase = Phase::prefill;
  CHECK_FALSE(compare_executed(trace, config, reason).has_value());
  CHECK_THAT(reason, Catch::Contains("no decode step"));
}
