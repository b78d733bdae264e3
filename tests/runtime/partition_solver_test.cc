// The solved partition: as fast as the best of all there are, within memory, whole, and the default
// one where all nodes are alike.
#include "runtime/partition_solver.h"

#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "models/error.h"
#include "sim/cost.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

ModelShape small_shape() {
  return {.layer_count = 2,
          .model_dim = 64,
          .ffn_dim = 32,  // 4 groups of 8
          .head_count = 6,
          .kv_head_count = 3,
          .head_dim = 8,
          .vocab_size = 4,
          .context_length = 64,
          .activation = FfnActivation::relu};
}

ModelShape large_shape() {
  return {.layer_count = 8,
          .model_dim = 1024,
          .ffn_dim = 4096,
          .head_count = 16,
          .kv_head_count = 8,
          .head_dim = 64,
          .vocab_size = 1000,
          .context_length = 512,
          .activation = FfnActivation::relu};
}

NodeProfile host_node(const std::string& name, uint64_t memory, double rate) {
  NodeProfile node;
  node.name = name;
  node.tiers[static_cast<int>(Tier::host)] = {memory, rate};
  return node;
}

PartitionProblem problem_of(const ModelShape& shape, std::vector<NodeProfile> nodes,
                            size_t rank_count, LinkProfile network = {1e9, 1e-6}) {
  PartitionProblem problem;
  problem.shape = shape;
  problem.types.attention.assign(shape.layer_count,
                                 {DType::f32, DType::f32, DType::f32, DType::f32});
  problem.cluster.name = "test";
  problem.cluster.nodes = std::move(nodes);
  problem.cluster.network = network;
  problem.rank_nodes = nodes_of_ranks(problem.cluster, rank_count);
  problem.position_max = 64;
  problem.active_share = 0.25;
  return problem;
}

uint64_t whole_bytes(const PartitionProblem& problem) {
  const Partition one = make_partition(problem.shape, DType::f32, {1, 1}, {1.0});
  return forecast(problem, one, {0}).ranks[0].memory_bytes;
}

// Calls visit with every way to give `units` to so many ranks, at least one each.
void for_each_split(uint32_t units, uint32_t ranks,
                    const std::function<void(const std::vector<uint32_t>&)>& visit) {
  std::vector<uint32_t> counts;
  const std::function<void(uint32_t)> follow = [&](uint32_t left) {
    if (counts.size() + 1 == ranks) {
      counts.push_back(left);
      visit(counts);
      counts.pop_back();
      return;
    }
    for (uint32_t count = 1; count < left; ++count) {
      counts.push_back(count);
      follow(left - count);
      counts.pop_back();
    }
  };
  if (units >= ranks) follow(units);
}

// Of all parts of all stages: the parts of one stage after the other.
void for_each_parts(const PartitionProblem& problem, const Layout& layout,
                    const std::function<void(const std::vector<StagePart>&)>& visit) {
  std::vector<std::vector<StagePart>> of_stage;
  const StageUnits units = stage_units(problem.shape, DType::f32, layout.tensor);
  for_each_split(units.head_units, layout.tensor, [&](const auto& heads) {
    for_each_split(units.neuron_units, layout.tensor, [&](const auto& neurons) {
      for_each_split(problem.shape.vocab_size, layout.tensor, [&](const auto& vocab) {
        std::vector<StagePart> parts;
        for (size_t i = 0; i < heads.size(); ++i) parts.push_back({heads[i], neurons[i], vocab[i]});
        of_stage.push_back(parts);
      });
    });
  });
  std::vector<StagePart> parts;
  const std::function<void(uint32_t)> follow = [&](uint32_t stage) {
    if (stage == layout.pipeline) return visit(parts);
    for (const auto& stage_parts : of_stage) {
      parts.insert(parts.end(), stage_parts.begin(), stage_parts.end());
      follow(stage + 1);
      parts.resize(parts.size() - stage_parts.size());
    }
  };
  follow(0);
}

