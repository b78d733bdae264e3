#include "runtime/run_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/cli.h"
#include "models/distribution.h"
#include "models/units.h"
#include "runtime/partition_table.h"
#include "runtime/side_by_side_report.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const std::optional<Distribution>& times) {
  if (!times.has_value()) return "none";
  return fmt::format("mean {:.2f}  p50 {:.2f}  p95 {:.2f}  p99 {:.2f} ms", times->mean, times->p50,
                     times->p95, times->p99);
}

// Per step or per pass.
double mean_ms(uint64_t sum_ns, uint64_t count) {
  return count == 0 ? 0.0 : static_cast<double>(sum_ns) * 1e-6 / static_cast<double>(count);
}

uint64_t total_rss(const RunOutcome& outcome) {
  uint64_t total = 0;
  for (const RankFacts& rank : outcome.ranks) {
    total =
        outcome.one_process ? std::max(total, rank.peak_rss_bytes) : total + rank.peak_rss_bytes;
  }
  return total;
}

uint64_t total_weights(const RunOutcome& outcome) {
  uint64_t total = 0;
  for (const RankFacts& rank : outcome.ranks) total += rank.weight_bytes;
  return total;
}

// Stages work one after the other, the ranks of a stage at once: the sum over ranks over the
// number in a stage.
double stage_sum(const RunPlan& plan, const RunOutcome& outcome, double (*of)(const RankFacts&)) {
  double total = 0;
  for (const RankFacts& rank : outcome.ranks) total += of(rank);
  return total / plan.partition.layout.tensor;
}

// The read bandwidth of the ranks of one stage: the limit of anything that they do.
double stage_bandwidth(const RunPlan& plan, const RunOutcome& outcome) {
  double total = 0;
  for (const RankFacts& rank : outcome.ranks) total += rank.read_bandwidth;
  return total / plan.partition.layout.pipeline;
}

Json origin(const std::string& kind, const RunOptions& options, const RunPlan& plan) {
  return {{"kind", kind},
          {"model", plan.spec.text},
          {"weights", plan.weight_provenance},
          {"weight_hash", plan.weight_hash},
          {"layout", plan.partition.layout.text()},
          {"seed", options.seed},
          {"version", kVersion}};
}

double mean_predictor_ms(const RunPlan& plan, const RunOutcome& outcome) {
  return stage_sum(plan, outcome, [](const RankFacts& rank) {
    return mean_ms(rank.sums.predictor_ns, rank.sums.step_count);
  });
}

// Of the time of the FFN sublayers, of all ranks.
double predictor_time_share(const RunOutcome& outcome) {
  uint64_t predictor_ns = 0, ffn_ns = 0;
  for (const RankFacts& rank : outcome.ranks) {
    predictor_ns += rank.sums.predictor_ns;
    ffn_ns += rank.sums.ffn_ns;
  }
  return ffn_ns == 0 ? 0 : static_cast<double>(predictor_ns) / static_cast<double>(ffn_ns);
}

Json predictor_row(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                   const PredictorCounts& counts) {
  Json row = origin("predictor", options, plan);
  row["trace_hash"] = outcome.trace_hash;
  row["predictor"] = plan.predictor.entry->name;
  row["parameters"] = plan.predictor.values;
  row["predictor_threshold"] = nullptr;
  if (outcome.predictor_threshold) row["predictor_threshold"] = *outcome.predictor_threshold;
  row["layer"] = nullptr;
  row["recall"] = counts.recall();
  row["precision"] = counts.precision();
  row["candidate_share"] = counts.candidate_share();
  row["active_share"] = counts.active_share();
  row["source"] = "measured";
  return row;
}

void add_audit_rows(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                    Json& rows) {
  if (!outcome.audit.has_value()) return;
  const LogitErrors& logits = outcome.audit->logits;
  Json whole = predictor_row(options, plan, outcome, outcome.audit->whole());
  whole["predictor_ms"] = mean_predictor_ms(plan, outcome);
  whole["predictor_ffn_share"] = predictor_time_share(outcome);
  whole["step_count"] = logits.step_count;
  whole["logit_max_error"] = logits.largest;
  whole["logit_kl"] = logits.mean_divergence();
  whole["top1_agreement"] = logits.top1_agreement();
  rows.push_back(whole);
  for (size_t layer = 0; layer < outcome.audit->layers.size(); ++layer) {
    Json row = predictor_row(options, plan, outcome, outcome.audit->layers[layer]);
    row["layer"] = layer;
    rows.push_back(row);
  }
}

