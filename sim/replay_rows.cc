#include "sim/replay_rows.h"

#include <algorithm>

#include "models/cli.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const std::optional<ThresholdRange>& range) {
  if (!range.has_value()) return nullptr;
  return {{"first", range->first},
          {"last", range->last},
          {"lowest", range->lowest},
          {"highest", range->highest}};
}

Json json_of(const HotSetStats& stats) {
  Json counters;
  for_each_counter(stats, [&](const char* name, uint64_t count) { counters[name] = count; });
  return counters;
}

Json json_of(const std::optional<Interval>& interval) {
  if (!interval.has_value()) return nullptr;
  return {interval->low, interval->high};
}

const char* name_of(Pools pools) {
  return pools == Pools::rank ? "rank" : pools == Pools::layer ? "layer" : "model";
}

// What every row says about where it comes from.
Json origin_of(const std::string& kind, const ReplayReport& report) {
  const TraceHeader& header = *report.header;
  return {{"kind", kind},
          {"model", header.model},
          {"weights", header.weight_provenance},
          {"weight_hash", header.weight_hash},
          {"trace_hash", report.trace_hash},
          {"profile_hash", report.profile_hash},
          {"layout", header.layout},
          {"activation_rule", header.activation_rule},
          {"seed", header.seed},
          {"version", kVersion}};
}

double percent_of_ffn(const ReplayReport& report, uint64_t bytes) {
  const TraceHeader& header = *report.header;
  return 100.0 * static_cast<double>(bytes) /
         static_cast<double>(ffn_bytes(header.shape, header.ffn_types));
}

// The conditions that make a comparison fair, in every row.
void add_conditions(Json& json, const ReplayReport& report, const PolicySpec& policy) {
  const ReplayOptions& options = *report.options;
  json["fill"] = options.fill == Fill::demand ? "demand" : "step";
  json["pools"] = name_of(options.pools);
  json["group"] = options.group;
  json["batch"] = report.batch;
  json["warmup_steps"] = options.warmup_steps;
  json["migration_bytes"] = options.migration_bytes;
  const bool tuned = report.tuned.count(policy.resolved()) > 0;
  json["tuned_on"] = tuned ? Json(report.tuned_on) : Json(nullptr);
}

// Bytes for each step (a token; with a batch, a step of all its requests).
void add_traffic(Json& json, const HotSetStats& total, uint64_t bundle) {
  const double steps = static_cast<double>(std::max<uint64_t>(total.step_count, 1));
  const auto per_step = [&](uint64_t bundles) {
    return static_cast<double>(bundles * bundle) / steps;
  };
  json["hit_ratio"] = hit_ratio(total);
  json["byte_hit_ratio"] = hit_ratio(total);  // all bundles of a model have the same size
  json["miss_bytes_per_token"] = per_step(total.needed - total.hits);
  json["moved_bytes_per_token"] = per_step(total.admitted);
  json["wasted_bytes_per_token"] = per_step(total.wasted);
  json["migrations_per_token"] = static_cast<double>(total.admitted) / steps;
  json["hot_bytes_peak"] = total.hot_count_peak * bundle;
  json["hot_bytes_mean"] = per_step(total.hot_count_sum);
}

void add_times(Json& json, const ReplayReport& report, size_t i) {
  const ReplayStats& row = report.result.rows[i];
  const auto tpot = tpot_of(row);
  json["ttft_ms"] = thermocline::json_of(ttft_of(row));
  json["tpot_ms"] = thermocline::json_of(tpot);
  json["tpot_ci95"] = json_of(report.analysis.rows[i].tpot_ms);
  json["hit_ratio_ci95"] = json_of(report.analysis.rows[i].hit_ratio);
  json["tpot_hidden_ms"] = nullptr;
  json["tokens_per_s"] = json["tokens_per_s_per_gib"] = nullptr;
  if (tpot) {
    const auto tokens = static_cast<double>(row.account.token_count);
    const double per_second = 1e3 * tokens / row.account.decode_ms;
    json["tpot_hidden_ms"] = *hidden_tpot_of(row);
    json["tokens_per_s"] = per_second;
    const double gib = json["hot_bytes_mean"].get<double>() / (uint64_t{1} << 30);
    if (gib > 0) json["tokens_per_s_per_gib"] = per_second / gib;
  }
  json["source"] = "modelled";
  json["cluster"] = report.cluster->name;
  json["cluster_measured"] = report.cluster->measured;
  json["gate"] = report.gate;
  json["fits"] = static_cast<bool>(report.fits[i]);
}

// The host's hot set, and how many neurons each tier was asked for.
void add_host(Json& json, const ReplayReport& report, const ReplayStats& row) {
  if (!row.host) return;
  const HostHotSet& host = *row.host;
  json["tiers"] = kDeviceHostDisk;
  json["host_budget_bytes"] = host.budget_bytes;
  json["host_budget_percent"] = percent_of_ffn(report, host.budget_bytes);
  json["host_hit_ratio"] = hit_ratio(host.total);
  json["host_moved_bytes_per_token"] =
      moved_bytes_per_token(host.total, report.header->bundle_bytes());
  json["needed_from"] = {
      {"device", host.needs.device}, {"host", host.needs.host}, {"disk", host.needs.disk}};
  json["host_passed"] = host.needs.passed;
  json["host_counters"] = json_of(host.total);
  json["executed_tpot_ms"] = json["predicted_over_executed"] = nullptr;
  if (!was_executed(report, row)) return;
  const Distribution& executed = report.in_tiers->step_ms;
  json["executed_tpot_ms"] = thermocline::json_of(std::optional(executed));
  if (const auto predicted = hidden_tpot_of(row)) {
    json["predicted_over_executed"] = *predicted / executed.mean;
  }
}

