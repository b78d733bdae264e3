#include "sim/replay_rows.h"

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

// What every row says about where it comes from.
Json origin_of(const std::string& kind, const ReplayReport& report) {
  const TraceHeader& header = report.header;
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

Json policy_row(const ReplayReport& report, size_t i) {
  const ReplayStats& row = report.result.rows[i];
  const uint64_t bundle = report.header.bundle_bytes();
  const double whole = static_cast<double>(ffn_bytes(report.header.shape, report.header.ffn_types));
  Json json = origin_of("policy", report);
  json["policy"] = row.policy.entry->name;
  json["parameters"] = row.policy.parameters();
  json["oracle"] = row.policy.entry->needs_future;
  json["budget_bytes"] = row.budget_bytes;
  json["budget_percent"] = 100.0 * static_cast<double>(row.budget_bytes) / whole;
  json["hit_ratio"] = hit_ratio(row.total);
  json["byte_hit_ratio"] = hit_ratio(row.total);  // all bundles of a model have the same size
  json["moved_bytes_per_token"] = moved_bytes_per_token(row.total, bundle);
  json["hot_bytes_peak"] = row.total.hot_count_peak * bundle;
  json["hot_threshold"] = json_of(row.threshold);
  json["ttft_ms"] = nullptr;  // not modelled: see sim/cost.h
  json["tpot_ms"] = json_of(report.tpot_ms[i]);
  json["source"] = "modelled";
  json["cluster"] = report.cluster.name;
  json["cluster_measured"] = report.cluster.measured;
  json["gate"] = "predicted";
  json["fits"] = static_cast<bool>(report.fits[i]);
  json["counters"] = json_of(row.total);
  return json;
}

Json executed_row(const ReplayReport& report) {
  const ExecutedComparison& executed = *report.executed;
  Json json = origin_of("executed", report);
  json["step_count"] = executed.step_count;
  json["executed_tpot_ms"] = json_of(executed.executed_ms);
  json["predicted_tpot_ms"] = json_of(executed.predicted_ms);
  json["predicted_over_executed"] = executed.predicted_over_executed;
  json["compute_predicted_over_measured"] = executed.compute_ratio;
  json["measured_overhead_ms"] = executed.measured_overhead_ms;
  json["source"] = "modelled";
  json["gate"] = "exact";
  return json;
}

}  // namespace

ReplayReport report_of(const TraceReader& trace, const std::string& trace_hash,
                       const RecordingConfig& config, const ReplayResult& result,
                       const Cluster& cluster) {
  ReplayReport report{trace.header(), trace_hash, "", result, cluster, {}, {}, {}};
  const CostModel model(trace.header(), config, cluster, GateReads::predicted);
  const std::vector<StepInfo> steps = trace.steps();
  for (const ReplayStats& row : result.rows) {
    report.tpot_ms.push_back(distribution_of(decode_step_ms(model, row, steps)));
    report.fits.push_back(model.fits(row.hot_max));
  }
  return report;
}

nlohmann::ordered_json replay_rows(const ReplayReport& report) {
  Json rows = Json::array();
  for (size_t i = 0; i < report.result.rows.size(); ++i) rows.push_back(policy_row(report, i));
  if (report.executed.has_value()) rows.push_back(executed_row(report));
  return rows;
}

}  // namespace thermocline