void print_counts(const std::string& layer, const PredictorCounts& counts) {
  fmt::print("{:<12} {:>8.2f} {:>11.2f} {:>13.2f} {:>10.2f}\n", layer, 100 * counts.recall(),
             100 * counts.precision(), 100 * counts.candidate_share(), 100 * counts.active_share());
}

void print_audit(const RunPlan& plan, const RunOutcome& outcome) {
  if (!outcome.audit.has_value()) return;
  const PredictorAuditResult& audit = *outcome.audit;
  fmt::print("\npredictor {}, held to the exact gate over {} steps\n", plan.predictor.text(),
             audit.logits.step_count);
  fmt::print("{:<12} {:>8} {:>11} {:>13} {:>10}\n", "layer", "recall %", "precision %",
             "candidates %", "active %");
  for (size_t layer = 0; layer < audit.layers.size(); ++layer) {
    print_counts(std::to_string(layer), audit.layers[layer]);
  }
  print_counts("all", audit.whole());
  fmt::print("predictor {:.4f} ms per decode step, {:.1f} % of the FFN's time\n",
             mean_predictor_ms(plan, outcome), 100 * predictor_time_share(outcome));
  fmt::print(
      "logits    max |difference| {:.4g}, mean KL divergence {:.4g} nats, top-1 agreement "
      "{:.2f} %\n",
      audit.logits.largest, audit.logits.mean_divergence(), 100 * audit.logits.top1_agreement());
}

Json run_row(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome) {
  Json row = origin("run", options, plan);
  row["trace_hash"] = outcome.trace_hash;
  row["prompts"] = plan.prompts_text;
  row["prompts_hash"] = plan.prompts_hash;
  row["ranks"] = plan.partition.layout.rank_count();
  row["threads"] = outcome.thread_count;
  row["backend"] = outcome.backend;
  row["device"] = outcome.device;
  row["teacher_forced"] = options.teacher_forced;
  if (!options.teacher_forced) row.update(decoding_facts(options, plan));
  row["batch"] = plan.batch;
  row["predictor"] = plan.predictor.text();
  row["task_count"] = outcome.ttft_ms.size();
  row["step_count"] = outcome.step_count;
  row["activation_thresholds"] = outcome.activation_thresholds;
  row["ttft_ms"] = json_of(distribution_of(outcome.ttft_ms));
  row["tpot_ms"] = json_of(distribution_of(outcome.tpot_ms));
  row["decode_tokens_per_second"] = decode_tokens_per_second(outcome);
  for (const BenchFigure& figure : bench_figures(plan, outcome)) {
    if (figure.name != "layer") continue;
    row["layer_ms"] = figure.ms;
    row["layer_gb_per_s"] = figure.gb_per_s;
  }
  row["read_gb_per_s"] = stage_bandwidth(plan, outcome) * 1e-9;
  row["weight_bytes"] = total_weights(outcome);
  row["peak_rss_bytes"] = total_rss(outcome);
  if (const auto step = predicted_step(plan, outcome.tpot_ms)) {
    row["cluster"] = plan.live.cluster.name;
    row["left_out"] = left_out_ranks(plan);
    row["predicted_step_ms"] = step->predicted_ms;
    row["executed_step_ms"] = step->executed_ms;
    row["predicted_over_executed"] = step->predicted_over_executed();
  }
  row["source"] = "measured";
  row["text"] = outcome.texts;
  return row;
}

Json rank_row(const RunOptions& options, const RunPlan& plan, const RankFacts& facts,
              const RankShare& share) {
  Json row = origin("rank", options, plan);
  row["rank"] = plan.job_rank(share.rank);
  row["stage"] = share.stage;
  row["layers"] = share.layers.count;
  row["kv_heads"] = share.kv_heads.count;
  row["neurons"] = share.neurons.count;
  row["compute_ms"] = mean_ms(facts.sums.compute_ns, facts.sums.step_count);
  row["comm_ms"] = mean_ms(facts.sums.comm_ns, facts.sums.step_count);
  row["wait_ms"] = mean_ms(facts.sums.wait_ns, facts.sums.step_count);
  row["transfer_ms"] = mean_ms(facts.sums.transfer_ns, facts.sums.step_count);
  row["read_gb_per_s"] = facts.read_bandwidth * 1e-9;
  row["weight_bytes"] = facts.weight_bytes;
  row["peak_rss_bytes"] = facts.peak_rss_bytes;
  if (plan.solved.has_value()) row.update(partition_facts(plan, plan.job_rank(share.rank)));
  row["source"] = "measured";
  return row;
}

