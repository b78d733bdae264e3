#include "runtime/partition_table.h"

#include <fmt/format.h>

#include "models/cli.h"
#include "models/distribution.h"
#include "models/units.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

// What a rank of the job holds and takes; nothing where it is left out.
struct RankLine {
  RankShare share;
  RankForecast forecast;
  std::string node;
  double memory_share = 0;  // of its node's memory
  bool used = false;
};

RankLine line_of(const RunPlan& plan, uint32_t job_rank) {
  const SolvedPartition& solved = *plan.solved;
  RankLine line;
  const auto& nodes = plan.live.cluster.nodes;
  const NodeProfile& node = nodes[solved.rank_nodes[job_rank]];
  line.node = node.name;
  const int64_t rank = solved.ranks[job_rank].layout_rank;
  line.used = rank >= 0;
  if (!line.used) return line;
  line.share = solved.partition.ranks[static_cast<size_t>(rank)];
  line.forecast = solved.forecast.ranks[static_cast<size_t>(rank)];
  line.memory_share = static_cast<double>(line.forecast.memory_bytes) /
                      static_cast<double>(solved.node_memory[solved.rank_nodes[job_rank]]);
  return line;
}

Json rank_row(const RunPlan& plan, uint32_t job_rank) {
  const RankLine line = line_of(plan, job_rank);
  Json row = {{"kind", "rank"},
              {"rank", job_rank},
              {"stage", line.share.stage},
              {"layers", line.share.layers.count},
              {"kv_heads", line.share.kv_heads.count},
              {"neurons", line.share.neurons.count},
              {"vocab_rows", line.share.vocab.count},
              {"weight_bytes", line.forecast.weight_bytes}};
  row.update(partition_facts(plan, job_rank));
  row["source"] = "modelled";
  return row;
}

void print_line(std::FILE* out, const RunPlan& plan, uint32_t job_rank) {
  const RankLine line = line_of(plan, job_rank);
  const std::string& reason = plan.solved->ranks[job_rank].reason;
  if (!line.used) {
    fmt::print(out, "{:>4} {:<16} {:>5} {:>6} {:>5} {:>7} {:>7} {:>12} {:>8} {:>10}   {}\n",
               job_rank, line.node, "-", 0, 0, 0, 0, format_bytes(0), "-", "-", reason);
    return;
  }
  fmt::print(out, "{:>4} {:<16} {:>5} {:>6} {:>5} {:>7} {:>7} {:>12} {:>7.1f}% {:>10.3f}   {}\n",
             job_rank, line.node, line.share.stage, line.share.layers.count,
             line.share.kv_heads.count, line.share.neurons.count, line.share.vocab.count,
             format_bytes(line.forecast.weight_bytes), 100 * line.memory_share,
             line.forecast.seconds * 1e3, reason);
}

}  // namespace

Json partition_facts(const RunPlan& plan, uint32_t job_rank) {
  const RankLine line = line_of(plan, job_rank);
  const RankDecision& decision = plan.solved->ranks[job_rank];
  Json facts = {{"node", line.node},
                {"layout_rank", nullptr},
                {"predicted_ms", line.forecast.seconds * 1e3},
                {"predicted_bytes", line.forecast.memory_bytes},
                {"memory_share", line.memory_share},
                {"reason", decision.reason}};
  if (line.used) facts["layout_rank"] = decision.layout_rank;
  return facts;
}

std::vector<uint32_t> left_out_ranks(const RunPlan& plan) {
  std::vector<uint32_t> ranks;
  if (!plan.solved.has_value()) return ranks;
  for (uint32_t rank = 0; rank < plan.solved->ranks.size(); ++rank) {
    if (plan.solved->ranks[rank].layout_rank < 0) ranks.push_back(rank);
  }
  return ranks;
}

std::optional<PredictedStep> predicted_step(const RunPlan& plan,
                                            const std::vector<double>& tpot_ms) {
  const auto executed = distribution_of(tpot_ms);
  if (!plan.solved.has_value() || !executed.has_value() || executed->mean <= 0) return {};
  return PredictedStep{plan.solved->forecast.seconds * 1e3, executed->mean};
}

void print_partition(std::FILE* out, const RunPlan& plan) {
  const SolvedPartition& solved = *plan.solved;
  const Cluster& cluster = plan.live.cluster;
  fmt::print(out, "\npartition {} of cluster '{}' ({} figures), {} of {} ranks\n",
             solved.partition.layout.text(), cluster.name,
             cluster.measured ? "measured" : "published", solved.job_ranks.size(),
             solved.ranks.size());
  fmt::print(out, "{:>4} {:<16} {:>5} {:>6} {:>5} {:>7} {:>7} {:>12} {:>8} {:>10}   {}\n", "rank",
             "node", "stage", "layers", "heads", "neurons", "vocab", "weights", "memory",
             "ms (model)", "why");
  for (uint32_t rank = 0; rank < solved.ranks.size(); ++rank) print_line(out, plan, rank);
  if (!solved.forecast.fits) fmt::print(out, "this partition does not fit into its nodes\n");
  fmt::print(out,
             "a decode step is predicted to take {:.3f} ms (modelled), {:.3f} of them exchanges; "
             "it waits most for {}\n",
             solved.forecast.seconds * 1e3, solved.forecast.exchange_seconds * 1e3, solved.limit);
}

Json partition_rows(const RunPlan& plan) {
  const SolvedPartition& solved = *plan.solved;
  Json rows = Json::array();
  rows.push_back({{"kind", "partition"},
                  {"model", plan.spec.text},
                  {"layout", solved.partition.layout.text()},
                  {"cluster", plan.live.cluster.name},
                  {"ranks", solved.ranks.size()},
                  {"left_out", left_out_ranks(plan)},
                  {"fits", solved.forecast.fits},
                  {"predicted_step_ms", solved.forecast.seconds * 1e3},
                  {"predicted_exchange_ms", solved.forecast.exchange_seconds * 1e3},
                  {"limit", solved.limit},
                  {"source", "modelled"},
                  {"version", kVersion}});
  for (uint32_t rank = 0; rank < solved.ranks.size(); ++rank) {
    rows.push_back(rank_row(plan, rank));
  }
  return rows;
}

}  // namespace thermocline