// The least time of all partitions of the ranks in this order.
double best_of_order(const PartitionProblem& problem, const std::vector<uint32_t>& order) {
  double best = std::numeric_limits<double>::infinity();
  const auto count = static_cast<uint32_t>(order.size());
  for (uint32_t tensor = 1; tensor <= count; ++tensor) {
    const Layout layout{count / tensor, tensor};
    if (layout.rank_count() != count) continue;
    if (!refusal_of_layout(problem.shape, DType::f32, layout).empty()) continue;
    for_each_split(problem.shape.layer_count, layout.pipeline, [&](const auto& layers) {
      for_each_parts(problem, layout, [&](const auto& parts) {
        const Partition partition =
            partition_of_parts(problem.shape, DType::f32, layout, layers, parts);
        const PartitionForecast result = forecast(problem, partition, order);
        if (result.fits) best = std::min(best, result.seconds);
      });
    });
  }
  return best;
}

double by_trying_all(const PartitionProblem& problem) {
  double best = std::numeric_limits<double>::infinity();
  const auto count = static_cast<uint32_t>(problem.rank_nodes.size());
  for (uint32_t subset = 1; subset < 1u << count; ++subset) {
    std::vector<uint32_t> order;
    for (uint32_t rank = 0; rank < count; ++rank) {
      if (subset >> rank & 1) order.push_back(rank);
    }
    do {
      best = std::min(best, best_of_order(problem, order));
    } while (std::next_permutation(order.begin(), order.end()));
  }
  return best;
}

TEST_CASE("of few units the solved partition is as fast as the best of all partitions") {
  std::mt19937_64 random(11);
  int fitting = 0, unfit = 0, leaving_out = 0;
  for (int round = 0; round < 60; ++round) {
    std::vector<NodeProfile> nodes;
    const PartitionProblem any = problem_of(small_shape(), {host_node("n", 1, 1)}, 1);
    const uint64_t whole = whole_bytes(any);
    const size_t count = 2 + random() % 2;
    for (size_t i = 0; i < count; ++i) {
      const uint64_t memory = whole * (3 + random() % 12) / 12;
      nodes.push_back(host_node("n", memory, 1e6 * static_cast<double>(1 + random() % 5)));
    }
    nodes[0].tiers[1].bytes_per_second += 5e5;  // never all alike
    const LinkProfile network{1e8, 1e-6 * static_cast<double>(random() % 2000)};
    const PartitionProblem problem = problem_of(small_shape(), nodes, count, network);
    const double best = by_trying_all(problem);
    INFO("round " << round);
    if (best == std::numeric_limits<double>::infinity()) {
      ++unfit;
      CHECK_THROWS_AS(solve_partition(problem), Error);
      continue;
    }
    ++fitting;
    const SolvedPartition solved = solve_partition(problem);
    leaving_out += solved.leaves_out_any() ? 1 : 0;
    CHECK(solved.forecast.fits);
    CHECK(solved.forecast.seconds == Approx(best).epsilon(1e-8));
  }
  CHECK(fitting > 30);
  CHECK(leaving_out > 5);
  CHECK(unfit + fitting == 60);
}

// Every layer, head, neuron and vocabulary row is some rank's, once.
void check_whole(const ModelShape& shape, const Partition& partition) {
  uint32_t layers = 0;
  for (uint32_t stage = 0; stage < partition.layout.pipeline; ++stage) {
    Range heads, neurons, vocab;
    for (uint32_t i = 0; i < partition.layout.tensor; ++i) {
      const RankShare& share = partition.ranks[stage * partition.layout.tensor + i];
      REQUIRE(share.layers.begin == layers);
      REQUIRE(share.kv_heads.begin == heads.end());
      REQUIRE(share.neurons.begin == neurons.end());
      REQUIRE(share.vocab.begin == vocab.end());
      REQUIRE(share.neurons.begin % 8 == 0);
      REQUIRE(std::min({share.kv_heads.count, share.neurons.count, share.vocab.count}) > 0);
      heads = share.kv_heads;
      neurons = share.neurons;
      vocab = share.vocab;
    }
    layers = partition.ranks[stage * partition.layout.tensor].layers.end();
    REQUIRE(heads.end() == shape.kv_head_count);
    REQUIRE(neurons.end() == shape.ffn_dim);
    REQUIRE(vocab.end() == shape.vocab_size);
  }
  REQUIRE(layers == shape.layer_count);
}

