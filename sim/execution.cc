#include "sim/execution.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "models/node.h"
#include "sim/row_reader.h"

namespace thermocline {
namespace {

constexpr std::string_view kExecute = "execute ", kPredict = "predict ";

// The rows that one stage of one model wrote.
using StageRows = std::map<std::string, std::vector<const Json*>>;  // by kind

std::string second_word(const std::string& text) {
  const size_t begin = text.find(' ') + 1;
  return text.substr(begin, text.find(' ', begin) - begin);
}

const Json& only(const StageRows& rows, const std::string& kind, const std::string& stage) {
  const auto found = rows.find(kind);
  if (found != rows.end() && found->second.size() == 1) return *found->second.front();
  throw bad_input(stage, "one row of kind '" + kind + "'",
                  std::to_string(found == rows.end() ? 0 : found->second.size()));
}

// What ranks did, added up.
double sum_of(const StageRows& rows, const std::string& kind, const char* key) {
  double sum = 0;
  const auto found = rows.find(kind);
  if (found == rows.end()) return 0;
  for (const Json* row : found->second) sum += RowReader(*row, kind).number(key);
  return sum;
}

// The same of one tier alone, where a rank has a row for each; of rows that have the key.
double sum_of_tier(const StageRows& rows, std::string_view tier, const char* key) {
  double sum = 0;
  const auto found = rows.find("tier");
  if (found == rows.end()) return 0;
  for (const Json* row : found->second) {
    const RowReader reader(*row, "tier");
    if (reader.text_or("tier", "host") == tier) sum += reader.optional_number(key).value_or(0);
  }
  return sum;
}

double share_here(const StageRows& rows, std::string_view tier, const char* here) {
  const double needed = sum_of_tier(rows, tier, "needed");
  return needed > 0 ? sum_of_tier(rows, tier, here) / needed : 1.0;
}

// What the tiers held and moved, of all ranks, per step of the whole run.
void add_tiers(Json& row, const StageRows& rows, double step_count) {
  const auto sum = [&](const char* key) {
    return sum_of_tier(rows, "device", key) + sum_of_tier(rows, "host", key);
  };
  const bool on_device = row["tiers"] != kHostDisk;
  row["in_fast_tier"] =
      on_device ? share_here(rows, "device", "on_device") : share_here(rows, "host", "in_memory");
  row["hot_bytes"] = sum("hot_bytes");
  row["staging_bytes"] = sum("staging_bytes");
  row["read_bytes_per_step"] = sum("read_bytes") / step_count;
  row["moved_bytes_per_step"] = sum("moved_bytes") / step_count;
  row["transfer_ms"] = sum_of(rows, "rank", "transfer_ms");
  row["compute_ms"] = sum_of(rows, "rank", "compute_ms");
}

// With three tiers: the policy's row of the host, and what of the rest host memory had.
void add_host(Json& row, const StageRows& rows, const Json& host) {
  for (const char* key : {"budget_bytes", "budget_percent", "hit_ratio", "counters"}) {
    row[std::string("host_") + key] = host.value(key, Json());
  }
  row["in_host_tier"] = share_here(rows, "host", "in_memory");
}

void add_prediction(Json& row, const Json& predicted) {
  const RowReader reader(predicted, "a replay's row");
  const auto executed = RowReader(row, "an execution").distribution("tpot_ms");
  const auto hidden = reader.optional_number("tpot_hidden_ms");
  row["predicted_hit_ratio"] = reader.number("hit_ratio");
  row["predicted_counters"] = predicted["counters"];
  row["predicted_trace_hash"] = reader.text("trace_hash");
  row["predicted_tpot_ms"] = hidden ? Json(*hidden) : Json(nullptr);
  row["predicted_over_executed"] = nullptr;
  if (hidden && executed && executed->mean > 0) {
    row["predicted_over_executed"] = *hidden / executed->mean;
  }
  row["predicted_on"] = reader.text_or("cluster", "");
  if (!row.contains("host_counters")) return;
  row["predicted_host_hit_ratio"] = reader.number("host_hit_ratio");
  row["predicted_host_counters"] = predicted["host_counters"];
}

// The rows of a policy's hot sets in a stage: one, or with three tiers the device's and the host's.
std::vector<const Json*> hot_sets(const StageRows& rows, const std::string& stage) {
  if (second_word(stage) != kDeviceHostDisk) return {&only(rows, "policy", stage)};
  const auto found = rows.find("policy");
  const size_t count = found == rows.end() ? 0 : found->second.size();
  if (count == 2 && found->second[0]->value("tier", "") == "device" &&
      found->second[1]->value("tier", "") == "host") {
    return found->second;
  }
  throw bad_input(stage, "rows of kind 'policy' for device and host", fmt::format("{}", count));
}

Json execution_row(const std::string& stage, const std::string& label, const StageRows& rows) {
  const Json& run = only(rows, "run", stage);
  const std::vector<const Json*> policies = hot_sets(rows, stage);
  const Json& policy = *policies.front();
  Json row = {{"label", label}, {"kind", "execution"}, {"tiers", second_word(stage)}};
  for (const char* key :
       {"model", "weights", "weight_hash", "layout", "seed", "version", "ranks", "threads", "batch",
        "predictor", "backend", "step_count", "ttft_ms", "tpot_ms", "decode_tokens_per_second",
        "read_gb_per_s", "weight_bytes", "peak_rss_bytes"}) {
    row[key] = run.value(key, Json());
  }
  for (const char* key :
       {"trace_hash", "policy", "parameters", "oracle", "budget_bytes", "budget_percent",
        "hit_ratio", "moved_bytes_per_token", "hot_bytes_peak", "counters"}) {
    row[key] = policy.value(key, Json());
  }
  add_tiers(row, rows, std::max(1.0, RowReader(run, stage).number("step_count")));
  if (policies.size() > 1) add_host(row, rows, *policies.back());
  row["source"] = "measured";
  return row;
}

// Whether a replay's row is about what was executed.
bool predicts(const Json& replayed, const Json& executed) {
  for (const char* key : {"policy", "parameters", "budget_bytes", "host_budget_bytes"}) {
    if (replayed.value(key, Json()) != executed.value(key, Json())) return false;
  }
  return replayed.value("kind", "") == "policy";
}

std::string label_of(const Json& row) { return row.value("label", ""); }
std::string stage_of(const Json& row) { return row.value("recorded_by", ""); }

std::string number_or_dash(const std::optional<double>& value) {
  return value ? fmt::format("{:.2f}", *value) : "-";
}

// With three tiers one more, for the host's hot set.
std::string execution_lines(const ModelResults& model, const ExecutionRow& row) {
  const auto executed = row.tpot_ms ? std::optional(row.tpot_ms->mean) : std::nullopt;
  std::string text =
      fmt::format("{:<22} {:<16} {:<26} {:>6.1f} {:>6.1f} {:>10} {:>10} {:>6}\n", model.label,
                  row.tiers, execution_name(model.executions, row), row.budget_percent,
                  100 * row.hit_ratio, number_or_dash(executed), number_or_dash(row.predicted_ms),
                  number_or_dash(row.predicted_over_executed));
  if (!row.host) return text;
  return text + fmt::format("{:<22} {:<16} {:<26} {:>6.1f} {:>6.1f}\n", "", "", "  (host)",
                            row.host->budget_percent, 100 * row.host->hit_ratio);
}

const Json& prediction_of(const Json& rows, const Json& executed, const std::string& stage) {
  const std::string wanted = std::string(kPredict) + executed["tiers"].get<std::string>();
  for (const Json& row : rows) {
    if (label_of(row) == label_of(executed) && stage_of(row) == wanted && predicts(row, executed)) {
      return row;
    }
  }
  throw bad_input(stage, "a replay's row of the same policy and budget", "none");
}

}  // namespace

Json execution_rows(const Json& rows) {
  std::vector<std::pair<std::string, std::string>> order;  // label, stage
  std::map<std::pair<std::string, std::string>, StageRows> stages;
  for (const Json& row : rows) {
    if (!stage_of(row).starts_with(kExecute)) continue;
    const auto key = std::make_pair(label_of(row), stage_of(row));
    if (stages.find(key) == stages.end()) order.push_back(key);
    stages[key][row.value("kind", "")].push_back(&row);
  }
  Json joined = Json::array();
  for (const auto& key : order) {
    Json row = execution_row(key.second, key.first, stages[key]);
    add_prediction(row, prediction_of(rows, row, key.second));
    joined.push_back(std::move(row));
  }
  return joined;
}

Agreement executions_agree(const ModelResults& model) {
  Agreement agreement;
  for (const ExecutionRow& row : model.executions) {
    const std::string difference = difference_of(row.counters, row.trace_hash,
                                                 row.predicted_counters, row.predicted_trace_hash);
    const std::string where = fmt::format("{}: {} at {} bytes in {}: ", model.label, row.name(),
                                          row.budget_bytes, row.tiers);
    agreement.add(difference.empty() ? "" : where + difference);
    if (!row.host) continue;
    const std::string of_host = difference_of(
        row.host->counters, row.trace_hash, row.host->predicted_counters, row.predicted_trace_hash);
    agreement.add(of_host.empty() ? "" : where + "host: " + of_host);
  }
  return agreement;
}

std::string execution_name(const std::vector<ExecutionRow>& rows, const ExecutionRow& row) {
  const bool alone = std::none_of(rows.begin(), rows.end(), [&](const ExecutionRow& other) {
    return other.policy == row.policy && other.parameters != row.parameters;
  });
  return (alone ? row.policy : row.name()) + (row.oracle ? " (oracle)" : "");
}

std::string executions_table(const Results& results) {
  std::string text;
  for (const ModelResults& model : results.models) {
    for (const ExecutionRow& row : model.executions) text += execution_lines(model, row);
  }
  if (text.empty()) return "";
  return fmt::format("\n{:<22} {:<16} {:<26} {:>6} {:>6} {:>10} {:>10} {:>6}\n",
                     "executed in tiers", "", "policy", "% FFN", "hits %", "TPOT ms", "predicted",
                     "ratio") +
         text;
}

}  // namespace thermocline
