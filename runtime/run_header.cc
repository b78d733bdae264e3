#include "runtime/run_header.h"

#include "models/cli.h"

namespace thermocline {
namespace {

std::string config_json(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome) {
  nlohmann::ordered_json config;
  config["threads"] = outcome.thread_count;
  for (const RankFacts& rank : outcome.ranks) {
    config["read_bandwidth"].push_back(rank.read_bandwidth);
    config["dense_bytes"].push_back(rank.attention_bytes + rank.head_bytes);
  }
  for (const RankShare& share : plan.partition.ranks) {
    config["rank_stage"].push_back(share.stage);
  }
  if (plan.solved.has_value()) {
    config["cluster"] = plan.live.cluster.name;
    config["node_count"] = plan.live.cluster.nodes.size();
    config["rank_node"] = plan.live.rank_nodes;
  }
  if (plan.read_ahead.has_value()) config["read_ahead"] = plan.read_ahead->text();
  constexpr std::string_view kTiers[] = {"memory", "disk", kDeviceHost, kDeviceHostDisk};
  config["ffn_tier"] = kTiers[static_cast<int>(plan.tiers)];
  if (plan.tiers != TierLayout::one && !plan.live.policies.empty()) {
    config["hot_policy"] = plan.live.policies.front().resolved();
    for (const HotBudget& budget : plan.live.budgets) config["hot_budgets"].push_back(budget.bytes);
    config["migration_bytes"] = plan.live.migration_bytes;
  }
  config["gate"] = plan.predictor.text();
  config["predictor"] = plan.predictor.entry->name;
  config["predictor_parameters"] = plan.predictor.values;
  if (outcome.predictor_threshold.has_value()) {
    config["predictor_threshold"] = *outcome.predictor_threshold;
  }
  config["backend"] = outcome.backend;
  config["device"] = outcome.device;
  config["chunk"] = kChunkMax;
  config["batch"] = plan.batch;
  config["magnitudes"] = options.record_magnitudes;
  config["teacher_forced"] = options.teacher_forced;
  config["max_new_tokens"] = options.max_new_tokens;
  config["activation_threshold"] = options.activation_threshold;
  if (!options.teacher_forced) config.update(decoding_facts(options, plan));
  return config.dump();
}

}  // namespace

TraceHeader run_header(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                       const ActivationRule& rule) {
  TraceHeader header;
  header.version = kVersion;
  header.shape = plan.shape;
  header.shape.rope_divisors.clear();
  header.ffn_types = plan.ffn_types;
  header.model = plan.spec.text;
  header.weight_provenance = plan.weight_provenance;
  header.weight_hash = plan.weight_hash;
  header.activation_rule = rule.text();
  header.activation_thresholds = rule.thresholds;
  header.prompts = plan.prompts_text;
  header.prompts_hash = plan.prompts_hash;
  header.layout = plan.partition.layout.text();
  header.seed = options.seed;
  header.config_json = config_json(options, plan, outcome);
  header.pools = plan.partition.pools();
  header.magnitudes = plan.magnitudes.format;
  return header;
}

}  // namespace thermocline