TEST_CASE(
    "on any cluster the model is whole, memory holds, and nothing is slower than equal parts") {
  std::mt19937_64 random(12);
  int solved_count = 0, beside_equal = 0, faster = 0;
  for (int round = 0; round < 80; ++round) {
    std::vector<NodeProfile> nodes;
    size_t ranks = 0;
    const uint64_t whole = whole_bytes(problem_of(large_shape(), {host_node("n", 1, 1)}, 1));
    for (size_t i = 0, count = 1 + random() % 4; i < count; ++i) {
      NodeProfile node = host_node("n", whole * (1 + random() % 20) / 16,
                                   1e9 * static_cast<double>(1 + random() % 4));
      node.rank_count = 1 + static_cast<uint32_t>(random() % 2);
      ranks += node.rank_count;
      nodes.push_back(node);
    }
    PartitionProblem problem = problem_of(large_shape(), nodes, ranks);
    if (round % 3 == 0) {
      problem.ffn_on_disk = true;
      problem.hot_share = 0.1;
      for (NodeProfile& node : problem.cluster.nodes) {
        node.tiers[static_cast<int>(Tier::disk)] = {uint64_t{1} << 40, 1e9};
      }
    }
    INFO("round " << round << ", " << ranks << " ranks");
    SolvedPartition solved;
    try {
      solved = solve_partition(problem);
    } catch (const Error&) {
      continue;
    }
    ++solved_count;
    check_whole(problem.shape, solved.partition);
    CHECK(solved.forecast.fits);
    const std::set<uint32_t> different(solved.job_ranks.begin(), solved.job_ranks.end());
    CHECK(different.size() == solved.partition.ranks.size());
    CHECK(solved.ranks.size() == ranks);
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const RankDecision& decision = solved.ranks[rank];
      CHECK(!decision.reason.empty());
      CHECK((decision.layout_rank >= 0) == different.contains(rank));
      if (decision.layout_rank >= 0) CHECK(solved.job_ranks[decision.layout_rank] == rank);
    }
    const SolvedPartition again = solve_partition(problem);
    CHECK(again.job_ranks == solved.job_ranks);
    CHECK(again.forecast.seconds == solved.forecast.seconds);
    const auto count = static_cast<uint32_t>(ranks);
    const Partition equal =
        make_partition(problem.shape, DType::f32, default_layout(problem.shape, DType::f32, count),
                       std::vector<double>(count, 1.0));
    std::vector<uint32_t> in_order(count);
    std::iota(in_order.begin(), in_order.end(), 0u);
    const PartitionForecast of_equal = forecast(problem, equal, in_order);
    if (!of_equal.fits) continue;
    ++beside_equal;
    CHECK(solved.forecast.seconds <= of_equal.seconds * (1 + 1e-9));
    faster += solved.forecast.seconds < of_equal.seconds * 0.95 ? 1 : 0;
  }
  CHECK(solved_count > 40);
  CHECK(beside_equal > 10);
  CHECK(faster > 5);
}