double per_decode_step(uint64_t bytes, const RunOutcome& outcome) {
  const uint64_t steps = outcome.ranks.at(0).sums.step_count;
  return steps == 0 ? 0.0 : static_cast<double>(bytes) / static_cast<double>(steps);
}

// Payload that one rank sent to another.
void add_link_rows(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                   Json& rows) {
  for (size_t from = 0; from < outcome.sent.size(); ++from) {
    const SentBytes& sent = outcome.sent[from];
    for (size_t to = 0; to < sent.run.size(); ++to) {
      if (sent.run[to] == 0) continue;
      Json row = origin("link", options, plan);
      row["from"] = from;
      row["to"] = to;
      row["run_bytes"] = sent.run[to];
      row["decode_bytes"] = sent.decode[to];
      row["decode_bytes_per_step"] = per_decode_step(sent.decode[to], outcome);
      row["source"] = "measured";
      rows.push_back(row);
    }
  }
}

void print_links(const RunOutcome& outcome) {
  if (outcome.sent.size() < 2) return;
  uint64_t run = 0, decode = 0, most = 0;
  size_t most_from = 0, most_to = 0;
  for (size_t from = 0; from < outcome.sent.size(); ++from) {
    for (size_t to = 0; to < outcome.sent[from].decode.size(); ++to) {
      const uint64_t bytes = outcome.sent[from].decode[to];
      run += outcome.sent[from].run[to];
      decode += bytes;
      if (bytes <= most) continue;
      most = bytes;
      most_from = from;
      most_to = to;
    }
  }
  const auto step_text = [&](uint64_t bytes) {
    return format_bytes(static_cast<uint64_t>(per_decode_step(bytes, outcome)));
  };
  fmt::print("links: {} per decode step, at most {} (from rank {} to {}); {} in the whole run\n",
             step_text(decode), step_text(most), most_from, most_to, format_bytes(run));
}

// Ranks of the job that held nothing, with the keys of those that did.
void add_left_out_rows(const RunOptions& options, const RunPlan& plan, Json& rows) {
  for (const uint32_t job_rank : left_out_ranks(plan)) {
    Json row = rank_row(options, plan, RankFacts{}, RankShare{});
    row["rank"] = job_rank;
    row.update(partition_facts(plan, job_rank));
    rows.push_back(row);
  }
}

// What the disk tier did on a rank, over all passes.
Json tier_row(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
              uint32_t rank) {
  const StoreFacts& facts = outcome.ranks[rank].store;
  Json row = origin("tier", options, plan);
  row["rank"] = plan.job_rank(rank);
  row["tiers"] = name_of(plan.tiers);
  row["tier"] = hot_tiers(plan.tiers).back();
  row["disk_reads"] = outcome.disk_reads;
  row["budget_bytes"] = plan.hot_budget(hot_tiers(plan.tiers).size() - 1);
  row["hot_bytes"] = facts.hot_bytes;
  row["staging_bytes"] = facts.staging_bytes;
  row["passage_bytes"] = facts.passage_bytes;
  row["read_ahead"] = plan.read_ahead.has_value() ? Json(plan.read_ahead->text()) : Json(nullptr);
  for_each_counter(facts.counters, hot_tiers(plan.tiers).back(),
                   [&](const char* name, uint64_t count) { row[name] = count; });
  row["disk_wait_ms"] = static_cast<double>(facts.counters.wait_ns) * 1e-6;
  row["source"] = "measured";
  return row;
}

// The fastest first.
void add_tier_rows(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                   Json& rows) {
  for (uint32_t rank = 0; rank < outcome.ranks.size(); ++rank) {
    if (has_device_tier(plan.tiers)) {
      rows.push_back(origin("tier", options, plan));
      rows.back().update(side_by_side_facts(plan, outcome, rank));
    }
    if (!outcome.disk_reads.empty()) rows.push_back(tier_row(options, plan, outcome, rank));
  }
}

