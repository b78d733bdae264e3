#include "runtime/run_partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "models/error.h"
#include "models/units.h"
#include "runtime/comm.h"

namespace thermocline {
namespace {

// Of ReLU models that size and text do not decide: a layer's mean.
constexpr double kActiveShare = 0.25;

// "25%" or "0.25".
double parse_share(std::string_view text) {
  const bool percent = text.ends_with('%');
  const double value = parse_number(text.substr(0, text.size() - (percent ? 1 : 0)));
  const double share = percent ? value / 100 : value;
  if (share > 0 && share <= 1) return share;
  throw bad_usage(
      fmt::format("--active-share {}: expected a share of the neurons above 0 up to 100%", text));
}

bool is_solved(const RunOptions& options) {
  return !options.cluster.empty() && options.layout.empty() && options.rank_weights.empty();
}

void check_ranks(const Cluster& cluster, uint32_t rank_count, std::vector<std::string>& notes) {
  const uint64_t wanted = ranks_wanted(cluster);
  if (wanted != 0 && wanted != rank_count) {
    throw bad_usage(fmt::format(
        "cluster '{}': its nodes ask for {} ranks (ranks = N), the job has {}: mpirun -n {}, or "
        "--local-ranks {}",
        cluster.name, wanted, rank_count, wanted, wanted));
  }
  if (rank_count >= cluster.nodes.size()) return;
  notes.push_back(fmt::format("cluster '{}': {} ranks, so the last {} of its {} nodes have none",
                              cluster.name, rank_count, cluster.nodes.size() - rank_count,
                              cluster.nodes.size()));
}

bool is_unequal(const std::string& budgets) {
  return budgets.find('+') != std::string::npos || budgets.find("cluster") != std::string::npos;
}

// What a tier keeps hot, as far as a budget says it before anything is solved: a share of all
// bundles, or bytes of each node.
struct HotMemory {
  double share = 0;
  std::vector<uint64_t> reserve;  // (nodes)
};

HotMemory hot_memory(const std::string& text, const RunPlan& plan,
                     const PartitionProblem& problem) {
  const uint64_t whole = ffn_bytes(plan.shape, plan.ffn_types);
  const uint64_t bundle = bundle_bytes(plan.shape, plan.ffn_types);
  HotMemory memory;
  if (!is_unequal(text)) {
    const auto budgets = parse_budgets(text, whole, bundle);
    memory.share = static_cast<double>(budgets.front()) / static_cast<double>(whole);
    return memory;
  }
  // Ranks of the job as if they had equal shares.
  BudgetRanks ranks;
  ranks.nodes = problem.rank_nodes;
  ranks.neurons.assign(ranks.nodes.size(), whole / bundle);
  ranks.dense_bytes.assign(ranks.nodes.size(), 0);
  ranks.fast_bytes.assign(problem.cluster.nodes.size(), 0);
  ranks.bundle_bytes = bundle;
  const HotBudget budget = parse_hot_budgets(text, whole, ranks).front();
  memory.reserve.assign(problem.cluster.nodes.size(), 0);
  for (size_t rank = 0; rank < budget.by_rank.size(); ++rank) {
    memory.reserve[ranks.nodes[rank]] += budget.by_rank[rank];
  }
  return memory;
}

// The memory of live policies whose hot sets lie in tiers.
void reserve_hot_memory(const RunOptions& options, const RunPlan& plan, PartitionProblem& problem) {
  if (options.policies.empty() || !(problem.ffn_on_disk || problem.device_tier)) return;
  HotMemory fast = hot_memory(options.budgets, plan, problem);
  problem.node_reserve = std::move(fast.reserve);
  if (!problem.device_tier) {
    problem.hot_share = fast.share;
    return;
  }
  problem.device_share = fast.share;
  if (!problem.ffn_on_disk) return;
  HotMemory host = hot_memory(options.host_budget, plan, problem);
  problem.hot_share = host.share;
  problem.host_reserve = std::move(host.reserve);
}

PartitionProblem partition_problem(const RunOptions& options, const RunPlan& plan,
                                   uint32_t rank_count) {
  PartitionProblem problem;
  problem.shape = plan.shape;
  problem.types = model_types(*plan.source);
  problem.cluster = plan.live.cluster;
  problem.rank_nodes = nodes_of_ranks(problem.cluster, rank_count);
  problem.slot_count = plan.batch;
  problem.position_max = plan.position_max;
  problem.row_max = std::max(kChunkMax, plan.batch);
  const bool dense = plan.shape.activation == FfnActivation::silu;
  problem.active_share = !options.active_share.empty() ? parse_share(options.active_share)
                         : dense                       ? 1.0
                                                       : kActiveShare;
  problem.host_only = options.backend == "cpu";
  problem.ffn_on_disk = !options.disk_tier.empty();
  problem.device_tier = has_device_tier(plan.tiers);
  reserve_hot_memory(options, plan, problem);
  return problem;
}

Partition given_partition(const RunOptions& options, const RunPlan& plan, uint32_t rank_count) {
  const std::vector<double> weights = parse_rank_weights(options.rank_weights, rank_count);
  const DType o_dtype = longest_block(*plan.source, Matrix::o);
  const Layout layout = options.layout.empty() ? default_layout(plan.shape, o_dtype, rank_count)
                                               : parse_layout(options.layout, rank_count);
  return make_partition(plan.shape, o_dtype, layout, weights);
}

// A single rank has no choice, and may run a model on figures of another machine.
void describe_alone(const PartitionProblem& problem, RunPlan& plan) {
  plan.solved = describe_partition(problem, plan.partition);
  if (plan.solved->forecast.fits) return;
  plan.notes.push_back(fmt::format("cluster '{}': by its figures this model does not fit its node",
                                   problem.cluster.name));
}

BudgetRanks budget_ranks(const RunPlan& plan, uint32_t job_size) {
  BudgetRanks ranks;
  const ModelTypes types = model_types(*plan.source);
  for (const RankShare& share : plan.partition.ranks) {
    ranks.neurons.push_back(share.pool().total());
    ranks.dense_bytes.push_back(dense_bytes_of(plan.shape, types, plan.partition, share.rank));
  }
  ranks.nodes = plan.live.rank_nodes;
  for (const NodeProfile& node : plan.live.cluster.nodes) {
    ranks.fast_bytes.push_back(node.fast().memory_bytes);
  }
  ranks.bundle_bytes = bundle_bytes(plan.shape, plan.ffn_types);
  if (plan.solved.has_value()) ranks.job_ranks = plan.solved->job_ranks;
  ranks.job_size = job_size;
  return ranks;
}

// The same of host memory: what it has left beside gate rows and staging, in whole bundles, as
// budgets count them, whose gate rows are there already. With --backend cpu all else is in it, too.
BudgetRanks host_budget_ranks(const RunOptions& options, const RunPlan& plan, uint32_t rank_count) {
  BudgetRanks ranks = budget_ranks(plan, rank_count);
  PartitionProblem problem = partition_problem(options, plan, rank_count);
  problem.hot_share = 0;
  std::vector<uint32_t> job_ranks(plan.partition.ranks.size());
  for (uint32_t rank = 0; rank < job_ranks.size(); ++rank) job_ranks[rank] = plan.job_rank(rank);
  const PartitionForecast taken = forecast(problem, plan.partition, job_ranks);
  const uint64_t gate = bytes_of(plan.ffn_types.gate, plan.shape.model_dim);
  for (size_t node = 0; node < ranks.fast_bytes.size(); ++node) {
    uint64_t left = problem.cluster.nodes[node].tier(Tier::host).memory_bytes;
    const uint64_t of_node = problem.host_only ? taken.node_bytes[node] + reserve_of(problem, node)
                                               : taken.host_bytes[node];
    left -= std::min(left, of_node);
    ranks.fast_bytes[node] = left / (ranks.bundle_bytes - gate) * ranks.bundle_bytes;
  }
  ranks.dense_bytes.assign(ranks.dense_bytes.size(), 0);
  return ranks;
}

// Budgets of ranks and nodes were set aside before it was known who holds what: held to it now.
void check_hot_memory(const RunOptions& options, const RunPlan& plan) {
  if (plan.tiers != TierLayout::host_disk || !plan.solved.has_value()) return;
  const SolvedPartition& solved = *plan.solved;
  const Cluster& cluster = plan.live.cluster;
  std::vector<uint64_t> taken = solved.forecast.node_bytes;
  const std::vector<uint64_t>& of_ranks = plan.live.budgets.front().by_rank;
  for (size_t rank = 0; rank < of_ranks.size(); ++rank) {
    const uint64_t gate = bytes_of(plan.ffn_types.gate, plan.shape.model_dim);
    const uint64_t bundle = bundle_bytes(plan.shape, plan.ffn_types);
    taken[plan.live.rank_nodes[rank]] += of_ranks[rank] / bundle * (bundle - gate);
  }
  for (size_t node = 0; node < taken.size(); ++node) {
    const uint64_t memory = cluster.nodes[node].tiers[static_cast<int>(Tier::host)].memory_bytes;
    if (taken[node] <= memory) continue;
    throw bad_usage(fmt::format(
        "--budget {}: node '{}' would hold {}, hot bundles among them, and has {}: expected less "
        "for its ranks",
        options.budgets, cluster.nodes[node].name, format_bytes(taken[node]),
        format_bytes(memory)));
  }
}

// (ranks of the layout) of each one's bundles, the share that its part of a budget holds.
std::vector<double> hot_shares(const RunPlan& plan, const HotBudget& budget) {
  const double whole = static_cast<double>(ffn_bytes(plan.shape, plan.ffn_types));
  const size_t rank_count = plan.partition.ranks.size();
  if (budget.by_rank.empty()) {
    return std::vector<double>(rank_count, static_cast<double>(budget.bytes) / whole);
  }
  const uint64_t bundle = bundle_bytes(plan.shape, plan.ffn_types);
  std::vector<double> shares;
  for (size_t rank = 0; rank < rank_count; ++rank) {
    const uint64_t bundles = plan.partition.ranks[rank].pool().total();
    shares.push_back(static_cast<double>(budget.by_rank[rank] / bundle) /
                     static_cast<double>(std::max<uint64_t>(bundles, 1)));
  }
  return shares;
}

}  // namespace

void place_ranks(const RunOptions& options, RunPlan& plan, uint32_t rank_count) {
  const bool solves = is_solved(options);
  Cluster& cluster = plan.live.cluster;
  cluster = options.cluster.empty() ? default_cluster() : open_cluster(options.cluster);
  if (solves) check_ranks(cluster, rank_count, plan.notes);
  const bool alone = rank_count == 1 && !options.print_partition;
  if (!solves || alone) plan.partition = given_partition(options, plan, rank_count);
  if (solves || options.print_partition) {
    const PartitionProblem problem = partition_problem(options, plan, rank_count);
    if (!solves) {
      plan.solved = describe_partition(problem, plan.partition);
    } else if (alone) {
      describe_alone(problem, plan);
    } else {
      plan.solved = solve_partition(problem);
      plan.partition = plan.solved->partition;
    }
  }
  const std::vector<uint32_t> nodes = nodes_of_ranks(cluster, rank_count);
  for (uint32_t rank = 0; rank < plan.partition.ranks.size(); ++rank) {
    plan.live.rank_nodes.push_back(nodes[plan.job_rank(rank)]);
  }
  if (plan.live.policies.empty()) return;
  plan.live.budgets = parse_hot_budgets(options.budgets, ffn_bytes(plan.shape, plan.ffn_types),
                                        budget_ranks(plan, rank_count));
  check_hot_memory(options, plan);
}

HotBudget host_budget_of(const RunOptions& options, const RunPlan& plan, uint32_t rank_count) {
  const std::string& text = options.host_budget;
  const auto budgets = parse_hot_budgets(text, ffn_bytes(plan.shape, plan.ffn_types),
                                         host_budget_ranks(options, plan, rank_count));
  if (budgets.size() == 1) return budgets.front();
  throw bad_usage(
      fmt::format("--host-budget {}: expected one budget, found {}", text, budgets.size()));
}

void forecast_known_budgets(const RunOptions& options, RunPlan& plan, uint32_t rank_count) {
  const bool known_before = !is_unequal(options.budgets) && !is_unequal(options.host_budget);
  if (!plan.solved.has_value() || plan.tiers == TierLayout::one || plan.live.policies.empty() ||
      known_before) {
    return;
  }
  PartitionProblem problem = partition_problem(options, plan, rank_count);
  const std::vector<HotBudget>& budgets = plan.live.budgets;  // of the device, then of the host
  if (problem.device_tier) problem.device_shares = hot_shares(plan, budgets.front());
  if (problem.ffn_on_disk) problem.hot_shares = hot_shares(plan, budgets.back());
  problem.node_reserve = problem.host_reserve = {};
  forecast_again(problem, *plan.solved);
}

uint32_t ranks_to_print(const RunOptions& options) {
  const auto launched = static_cast<uint32_t>(launched_rank().size);
  if (options.ranks > 0) return options.ranks;
  if (options.local_ranks > 0) return options.local_ranks;
  if (launched > 1) return launched;
  if (options.cluster.empty()) return 1;
  const Cluster cluster = open_cluster(options.cluster);
  const uint64_t wanted = ranks_wanted(cluster);
  return static_cast<uint32_t>(wanted != 0 ? wanted : cluster.nodes.size());
}

}  // namespace thermocline