TEST_CASE("alike nodes get exactly the default partition") {
  const uint32_t ranks = GENERATE(2u, 3u, 4u, 6u, 8u);
  const uint64_t whole = whole_bytes(problem_of(large_shape(), {host_node("n", 1, 1)}, 1));
  // A network so slow that fewer ranks would be faster.
  const PartitionProblem problem = problem_of(
      large_shape(), std::vector<NodeProfile>(ranks, host_node("n", whole, 1e9)), ranks, {1e6, 1});
  const SolvedPartition solved = solve_partition(problem);
  const Partition plain =
      make_partition(problem.shape, DType::f32, default_layout(problem.shape, DType::f32, ranks),
                     std::vector<double>(ranks, 1.0));
  CHECK(solved.partition.layout == plain.layout);
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    CHECK(solved.job_ranks[rank] == rank);
    CHECK(solved.partition.ranks[rank].kv_heads == plain.ranks[rank].kv_heads);
    CHECK(solved.partition.ranks[rank].neurons == plain.ranks[rank].neurons);
    CHECK(solved.partition.ranks[rank].vocab == plain.ranks[rank].vocab);
    CHECK(solved.partition.ranks[rank].layers == plain.ranks[rank].layers);
  }
}

TEST_CASE(
    "a slow node gets fewer heads and neurons, a small one what it holds, a tiny one nothing") {
  const uint64_t whole = whole_bytes(problem_of(large_shape(), {host_node("n", 1, 1)}, 1));
  const PartitionProblem problem =
      problem_of(large_shape(),
                 {host_node("fast", whole, 4e9), host_node("slow", whole, 1.5e9),
                  host_node("small", whole / 12, 4e9), host_node("tiny", 1 << 20, 4e9)},
                 4, {10e9, 1e-6});
  const SolvedPartition solved = solve_partition(problem);
  REQUIRE(solved.job_ranks == std::vector<uint32_t>{0, 1, 2});
  const auto& ranks = solved.partition.ranks;
  CHECK(ranks[1].neurons.count < ranks[0].neurons.count);
  CHECK(ranks[1].kv_heads.count < ranks[0].kv_heads.count);
  CHECK(solved.forecast.node_bytes[2] <= whole / 12);
  CHECK(solved.forecast.node_bytes[2] > whole / 12 * 9 / 10);
  CHECK_THAT(solved.ranks[2].reason, Contains("full: holds what fits"));
  CHECK_THAT(solved.ranks[3].reason, Contains("left out: too small: the least share of 4 ranks"));
  CHECK_THAT(solved.ranks[0].reason, Contains("4 GB/s"));
}

TEST_CASE("a node that would slow the others down is left out, with both times") {
  const uint64_t whole = whole_bytes(problem_of(large_shape(), {host_node("n", 1, 1)}, 1));
  const PartitionProblem problem =
      problem_of(large_shape(), {host_node("fast", 2 * whole, 10e9), host_node("far", whole, 1e9)},
                 2, {1e8, 1e-3});
  const SolvedPartition solved = solve_partition(problem);
  CHECK(solved.job_ranks == std::vector<uint32_t>{0});
  CHECK_THAT(solved.ranks[1].reason, Contains("with it a step would take") && Contains("ms"));
}

TEST_CASE("of many different nodes the ones that help are found") {
  const uint64_t whole = whole_bytes(problem_of(large_shape(), {host_node("n", 1, 1)}, 1));
  std::vector<NodeProfile> nodes, fastest;
  for (uint32_t i = 0; i < 23; ++i) {
    const double rate = 1e9 * static_cast<double>(1 + 7 * i % 23);
    nodes.push_back(host_node("n", whole / 4 + i * 4096, rate));
    if (rate > 15e9) fastest.push_back(nodes.back());
  }
  REQUIRE(fastest.size() == 8);
  const auto solve = [](const std::vector<NodeProfile>& from) {
    return solve_partition(problem_of(large_shape(), from, from.size(), {10e9, 1e-6}));
  };
  const SolvedPartition solved = solve(nodes);
  CHECK(solved.forecast.fits);
  CHECK(solved.forecast.seconds <= solve(fastest).forecast.seconds);
  CHECK(solved.job_ranks.size() < nodes.size());
}