// Below the line of a rank: what it read early, and for whom.
void print_other_reads(const RunPlan& plan, const TierCounters& counters, double steps) {
  const auto per_step = [&](uint64_t count) { return static_cast<double>(count) / steps; };
  if (counters.ahead_count > 0) {
    fmt::print("     {:.1f} bundles a step were read ahead by {}, {:.1f} % of them needed\n",
               per_step(counters.ahead_count), plan.read_ahead->text(),
               100.0 * static_cast<double>(counters.ahead_used) /
                   static_cast<double>(counters.ahead_count));
  }
  if (counters.passed_count > 0) {
    fmt::print("     {:.1f} bundles a step, {}, were read for the device: not hot on the host\n",
               per_step(counters.passed_count),
               format_bytes(static_cast<uint64_t>(per_step(counters.passed_bytes))));
  }
}

void print_tiers(const RunPlan& plan, const RunOutcome& outcome) {
  if (outcome.disk_reads.empty()) return;
  fmt::print("\n{:>4} {:>12} {:>12} {:>12} {:>12} {:>10} {:>12} {:>10}   (disk tier, {})\n", "rank",
             "hot room", "staged", "in memory %", "read/step", "reads/step", "moved/step",
             "waits ms", outcome.disk_reads);
  const double steps = static_cast<double>(std::max<uint64_t>(1, outcome.step_count));
  const auto per_step = [&](uint64_t bytes) {
    return format_bytes(static_cast<uint64_t>(static_cast<double>(bytes) / steps));
  };
  for (const RankShare& share : plan.partition.ranks) {
    const StoreFacts& facts = outcome.ranks[share.rank].store;
    const TierCounters& tiers = facts.counters;
    const double needed = static_cast<double>(std::max<uint64_t>(1, tiers.needed));
    fmt::print("{:>4} {:>12} {:>12} {:>12.2f} {:>12} {:>10.1f} {:>12} {:>10.3f}\n",
               plan.job_rank(share.rank), format_bytes(facts.hot_bytes),
               format_bytes(facts.staging_bytes), 100.0 * static_cast<double>(tiers.here) / needed,
               per_step(tiers.read_bytes), static_cast<double>(tiers.read_count) / steps,
               per_step(tiers.moved_bytes), static_cast<double>(tiers.wait_ns) * 1e-6 / steps);
    print_other_reads(plan, tiers, steps);
  }
  if (plan.tiers != TierLayout::device_host_disk) return;
  fmt::print("in memory: of what is needed and cold on the device\n");
}

double budget_percent(const RunPlan& plan, uint64_t budget_bytes) {
  const uint64_t whole = thermocline::ffn_bytes(plan.shape, plan.ffn_types);
  return 100.0 * static_cast<double>(budget_bytes) / static_cast<double>(whole);
}

Json policy_row(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                size_t index) {
  const LivePolicyResult& result = outcome.policies[index];
  const HotSetStats& stats = result.stats;
  const uint64_t bundle = bundle_bytes(plan.shape, plan.ffn_types);
  Json row = origin("policy", options, plan);
  row["trace_hash"] = outcome.trace_hash;
  row["policy"] = result.policy.entry->name;
  row["parameters"] = result.policy.parameters();
  row["oracle"] = result.policy.entry->needs_future;
  const std::string_view tier = plan.hot_tier(index);
  row["tier"] = tier.empty() ? Json(nullptr) : Json(tier);
  row["budget_bytes"] = result.budget_bytes;
  row["budget_percent"] = budget_percent(plan, result.budget_bytes);
  row["hit_ratio"] = hit_ratio(stats);
  row["byte_hit_ratio"] = hit_ratio(stats);  // all bundles of a model have the same size
  row["moved_bytes_per_token"] = moved_bytes_per_token(stats, bundle);
  row["hot_bytes_peak"] = stats.hot_count_peak * bundle;
  row["source"] = "measured";
  for_each_counter(stats, [&](const char* name, uint64_t count) { row["counters"][name] = count; });
  return row;
}

