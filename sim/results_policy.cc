// Rows of the kinds "policy", "comparison" and "execution".
#include <algorithm>
#include <array>

#include "sim/policy_driver.h"
#include "sim/row_reader.h"

namespace thermocline {
namespace {

// What older results lack.
constexpr std::array<std::string_view, 2> kNewerCounters = {"wasted", "hot_count_sum"};

Counters counters_of(const RowReader& row, const char* key) {
  const RowReader object = row.object(key);
  const HotSetStats none;
  for_each_counter(none, [&](const char* name, uint64_t) {
    const auto is = [&](std::string_view newer) { return name == newer; };
    if (std::none_of(kNewerCounters.begin(), kNewerCounters.end(), is)) object.count(name);
  });
  Counters counters;
  for (const auto& [name, value] : object.json().items()) {
    counters[name] = object.count(name.c_str());
  }
  return counters;
}

// A string, or an object of values: "halflife=32,cap=200".
std::string parameters_of(const RowReader& row, const char* key) {
  const Json* value = row.find(key);
  if (value == nullptr || value->is_string()) return row.text_or(key, "");
  std::string text;
  const RowReader object = row.object(key);
  for (const auto& [name, item] : object.json().items()) {
    text += (text.empty() ? "" : ",") + name + "=" +
            (item.is_string() ? item.get<std::string>() : item.dump());
  }
  return text;
}

std::optional<ThresholdSeries> thresholds_of(const RowReader& row) {
  if (row.find("threshold_by_step") == nullptr) return std::nullopt;
  const RowReader object = row.object("threshold_by_step");
  return ThresholdSeries{object.any_text_or("task_id", ""), object.numbers("values")};
}

// Mean shares of each layer that were hot.
std::vector<double> layer_shares_of(const RowReader& row) {
  std::vector<double> shares;
  if (row.find("hot_by_layer") == nullptr) return shares;
  for (const std::optional<double>& share : row.numbers("hot_by_layer")) {
    shares.push_back(std::clamp(share.value_or(0), 0.0, 1.0));
  }
  return shares;
}

// What older results lack.
void read_times_and_bytes(PolicyRow& row, const RowReader& reader) {
  row.miss_bytes_per_token = reader.optional_number("miss_bytes_per_token");
  row.wasted_bytes_per_token = reader.optional_number("wasted_bytes_per_token");
  row.migrations_per_token = reader.optional_number("migrations_per_token");
  row.hot_bytes_mean = reader.optional_number("hot_bytes_mean");
  row.ttft_ms = reader.distribution("ttft_ms");
  row.tpot_ci95 = reader.interval("tpot_ci95");
  row.tpot_hidden_ms = reader.optional_number("tpot_hidden_ms");
  row.tokens_per_s_per_gib = reader.optional_number("tokens_per_s_per_gib");
  row.regret_static = reader.optional_number("regret_static");
  row.regret_clairvoyant = reader.optional_number("regret_clairvoyant");
  row.hot_by_layer = layer_shares_of(reader);
  row.thresholds = thresholds_of(reader);
}

void read_settings(PolicyRow& row, const RowReader& reader) {
  row.batch = reader.count_or("batch", 1);
  row.fill = reader.text_or("fill", "");
  row.pools = reader.text_or("pools", "");
  row.group = reader.any_text_or("group", "");
  row.regime = reader.text_or("regime", "");
  row.tuned_on = reader.text_or("tuned_on", "");
  row.warmup_steps = reader.count_or("warmup_steps", 0);
  if (reader.find("migration_bytes") != nullptr) {
    row.migration_bytes = reader.count("migration_bytes");
  }
}

TaskMetric metric_of(const RowReader& row) {
  const std::string name = row.text("metric");
  if (name == "hit_ratio") return TaskMetric::hit_ratio;
  if (name == "tpot_ms") return TaskMetric::tpot_ms;
  throw bad_input(row.place(), "\"tpot_ms\" or \"hit_ratio\" as 'metric'", name);
}

}  // namespace

void add_policy_row(ModelResults& model, const RowReader& reader) {
  PolicyRow row;
  row.policy = reader.text("policy");
  row.parameters = parameters_of(reader, "parameters");
  row.oracle = reader.flag("oracle");
  row.live = reader.text("source") == "measured";
  row.weights = reader.text("weights");
  row.weight_hash = reader.text_or("weight_hash", "");
  row.trace_hash = reader.text_or("trace_hash", "");
  row.budget_bytes = reader.count("budget_bytes");
  row.budget_percent = reader.number_from("budget_percent", 0, 100);
  row.hit_ratio = reader.number_from("hit_ratio", 0, 1);
  row.byte_hit_ratio = reader.number_from("byte_hit_ratio", 0, 1);
  row.moved_bytes_per_token = reader.number_from("moved_bytes_per_token", 0, 1e18);
  row.hot_bytes_peak = reader.count("hot_bytes_peak");
  row.tpot_ms = reader.distribution("tpot_ms");
  row.cluster = reader.text_or("cluster", "");
  row.cluster_measured = reader.flag_or("cluster_measured", false);
  row.fits = reader.flag_or("fits", true);
  row.gate = reader.text_or("gate", "");
  row.counters = counters_of(reader, "counters");
  read_settings(row, reader);
  read_times_and_bytes(row, reader);
  (row.live ? model.live : model.replayed).push_back(row);
}

int ComparisonRow::sign() const {
  const double low = ci95 ? ci95->low : difference, high = ci95 ? ci95->high : difference;
  const int above = low > 0 ? 1 : high < 0 ? -1 : 0;
  return metric == TaskMetric::hit_ratio ? above : -above;
}

void add_comparison_row(ModelResults& model, const RowReader& reader) {
  ComparisonRow row;
  row.policy = reader.text("policy");
  row.parameters = parameters_of(reader, "parameters");
  row.versus = reader.text("versus");
  row.versus_parameters = parameters_of(reader, "versus_parameters");
  row.budget_bytes = reader.count("budget_bytes");
  row.budget_percent = reader.number_from("budget_percent", 0, 100);
  row.batch = reader.count_or("batch", 1);
  row.metric = metric_of(reader);
  row.value = reader.number("value");
  row.versus_value = reader.number("versus_value");
  row.difference = reader.number("difference");
  row.ci95 = reader.interval("ci95");
  row.tasks = reader.count("tasks");
  row.tasks_won = reader.count("tasks_won");
  row.tasks_lost = reader.count("tasks_lost");
  row.tasks_tied = reader.count("tasks_tied");
  row.resamples = reader.count_or("resamples", 0);
  model.comparisons.push_back(row);
}

namespace {

std::optional<HostExecution> host_execution(const RowReader& reader) {
  if (reader.find("host_counters") == nullptr) return std::nullopt;
  HostExecution host;
  host.budget_bytes = reader.count("host_budget_bytes");
  host.budget_percent = reader.number("host_budget_percent");
  host.hit_ratio = reader.number_from("host_hit_ratio", 0, 1);
  host.in_tier = reader.number_from("in_host_tier", 0, 1);
  host.counters = counters_of(reader, "host_counters");
  host.predicted_counters = counters_of(reader, "predicted_host_counters");
  return host;
}

}  // namespace

void add_execution_row(ModelResults& model, const RowReader& reader) {
  ExecutionRow row;
  row.tiers = reader.text("tiers");
  row.policy = reader.text("policy");
  row.parameters = parameters_of(reader, "parameters");
  row.oracle = reader.flag_or("oracle", false);
  row.budget_bytes = reader.count("budget_bytes");
  row.budget_percent = reader.number("budget_percent");
  row.hit_ratio = reader.number_from("hit_ratio", 0, 1);
  row.ttft_ms = reader.distribution("ttft_ms");
  row.tpot_ms = reader.distribution("tpot_ms");
  row.predicted_ms = reader.optional_number("predicted_tpot_ms");
  row.predicted_over_executed = reader.optional_number("predicted_over_executed");
  row.in_fast_tier = reader.number_from("in_fast_tier", 0, 1);
  row.hot_bytes = reader.number("hot_bytes");
  row.staging_bytes = reader.number("staging_bytes");
  row.read_bytes_per_step = reader.number("read_bytes_per_step");
  row.moved_bytes_per_step = reader.number("moved_bytes_per_step");
  row.compute_ms = reader.number("compute_ms");
  row.transfer_ms = reader.number("transfer_ms");
  row.weight_bytes = reader.count("weight_bytes");
  row.peak_rss_bytes = reader.count("peak_rss_bytes");
  row.trace_hash = reader.text("trace_hash");
  row.predicted_trace_hash = reader.text("predicted_trace_hash");
  row.counters = counters_of(reader, "counters");
  row.predicted_counters = counters_of(reader, "predicted_counters");
  row.host = host_execution(reader);
  model.executions.push_back(std::move(row));
}

}  // namespace thermocline