TEST_CASE("ranks of a node share its memory and its bandwidth") {
  const uint64_t whole = whole_bytes(problem_of(large_shape(), {host_node("n", 1, 1)}, 1));
  NodeProfile two = host_node("two", whole, 2e9), one = host_node("one", whole, 2e9);
  two.rank_count = 2;
  const PartitionProblem problem = problem_of(large_shape(), {two, one}, 3, {10e9, 1e-6});
  CHECK(problem.rank_nodes == std::vector<uint32_t>{0, 0, 1});
  const SolvedPartition solved = solve_partition(problem);
  uint64_t of_two = 0, of_one = 0;
  for (size_t rank = 0; rank < solved.job_ranks.size(); ++rank) {
    (solved.job_ranks[rank] < 2 ? of_two : of_one) += solved.partition.ranks[rank].neurons.count;
  }
  CHECK(static_cast<double>(of_two) == Approx(static_cast<double>(of_one)).epsilon(0.1));
}

TEST_CASE("a forecast is what the cost model of replay says of the same pass") {
  const auto layout = GENERATE(Layout{1, 4}, Layout{2, 2}, Layout{4, 1});
  const uint32_t positions = GENERATE(1u, 4u);
  const auto hot_share = GENERATE(-1.0, 0.0, 0.4, 1.0);  // below 0: nothing is on disk
  std::vector<NodeProfile> nodes = {host_node("a", uint64_t{1} << 34, 4e9),
                                    host_node("b", uint64_t{1} << 34, 1e9)};
  if (hot_share >= 0) {
    for (NodeProfile& node : nodes) {
      node.tiers[static_cast<int>(Tier::disk)] = {uint64_t{1} << 40, 5e8};
    }
  }
  nodes[1].rank_count = 3;
  nodes[1].tiers[static_cast<int>(Tier::host)].operations_per_second = 1e9;
  PartitionProblem problem = problem_of(large_shape(), nodes, 4, {1e9, 2e-4});
  problem.slot_count = positions;
  problem.ffn_on_disk = hot_share >= 0;
  problem.hot_share = std::max(hot_share, 0.0);
  const Partition partition = make_partition(problem.shape, DType::f32, layout, {4, 1, 2, 1});
  const std::vector<uint32_t> order = {0, 1, 2, 3};
  const PartitionForecast predicted = forecast(problem, partition, order);

  TraceHeader header;
  header.shape = problem.shape;
  header.ffn_types = DType::f32;
  header.pools = partition.pools();
  RecordingConfig config;
  std::vector<RankLoad> loads;
  for (const RankShare& share : partition.ranks) {
    config.dense_bytes.push_back(predicted.ranks[share.rank].dense_bytes);
    config.rank_stage.push_back(share.stage);
    config.rank_node.push_back(problem.rank_nodes[share.rank]);
    const double neurons = static_cast<double>(share.pool().total());
    const double needed = neurons * (1 - std::pow(0.75, positions));
    const double hot = problem.hot_share, work = 0.25 * positions * neurons;
    loads.push_back({needed, hot * needed, 0, hot * work, (1 - hot) * work});
  }
  config.node_count = 2;
  const CostModel model(header, config, problem.cluster, GateReads::exact);
  const std::vector<uint64_t> none(4);
  CHECK(predicted.seconds == Approx(model.pass_time(loads, none, positions).seconds).epsilon(1e-9));
}

NodeProfile device_node(uint64_t device_memory, uint64_t host_memory) {
  NodeProfile node = host_node("n", host_memory, 1e9);
  node.tiers[static_cast<int>(Tier::device)] = {device_memory, 4e9};
  node.tiers[static_cast<int>(Tier::disk)] = {uint64_t{1} << 40, 5e8};
  node.migration = {2e9, 1e-5};
  return node;
}