void print_policies(const RunPlan& plan, const RunOutcome& outcome) {
  if (outcome.policies.empty()) return;
  fmt::print("\n{:<28} {:>12} {:>7} {:>7} {:>12} {:>12}\n", "live policy", "budget", "% FFN",
             "hits %", "moved/token", "peak hot");
  const uint64_t bundle = bundle_bytes(plan.shape, plan.ffn_types);
  for (size_t i = 0; i < outcome.policies.size(); ++i) {
    const LivePolicyResult& result = outcome.policies[i];
    const std::string of_tier =
        plan.tiers == TierLayout::device_host_disk ? fmt::format(" ({})", plan.hot_tier(i)) : "";
    fmt::print("{:<28} {:>12} {:>7.1f} {:>7.2f} {:>12} {:>12}\n", result.policy.label() + of_tier,
               format_bytes(result.budget_bytes), budget_percent(plan, result.budget_bytes),
               100.0 * hit_ratio(result.stats),
               format_bytes(static_cast<uint64_t>(moved_bytes_per_token(result.stats, bundle))),
               format_bytes(result.stats.hot_count_peak * bundle));
  }
}

void print_ranks(const RunPlan& plan, const RunOutcome& outcome) {
  fmt::print("\n{:>4} {:>5} {:>6} {:>7} {:>10} {:>8} {:>8} {:>12} {:>12}   (ms per decode step)\n",
             "rank", "stage", "layers", "neurons", "compute", "comm", "wait", "weights",
             "peak RSS");
  for (const RankShare& share : plan.partition.ranks) {
    const RankFacts& facts = outcome.ranks[share.rank];
    const uint64_t steps = facts.sums.step_count;
    fmt::print("{:>4} {:>5} {:>6} {:>7} {:>10.3f} {:>8.3f} {:>8.3f} {:>12} {:>12}\n",
               plan.job_rank(share.rank), share.stage, share.layers.count, share.neurons.count,
               mean_ms(facts.sums.compute_ns, steps), mean_ms(facts.sums.comm_ns, steps),
               mean_ms(facts.sums.wait_ns, steps), format_bytes(facts.weight_bytes),
               format_bytes(facts.peak_rss_bytes));
  }
  for (const uint32_t job_rank : left_out_ranks(plan)) {
    fmt::print("{:>4}   {}\n", job_rank, plan.solved->ranks[job_rank].reason);
  }
  fmt::print("peak RSS {}: {}\n", outcome.one_process ? "of the one process" : "in total",
             format_bytes(total_rss(outcome)));
  print_links(outcome);
}

void print_figures(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome) {
  const double limit = stage_bandwidth(plan, outcome) * 1e-9;
  for (const BenchFigure& figure : bench_figures(plan, outcome)) {
    if (!options.bench && figure.name != "layer") continue;
    fmt::print("{:<9} {:>10.3f} ms {:>12} {:>8.2f} GB/s, {:.0f} % of {:.2f} GB/s read bandwidth\n",
               figure.name, figure.ms, format_bytes(figure.bytes), figure.gb_per_s,
               100 * figure.share_of_limit, limit);
  }
}

}  // namespace

std::vector<BenchFigure> bench_figures(const RunPlan& plan, const RunOutcome& outcome) {
  if (outcome.ranks.empty() || outcome.ranks[0].sums.step_count == 0) return {};
  const double limit = stage_bandwidth(plan, outcome);
  const auto figure = [&](const std::string& name, double bytes, double ms) {
    const double rate = ms > 0 ? bytes / (ms * 1e-3) : 0.0;
    return BenchFigure{name, static_cast<uint64_t>(bytes), ms, rate * 1e-9,
                       limit > 0 ? rate / limit : 0.0};
  };
  double attention_bytes = 0, ffn_bytes = 0, head_bytes = 0;
  for (const RankFacts& rank : outcome.ranks) {
    attention_bytes += static_cast<double>(rank.attention_bytes);
    ffn_bytes += static_cast<double>(rank.ffn_bytes);
    head_bytes += static_cast<double>(rank.head_bytes);
  }
  const double attention_ms = stage_sum(plan, outcome, [](const RankFacts& rank) {
    return mean_ms(rank.sums.attention_ns, rank.sums.pass_count);
  });
  const double ffn_ms = stage_sum(plan, outcome, [](const RankFacts& rank) {
    return mean_ms(rank.sums.ffn_ns, rank.sums.pass_count);
  });
  const double head_ms = stage_sum(plan, outcome, [](const RankFacts& rank) {
    return mean_ms(rank.sums.head_ns, rank.sums.pass_count);
  });
  const double layers = plan.shape.layer_count;
  return {figure("attention", attention_bytes / layers, attention_ms / layers),
          figure("ffn", ffn_bytes / layers, ffn_ms / layers),
          figure("layer", (attention_bytes + ffn_bytes) / layers, (attention_ms + ffn_ms) / layers),
          figure("head", head_bytes, head_ms)};
}

