#include "runtime/partition_solver.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "models/error.h"
#include "models/units.h"
#include "runtime/partition_search.h"

namespace thermocline {
namespace {

double ms(double seconds) { return seconds * 1e3; }

const NodeProfile& node_of(const PartitionProblem& problem, uint32_t job_rank) {
  return problem.cluster.nodes[problem.rank_nodes[job_rank]];
}

std::string tier_name(const PartitionProblem& problem, const NodeProfile& node) {
  const TierProfile& device = node.tiers[static_cast<int>(Tier::device)];
  return std::string(name_of(&weight_tier(problem, node) == &device ? Tier::device : Tier::host));
}

std::vector<uint32_t> all_ranks(const PartitionProblem& problem) {
  std::vector<uint32_t> ranks(problem.rank_nodes.size());
  std::iota(ranks.begin(), ranks.end(), 0u);
  return ranks;
}

// The partition that a job without a cluster file has, where there is one.
std::optional<Partition> default_partition(const PartitionProblem& problem,
                                           const PartitionSearch& search) {
  const auto count = static_cast<uint32_t>(problem.rank_nodes.size());
  if (search.layouts_of(count).empty()) return std::nullopt;
  const Layout layout = default_layout(problem.shape, problem.types.longest_o, count);
  return make_partition(problem.shape, problem.types.longest_o, layout,
                        std::vector<double>(count, 1.0));
}

// Why a used rank has as much as it has.
std::string reason_of_share(const PartitionProblem& problem, const SolvedPartition& solved,
                            uint32_t layout_rank) {
  const uint32_t job_rank = solved.job_ranks[layout_rank];
  const uint32_t node = problem.rank_nodes[job_rank];
  const RankShare& share = solved.partition.ranks[layout_rank];
  const Layout& layout = solved.partition.layout;
  const uint64_t memory = memory_of(problem, node), taken = solved.forecast.node_bytes[node];
  const uint64_t host = host_memory_of(problem, node), on_host = solved.forecast.host_bytes[node];
  std::string of_memory =
      fmt::format("{} of {} of its {} memory", format_bytes(taken), format_bytes(memory),
                  tier_name(problem, node_of(problem, job_rank)));
  if (on_host > 0) {
    of_memory +=
        fmt::format(", {} of {} of its host memory", format_bytes(on_host), format_bytes(host));
  }
  if (taken > memory || on_host > host) return fmt::format("does not fit: takes {}", of_memory);
  if (layout.tensor == 1) return fmt::format("a whole stage, {}", of_memory);
  const StageTask task = stage_task(problem, layout.tensor, share.layers.count, share.stage == 0,
                                    share.stage + 1 == layout.pipeline);
  const double rate = weight_tier(problem, node_of(problem, job_rank)).bytes_per_second;
  const uint32_t host_units =
      host_neuron_units(problem, layout.tensor, share.layers.count, host - on_host);
  if (taken + task.unit_bytes[kNeuronUnits] > memory || host_units == 0) {
    return fmt::format("full: holds what fits, {}", of_memory);
  }
  if (taken + task.unit_bytes[kHeadUnits] > memory) {
    return fmt::format("no room for another kv head with its cache, {}", of_memory);
  }
  if (problem.device_tier) {
    return fmt::format("as much as its tiers read while the others read theirs, {}", of_memory);
  }
  return fmt::format("as much as {:.4g} GB/s read while the others read theirs, {}", rate * 1e-9,
                     of_memory);
}

// Why a rank is not used, beside those that are.
std::string reason_left_out(const PartitionProblem& problem, PartitionSearch& search,
                            const SolvedPartition& solved, uint32_t job_rank) {
  const NodeProfile& node = node_of(problem, job_rank);
  const std::string refusal = refusal_of_node(problem, node);
  if (!refusal.empty()) return "left out: " + refusal;
  std::vector<uint32_t> with = solved.job_ranks;
  with.push_back(job_rank);
  std::sort(with.begin(), with.end());
  const auto count = static_cast<uint32_t>(with.size());
  const uint64_t memory = memory_of(problem, problem.rank_nodes[job_rank]);
  if (search.layouts_of(count).empty()) {
    return fmt::format("left out: {} ranks fit no layout of this model", count);
  }
  if (const uint64_t least = search.least_bytes(count); least > memory) {
    return fmt::format("left out: too small: the least share of {} ranks takes {}, its {} has {}",
                       count, format_bytes(least), tier_name(problem, node), format_bytes(memory));
  }
  const auto best = search.best_of(with);
  if (!best.has_value()) {
    return fmt::format(
        "left out: no layout of {} ranks fits into the memory of all, its own {} "
        "has {}",
        count, tier_name(problem, node), format_bytes(memory));
  }
  return fmt::format("left out: with it a step would take {:.4g} ms, without it {:.4g} ms",
                     ms(best->seconds), ms(solved.forecast.seconds));
}

// What a step waits for most.
std::string limit_of(const PartitionProblem& problem, const SolvedPartition& solved) {
  const PartitionForecast& forecast = solved.forecast;
  const double exchange = forecast.exchange_seconds;
  if (exchange > forecast.seconds - exchange) {
    return fmt::format("the network: {:.4g} of {:.4g} ms are exchanges", ms(exchange),
                       ms(forecast.seconds));
  }
  const auto& stages = forecast.stage_seconds;
  const auto stage =
      static_cast<uint32_t>(std::max_element(stages.begin(), stages.end()) - stages.begin());
  std::map<uint32_t, double> of_nodes;  // seconds
  for (uint32_t rank = 0; rank < forecast.ranks.size(); ++rank) {
    if (solved.partition.ranks[rank].stage != stage) continue;
    of_nodes[problem.rank_nodes[solved.job_ranks[rank]]] += forecast.ranks[rank].seconds;
  }
  const auto slowest =
      std::max_element(of_nodes.begin(), of_nodes.end(),
                       [](const auto& x, const auto& y) { return x.second < y.second; });
  const NodeProfile& node = problem.cluster.nodes[slowest->first];
  const double rate = weight_tier(problem, node).bytes_per_second * 1e-9;
  return fmt::format("reading: node '{}' takes {:.4g} of {:.4g} ms in stage {}{}", node.name,
                     ms(slowest->second), ms(forecast.seconds), stage,
                     problem.device_tier ? "" : fmt::format(", at {:.4g} GB/s", rate));
}

SolvedPartition described(const PartitionProblem& problem, Partition partition,
                          std::vector<uint32_t> job_ranks) {
  SolvedPartition solved;
  solved.partition = std::move(partition);
  solved.job_ranks = std::move(job_ranks);
  solved.ranks.resize(problem.rank_nodes.size());
  solved.rank_nodes = problem.rank_nodes;
  forecast_again(problem, solved);
  for (uint32_t rank = 0; rank < solved.job_ranks.size(); ++rank) {
    RankDecision& decision = solved.ranks[solved.job_ranks[rank]];
    decision.layout_rank = rank;
    decision.reason = reason_of_share(problem, solved, rank);
  }
  return solved;
}

// What the nodes of the ranks have: in all, and one by one as far as a line goes.
struct NodesMemory {
  uint64_t bytes = 0;
  bool devices = false;  // of which the host may have more memory
  std::string text, refusals;
};

NodesMemory memory_of_nodes(const PartitionProblem& problem) {
  constexpr size_t kNodesShown = 8;
  const std::set<uint32_t> nodes(problem.rank_nodes.begin(), problem.rank_nodes.end());
  NodesMemory all;
  size_t count = 0;
  for (const uint32_t node : nodes) {
    const NodeProfile& profile = problem.cluster.nodes[node];
    const std::string refusal = refusal_of_node(problem, profile);
    const uint64_t memory = refusal.empty() ? memory_of(problem, node) : 0;
    all.bytes += memory;
    all.devices = all.devices || tier_name(problem, profile) == "device";
    if (++count > kNodesShown) continue;
    all.text += fmt::format("{}{} {}", count == 1 ? "" : ", ", profile.name, format_bytes(memory));
    if (!refusal.empty()) all.refusals += "; " + refusal;
  }
  if (count > kNodesShown) all.text += fmt::format(" and {} more", count - kNodesShown);
  return all;
}

[[noreturn]] void refuse(const PartitionProblem& problem) {
  const auto count = static_cast<uint32_t>(problem.rank_nodes.size());
  const uint32_t stages = std::min(count, problem.shape.layer_count);
  const StageTask task = stage_task(problem, 1, problem.shape.layer_count, true, true);
  const uint64_t needed = bytes_of(task, StageNode{.rank_count = stages}, task.units);
  const NodesMemory there = memory_of_nodes(problem);
  throw bad_usage(fmt::format(
      "no partition of this model fits the {} ranks of cluster '{}': weights, KV cache of {} x {} "
      "positions and buffers take about {}, the nodes have {} ({}){}; what helps: more or larger "
      "nodes, {}a smaller --batch, fewer --max-new-tokens, a model type of fewer bits{}{}",
      count, problem.cluster.name, problem.slot_count, problem.position_max, format_bytes(needed),
      format_bytes(there.bytes), there.text, there.refusals, there.devices ? "--backend cpu, " : "",
      problem.ffn_on_disk ? ", a smaller --budget" : ", --disk-tier",
      problem.device_tier ? "; with --tiers each host holds its neurons beside that, too" : ""));
}

}  // namespace

void forecast_again(const PartitionProblem& problem, SolvedPartition& solved) {
  solved.forecast = forecast(problem, solved.partition, solved.job_ranks);
  solved.limit = limit_of(problem, solved);
  solved.node_memory.clear();
  for (uint32_t node = 0; node < problem.cluster.nodes.size(); ++node) {
    solved.node_memory.push_back(memory_of(problem, node));
  }
}

SolvedPartition describe_partition(const PartitionProblem& problem, const Partition& partition) {
  return described(problem, partition, all_ranks(problem));
}

SolvedPartition solve_partition(const PartitionProblem& problem) {
  PartitionSearch search(problem);
  std::optional<Partition> equal = default_partition(problem, search);
  std::optional<SolvedPartition> plain;
  if (equal.has_value()) {
    plain = describe_partition(problem, *equal);
    if (!plain->forecast.fits) plain.reset();
  }
  if (plain.has_value() && search.all_alike()) {
    for (RankDecision& rank : plain->ranks) rank.reason = "all nodes are alike: equal shares";
    return *plain;
  }
  const auto best = search.best();
  if (!best.has_value() && !plain.has_value()) refuse(problem);
  if (!best.has_value()) return *plain;
  SolvedPartition solved = described(problem, search.partition_of(*best), best->job_ranks);
  TC_CHECK(solved.forecast.fits, "a partition above its memory");
  if (plain.has_value() && !better(solved.forecast.seconds, 0, plain->forecast.seconds, 0)) {
    return *plain;
  }
  for (uint32_t rank = 0; rank < solved.ranks.size(); ++rank) {
    RankDecision& decision = solved.ranks[rank];
    if (decision.layout_rank < 0) {
      decision.reason = reason_left_out(problem, search, solved, rank);
    }
  }
  return solved;
}

}  // namespace thermocline