TEST_CASE("a forecast of device and host is what the cost model of replay says of the same pass") {
  const bool overlap = GENERATE(false, true);
  const double device_share = GENERATE(0.0, 0.25, 1.0);
  const NodeProfile node = device_node(uint64_t{1} << 34, uint64_t{1} << 34);
  PartitionProblem problem = problem_of(large_shape(), {node, node}, 2, {1e9, 2e-4});
  problem.cluster.overlap = overlap;
  problem.device_tier = true;
  problem.device_share = device_share;
  const Partition partition = make_partition(problem.shape, DType::f32, {1, 2}, {2, 1});
  const PartitionForecast predicted = forecast(problem, partition, {0, 1});

  TraceHeader header;
  header.shape = problem.shape;
  header.ffn_types = DType::f32;
  header.pools = partition.pools();
  RecordingConfig config;
  std::vector<RankLoad> loads;
  std::vector<uint64_t> hot;
  for (const RankShare& share : partition.ranks) {
    config.dense_bytes.push_back(predicted.ranks[share.rank].dense_bytes);
    config.rank_stage.push_back(share.stage);
    const double neurons = static_cast<double>(share.pool().total()), needed = neurons * 0.25;
    hot.push_back(static_cast<uint64_t>(device_share * neurons));
    loads.push_back(
        {needed, device_share * needed, 0, device_share * needed, (1 - device_share) * needed});
    CHECK(predicted.host_bytes[share.rank] == share.pool().total() * header.bundle_bytes());
  }
  const CostModel model(header, config, problem.cluster, GateReads::exact);
  CHECK(predicted.seconds == Approx(model.pass_time(loads, hot, 1).seconds).epsilon(1e-9));
  // With --backend cpu one memory has both, and its cores compute both, one after the other.
  problem.host_only = true;
  const PartitionForecast one_memory = forecast(problem, partition, {0, 1});
  CHECK(one_memory.host_bytes == std::vector<uint64_t>{0, 0});
  CHECK(one_memory.node_bytes[0] ==
        predicted.node_bytes[0] + partition.ranks[0].pool().total() * header.bundle_bytes());
  problem.device_tier = problem.cluster.overlap = false;
  CHECK(one_memory.seconds == Approx(forecast(problem, partition, {0, 1}).seconds).epsilon(1e-9));
}

TEST_CASE("with a device tier no host has more neurons than it has room for") {
  const bool on_disk = GENERATE(false, true);
  const auto problem_with = [&](uint64_t small_host) {
    PartitionProblem problem = problem_of(large_shape(),
                                          {device_node(uint64_t{1} << 34, small_host),
                                           device_node(uint64_t{1} << 34, uint64_t{1} << 34)},
                                          2);
    problem.device_tier = true;
    problem.device_share = 0.2;
    problem.ffn_on_disk = on_disk;
    problem.hot_share = on_disk ? 0.5 : 0.0;
    return problem;
  };
  const SolvedPartition even = solve_partition(problem_with(uint64_t{1} << 34));
  const uint64_t half = even.forecast.host_bytes[0];
  CHECK(half > 0);
  const SolvedPartition clamped = solve_partition(problem_with(half / 2));
  CHECK(clamped.forecast.fits);
  CHECK(clamped.job_ranks.size() == 2);
  CHECK(clamped.forecast.host_bytes[0] <= half / 2);
  CHECK(clamped.forecast.host_bytes[1] > half);
  CHECK_THAT(clamped.ranks[0].reason, Contains("full: ") && Contains("of its host memory"));
  CHECK_THAT(clamped.ranks[1].reason, Contains("as much as its tiers read"));
  PartitionProblem none = problem_with(1 << 20);
  none.cluster.nodes[1] = none.cluster.nodes[0];
  CHECK_THROWS_WITH(solve_partition(none), Contains("each host holds its neurons"));
  none.cluster.nodes[0].tiers[static_cast<int>(Tier::device)] = {};
  CHECK_THROWS_WITH(solve_partition(none), Contains("has no device, which --tiers keeps"));
}