double decode_tokens_per_second(const RunOutcome& outcome) {
  if (outcome.ranks.empty()) return 0.0;
  const DecodeSums& sums = outcome.ranks[0].sums;
  // The passes' durations.
  const uint64_t ns = sums.compute_ns + sums.transfer_ns + sums.comm_ns + sums.wait_ns;
  return ns == 0 ? 0.0 : static_cast<double>(sums.step_count) / (static_cast<double>(ns) * 1e-9);
}

Json run_rows(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome) {
  Json rows = Json::array();
  rows.push_back(run_row(options, plan, outcome));
  for (const RankShare& share : plan.partition.ranks) {
    rows.push_back(rank_row(options, plan, outcome.ranks[share.rank], share));
  }
  add_link_rows(options, plan, outcome, rows);
  add_left_out_rows(options, plan, rows);
  add_tier_rows(options, plan, outcome, rows);
  for (size_t i = 0; i < outcome.policies.size(); ++i) {
    rows.push_back(policy_row(options, plan, outcome, i));
  }
  add_audit_rows(options, plan, outcome, rows);
  if (!options.bench) return rows;
  for (const BenchFigure& figure : bench_figures(plan, outcome)) {
    Json row = origin("bench", options, plan);
    row["name"] = figure.name;
    row["bytes"] = figure.bytes;
    row["ms"] = figure.ms;
    row["gb_per_s"] = figure.gb_per_s;
    row["share_of_limit"] = figure.share_of_limit;
    row["source"] = "measured";
    rows.push_back(row);
  }
  return rows;
}

void print_run(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome) {
  fmt::print("\n{} {} ({}), {} steps of {} ({} weights)\n", outcome.ttft_ms.size(),
             options.samples_per_task > 1 ? "samples" : "tasks", plan.prompts_text,
             outcome.step_count, plan.spec.text, plan.weight_provenance);
  fmt::print("TTFT  {}\nTPOT  {}\n", text_of(distribution_of(outcome.ttft_ms)),
             text_of(distribution_of(outcome.tpot_ms)));
  if (const double rate = decode_tokens_per_second(outcome); rate > 0) {
    fmt::print("decode {:.2f} tokens/s, {} in flight\n", rate, plan.batch);
  }
  if (const auto step = predicted_step(plan, outcome.tpot_ms)) {
    fmt::print(
        "step   {:.3f} ms predicted (modelled on cluster '{}'), {:.3f} ms executed "
        "(measured): predicted over executed {:.3f}\n",
        step->predicted_ms, plan.live.cluster.name, step->executed_ms,
        step->predicted_over_executed());
  }
  print_figures(options, plan, outcome);
  print_ranks(plan, outcome);
  print_tiers(plan, outcome);
  print_side_by_side(plan, outcome);
  print_policies(plan, outcome);
  print_audit(plan, outcome);
  if (!options.record.empty()) fmt::print("\ntrace {}: {}\n", options.record, outcome.trace_hash);
  if (!options.samples.empty()) fmt::print("\nsamples {}\n", options.samples);
}

Json decoding_facts(const RunOptions& options, const RunPlan& plan) {
  return {{"temperature", plan.sampling.temperature},
          {"top_p", plan.sampling.top_p},
          {"samples_per_task", options.samples_per_task},
          {"stop", plan.stop.strings}};
}

std::string describe(const RunPlan& plan) {
  const ModelShape& shape = plan.shape;
  return fmt::format("{} ({} weights {}): {} layers, model_dim {}, ffn_dim {}, {}, {}; {}",
                     plan.spec.text, plan.weight_provenance, plan.weight_hash, shape.layer_count,
                     shape.model_dim, shape.ffn_dim, name_of(plan.ffn_types),
                     name_of(shape.activation), plan.partition.layout.text());
}

}  // namespace thermocline