// The hit ratio of an oracle at the row's budget, less the row's; null where it was not replayed.
Json regret(const ReplayReport& report, const ReplayStats& row, const std::string& oracle) {
  for (const ReplayStats& other : report.result.rows) {
    if (other.policy.entry->name != oracle || other.budget_bytes != row.budget_bytes) continue;
    return hit_ratio(other.total) - hit_ratio(row.total);
  }
  return nullptr;
}

// Thresholds step by step are long: of one task, at the middle budget.
Json watched(const ReplayReport& report, size_t i) {
  const size_t budget_count = report.options->budgets.size();
  const ReplayStats& row = report.result.rows[i];
  const bool any = std::any_of(row.watched_threshold.begin(), row.watched_threshold.end(),
                               [](const auto& value) { return value.has_value(); });
  if (i % budget_count != budget_count / 2 || !any) return nullptr;
  Json values = Json::array();
  for (const auto& value : row.watched_threshold) {
    values.push_back(value ? Json(*value) : Json(nullptr));
  }
  return {{"task_id", report.task_ids.at(report.result.watched_task)}, {"values", values}};
}

Json policy_row(const ReplayReport& report, size_t i) {
  const ReplayStats& row = report.result.rows[i];
  Json json = origin_of("policy", report);
  json["policy"] = row.policy.entry->name;
  json["parameters"] = row.policy.parameters();
  json["oracle"] = row.policy.entry->needs_future;
  json["budget_bytes"] = row.budget_bytes;
  json["budget_percent"] = percent_of_ffn(report, row.budget_bytes);
  add_conditions(json, report, row.policy);
  add_traffic(json, row.total, report.header->bundle_bytes());
  json["regret_static"] = regret(report, row, "oracle-static");
  json["regret_clairvoyant"] = regret(report, row, "belady");
  json["hot_threshold"] = json_of(row.threshold);
  json["threshold_by_step"] = watched(report, i);
  json["hot_by_layer"] = row.hot_by_layer;
  add_times(json, report, i);
  json["counters"] = json_of(row.total);
  add_host(json, report, row);
  return json;
}

Json comparison_row(const ReplayReport& report, const PolicyComparison& comparison) {
  const ReplayStats& row = report.result.rows[comparison.row];
  const ReplayStats& versus = report.result.rows[comparison.versus];
  const PairedDifference& paired = comparison.difference;
  Json json = origin_of("comparison", report);
  json["policy"] = row.policy.entry->name;
  json["parameters"] = row.policy.parameters();
  json["oracle"] = row.policy.entry->needs_future;
  json["versus"] = versus.policy.entry->name;
  json["versus_parameters"] = versus.policy.parameters();
  json["budget_bytes"] = row.budget_bytes;
  json["budget_percent"] = percent_of_ffn(report, row.budget_bytes);
  add_conditions(json, report, row.policy);
  const bool hits = comparison.metric == TaskMetric::hit_ratio;
  json["metric"] = hits ? "hit_ratio" : "tpot_ms";
  json["source"] = hits ? "measured" : "modelled";
  json["value"] = comparison.value;
  json["versus_value"] = comparison.versus_value;
  json["difference"] = paired.difference;
  json["ci95"] = json_of(paired.interval);
  json["tasks"] = paired.tasks();
  json["tasks_won"] = paired.tasks_won;
  json["tasks_lost"] = paired.tasks_lost;
  json["tasks_tied"] = paired.tasks_tied;
  json["resamples"] = report.analysis.resample_count;
  return json;
}

}  // namespace

std::optional<Distribution> tpot_of(const ReplayStats& row) {
  return row.account.tpot_ms.distribution();
}

std::optional<double> hidden_tpot_of(const ReplayStats& row) {
  if (row.account.token_count == 0) return std::nullopt;
  return row.account.hidden_ms / static_cast<double>(row.account.token_count);
}

bool was_executed(const ReplayReport& report, const ReplayStats& row) {
  const auto& executed = report.in_tiers;
  return executed && row.host && report.batch == 1 && executed->policy == row.policy.resolved() &&
         executed->device_bytes == row.budget_bytes &&
         executed->host_bytes == row.host->budget_bytes &&
         executed->migration_bytes == report.options->migration_bytes;
}

std::optional<Distribution> ttft_of(const ReplayStats& row) {
  std::vector<double> times;
  for (const double ms : row.account.ttft_ms) {
    if (ms > 0) times.push_back(ms);
  }
  return distribution_of(times);
}

nlohmann::ordered_json replay_rows(const ReplayReport& report) {
  Json rows = Json::array();
  for (size_t i = 0; i < report.result.rows.size(); ++i) rows.push_back(policy_row(report, i));
  for (const PolicyComparison& comparison : report.analysis.comparisons) {
    rows.push_back(comparison_row(report, comparison));
  }
  return rows;
}

nlohmann::ordered_json executed_row(const ReplayReport& report,
                                    const ExecutedComparison& executed) {
  Json json = origin_of("executed", report);
  json["step_count"] = executed.step_count;
  json["executed_tpot_ms"] = thermocline::json_of(std::optional(executed.executed_ms));
  json["predicted_tpot_ms"] = thermocline::json_of(std::optional(executed.predicted_ms));
  json["predicted_over_executed"] = executed.predicted_over_executed;
  json["compute_predicted_over_measured"] = executed.compute_ratio;
  json["measured_overhead_ms"] = executed.measured_overhead_ms;
  json["source"] = "modelled";
  json["gate"] = "exact";
  return json;
}

}  // namespace thermocline