TEST_CASE("a forecast of three tiers is what the cost model of replay says of the same pass") {
  const auto layout = GENERATE(Layout{1, 3}, Layout{3, 1});
  const auto [device_share, hot_share] =
      GENERATE(std::pair{0.0, 0.0}, std::pair{0.2, 0.5}, std::pair{0.4, 0.1}, std::pair{1.0, 1.0});
  const NodeProfile node = device_node(uint64_t{1} << 34, uint64_t{1} << 34);
  PartitionProblem problem = problem_of(large_shape(), {node, node}, 3, {1e9, 2e-4});
  problem.cluster.overlap = GENERATE(false, true);
  problem.slot_count = 2;
  problem.ffn_on_disk = problem.device_tier = true;
  problem.device_share = device_share;
  problem.hot_share = hot_share;
  if (GENERATE(false, true)) {  // of each rank another share
    problem.device_shares = {device_share, device_share / 2, device_share / 3};
    problem.hot_shares = {hot_share / 2, hot_share, hot_share / 4};
  }
  const Partition partition = make_partition(problem.shape, DType::f32, layout, {4, 1, 2});
  const PartitionForecast predicted = forecast(problem, partition, {0, 1, 2});
  CHECK(predicted.fits);

  TraceHeader header;
  header.shape = problem.shape;
  header.ffn_types = DType::f32;
  header.pools = partition.pools();
  RecordingConfig config;
  std::vector<RankLoad> loads(3);
  for (const RankShare& share : partition.ranks) {
    config.dense_bytes.push_back(predicted.ranks[share.rank].dense_bytes);
    config.rank_stage.push_back(share.stage);
    config.rank_node.push_back(problem.rank_nodes[share.rank]);
    const double neurons = share.neurons.count, needed = neurons * (1 - 0.75 * 0.75);
    const double work = neurons * 0.25 * 2;
    const auto of_rank = [&](const std::vector<double>& shares, double equal) {
      return shares.empty() ? equal : shares[share.rank];
    };
    const double device = of_rank(problem.device_shares, device_share);
    const double host = std::max(of_rank(problem.hot_shares, hot_share), device) - device;
    const double disk = 1 - device - host;
    loads[share.rank].layers.assign(
        share.layers.count, LayerLoad{device * needed, host * needed, disk * needed, device * work,
                                      host * work, disk * work, device * neurons});
  }
  config.node_count = 2;
  const CostModel model(header, config, problem.cluster, GateReads::exact);
  const std::vector<uint64_t> none(3);
  CHECK(predicted.seconds == Approx(model.pass_time(loads, none, 2).seconds).epsilon(1e-9));
}

TEST_CASE("where nothing fits, the error says what is needed, what there is and what helps") {
  PartitionProblem problem =
      problem_of(large_shape(), {host_node("a", 10 << 20, 1e9), host_node("b", 20 << 20, 2e9)}, 2);
  CHECK_THROWS_WITH(solve_partition(problem), Contains("cluster 'test'") &&
                                                  Contains("a 10.00 MiB, b 20.00 MiB") &&
                                                  Contains("--disk-tier") && Contains("--batch"));
  problem.ffn_on_disk = true;
  CHECK_THROWS_WITH(solve_partition(problem), Contains("node 'a' has no disk"));
}

TEST_CASE("with the FFN on disk memory holds the gate, the hot share and the staging of a layer") {
  const ModelShape shape = large_shape();
  PartitionProblem problem = problem_of(shape, {host_node("n", uint64_t{1} << 33, 1e9)}, 1);
  problem.cluster.nodes[0].tiers[static_cast<int>(Tier::disk)] = {uint64_t{1} << 40, 1e8};
  const uint64_t resident = whole_bytes(problem);
  problem.ffn_on_disk = true;
  const uint64_t row = uint64_t{4} * shape.model_dim;
  const uint64_t cold = whole_bytes(problem);
  CHECK(resident - cold == 2 * row * shape.ffn_dim * (shape.layer_count - 1));
  problem.hot_share = 0.25;
  CHECK(whole_bytes(problem) - cold == 2 * row * shape.ffn_dim * shape.layer_count / 4);
}

}  // namespace
}  // namespace thermocline::test
