// Rows as `run` and `replay` write them, made up for tests of the study and the report.
//
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "models/cli.h"
#include "sim/results.h"

namespace thermocline::test {

constexpr uint64_t kFullBytes = 792723456;  // FFN bundles of two 70B layers in Q4_0

inline Json distribution_row(double mean) {
  return {{"mean", mean}, {"p50", mean * 0.9}, {"p95", mean * 1.2}, {"p99", mean * 1.5}};
}

inline Json policy_row(const std::string& policy, double percent, double hit_ratio, double tpot_ms,
                       bool live) {
  const auto hits = static_cast<uint64_t>(hit_ratio * 1e6 + 0.5);
  const auto budget = static_cast<uint64_t>(kFullBytes * percent / 100);
  Json row = {{"kind", "policy"},
              {"model", "preset:relullama-70b,layers=2"},
              {"weights", "synthetic"},
              {"weight_hash", "00112233445566aa"},
              {"trace_hash", "fedcba9876543210"},
              {"policy", policy},
              {"parameters", policy == "ewma" ? "halflife=64" : ""},
              {"oracle", policy == "oracle-static"},
              {"budget_bytes", budget},
              {"budget_percent", percent},
              {"hit_ratio", hit_ratio},
              {"byte_hit_ratio", hit_ratio},
              {"moved_bytes_per_token", policy == "ewma" ? 2e6 : 0.0},
              {"hot_bytes_peak", budget - 100},
              {"source", live ? "measured" : "modelled"},
              {"cluster", "pc-test"},
              {"cluster_measured", false},
              {"gate", "predicted"},
              {"fits", percent < 30},
              {"seed", 1},
              {"version", kVersion}};
  row["counters"] = {{"step_count", 1000},    {"needed", 1000000}, {"hits", hits},
                     {"admitted", 7},         {"evicted", 7},      {"refused", 0},
                     {"loaded", 90},          {"wasted", 3},       {"hot_count_peak", 95},
                     {"hot_count_sum", 90000}};
  if (!live) row["tpot_ms"] = distribution_row(tpot_ms);
  return row;
}

// fixed loses at 10 %, wins at 30 %: hit ratios cross.
inline Json policy_rows(bool live) {
  Json rows = Json::array();
  rows.push_back(policy_row("fixed", 10, 0.30, 50, live));
  rows.push_back(policy_row("ewma", 10, 0.35, 49, live));
  rows.push_back(policy_row("fixed", 20, 0.50, 40, live));
  rows.push_back(policy_row("ewma", 20, 0.52, 40, live));
  rows.push_back(policy_row("fixed", 30, 0.70, 30, live));
  rows.push_back(policy_row("ewma", 30, 0.69, 31, live));
  if (live) return rows;
  rows.push_back(policy_row("oracle-static", 10, 0.40, 45, false));
  rows.push_back(policy_row("oracle-static", 20, 0.60, 35, false));
  rows.push_back(policy_row("oracle-static", 30, 0.80, 25, false));
  return rows;
}

inline Json run_row(const std::string& model) {
  return {{"kind", "run"},
          {"model", model},
          {"weights", "synthetic"},
          {"layout", "pp1,tp4"},
          {"ranks", 4},
          {"threads", 1},
          {"prompts", "embedded, test, 0 shots"},
          {"step_count", 1000},
          {"seed", 1},
          {"ttft_ms", distribution_row(9000)},
          {"tpot_ms", distribution_row(57.3)},
          {"layer_ms", 24.1},
          {"layer_gb_per_s", 19.9},
          {"read_gb_per_s", 22.4},
          {"peak_rss_bytes", 1 << 30}};
}

inline Json rank_row(int rank) {
  return {{"kind", "rank"}, {"rank", rank},   {"stage", 0},          {"compute_ms", 50},
          {"comm_ms", 2.5}, {"wait_ms", 1.5}, {"model", "preset:x"}, {"peak_rss_bytes", 1 << 28}};
}

inline Json executed_row() {
  return {{"kind", "executed"},
          {"model", "preset:x"},
          {"executed_tpot_ms", distribution_row(57.3)},
          {"predicted_tpot_ms", distribution_row(54.4)},
          {"compute_predicted_over_measured", 0.93},
          {"measured_overhead_ms", 4.2},
          {"predicted_over_executed", 0.949}};
}

// What following tasks can gain: 3.5 points. Tasks differ: 74 against 66 % of halves.
inline Json activity_row() {
  return {{"kind", "activity"},
          {"scope", "model"},
          {"model", "preset:x"},
          {"weights", "synthetic"},
          {"trace_hash", "fedcba9876543210"},
          {"step_count", 1000},
          {"task_count", 3},
          {"activity", 0.149},
          {"share_80", 0.44},
          {"task_share_80", 0.42},
          {"overlap_1", 0.551},
          {"overlap_10", 0.467},
          {"overlap_25", nullptr},
          {"union_5", 0.306},
          {"fresh_5", 0.037},
          {"task_overlap", 0.783},
          {"half_overlap", 0.74},
          {"half_next_overlap", 0.66},
          {"own_coverage", 0.5},
          {"past_coverage", 0.465},
          {"source", "measured"}};
}

inline Json layer_activity_row(int layer) {
  Json row = activity_row();
  row["scope"] = "layer";
  row["layer"] = layer;
  row["own_coverage"] = 0.9;
  return row;
}

inline Json document_of(const Json& rows) {
  return {{"command", "test"},
          {"version", kVersion},
          {"machine", {{"cpu", "a test"}, {"cores", 2}}},
          {"rows", rows}};
}

// All the report needs, of one model.
inline Json full_document(const std::string& label = "demo") {
  Json rows = Json::array();
  const auto add = [&](Json row) {
    row["label"] = label;
    rows.push_back(row);
  };
  add(run_row("preset:relullama-70b,layers=2"));
  for (int rank = 0; rank < 4; ++rank) add(rank_row(rank));
  for (const bool live : {true, false}) {
    const Json of_policies = policy_rows(live);
    for (const Json& row : of_policies) add(row);
  }
  add(executed_row());
  add(activity_row());
  for (int layer = 0; layer < 2; ++layer) add(layer_activity_row(layer));
  return document_of(rows);
}

// What newer rows say beside policy_row's fields.
inline Json rich_row(const std::string& policy, double percent, double hit_ratio, double tpot_ms,
                     uint64_t batch = 1) {
  Json row = policy_row(policy, percent, hit_ratio, tpot_ms, false);
  row["miss_bytes_per_token"] = 3e6;
  row["wasted_bytes_per_token"] = policy == "ewma" ? 5e5 : 0.0;
  row["migrations_per_token"] = policy == "ewma" ? 40.5 : 0.0;
  row["hot_bytes_mean"] = 7e7;
  row["ttft_ms"] = distribution_row(900);
  row["tpot_ci95"] = {tpot_ms - 0.25, tpot_ms + 0.25};
  row["tpot_hidden_ms"] = 0.5;
  row["tokens_per_s_per_gib"] = 12.5;
  row["regret_static"] = 0.1;
  row["regret_clairvoyant"] = nullptr;
  row["hot_by_layer"] = {percent / 100, percent / 50};
  if (percent == 20) {
    row["threshold_by_step"] = {{"task_id", 7}, {"values", {nullptr, 0.2, 0.4, nullptr, 0.3}}};
  }
  row["fill"] = "step";
  row["pools"] = "rank";
  row["group"] = 1;
  row["batch"] = batch;
  row["warmup_steps"] = 64;
  row["migration_bytes"] = 32 << 20;
  row["tuned_on"] = policy == "ewma" ? Json("0f0f0f0f0f0f0f0f") : Json(nullptr);
  row["regime"] = "drifting";
  return row;
}

// `policy` less fixed, with an interval of `margin` to either side; none where it is negative.
inline Json comparison_row(const std::string& policy, double percent, const std::string& metric,
                           double value, double versus, double margin, uint64_t won = 80) {
  const double difference = value - versus;
  Json row = {{"kind", "comparison"},
              {"policy", policy},
              {"parameters", policy == "ewma" ? "halflife=64" : ""},
              {"versus", "fixed"},
              {"versus_parameters", ""},
              {"budget_bytes", static_cast<uint64_t>(kFullBytes * percent / 100)},
              {"budget_percent", percent},
              {"batch", 1},
              {"metric", metric},
              {"value", value},
              {"versus_value", versus},
              {"difference", difference},
              {"ci95", {difference - margin, difference + margin}},
              {"tasks", 100},
              {"tasks_won", won},
              {"tasks_lost", 99 - won},
              {"tasks_tied", 1},
              {"resamples", 2000}};
  if (margin < 0) row["ci95"] = nullptr;
  return row;
}

// ewma and lru against fixed at 10, 20 and 30 %, in two sizes of batch. In time ewma loses at 10 %,
// wins at 20 % and cannot be told at 30 %; lru hits most and is slow.
inline Json rich_document() {
  Json rows = Json::array();
  const auto add = [&](const std::string& policy, double percent, double hit_ratio, double ms,
                       double fixed_hits, double fixed_ms) {
    for (const uint64_t batch : {1, 4}) {
      rows.push_back(rich_row(policy, percent, hit_ratio, ms * static_cast<double>(batch), batch));
    }
    if (policy == "fixed" || policy == "oracle-static") return;
    rows.push_back(comparison_row(policy, percent, "hit_ratio", hit_ratio, fixed_hits, 0.004));
    rows.push_back(comparison_row(policy, percent, "tpot_ms", ms, fixed_ms, 0.6));
  };
  const double percents[] = {10, 20, 30}, hits[] = {0.3, 0.5, 0.7}, ms[] = {50, 40, 30};
  const double ewma_hits[] = {0.31, 0.518, 0.701}, ewma_ms[] = {52, 38.8, 30.1};
  for (int i = 0; i < 3; ++i) {
    add("fixed", percents[i], hits[i], ms[i], 0, 0);
    add("ewma", percents[i], ewma_hits[i], ewma_ms[i], hits[i], ms[i]);
    add("lru", percents[i], hits[i] + 0.03, ms[i] + 2, hits[i], ms[i]);
    add("oracle-static", percents[i], hits[i] + 0.1, ms[i] - 5, 0, 0);
  }
  for (Json& row : rows) {
    row["label"] = "demo";
    if (row["policy"] == "lru" && row["kind"] == "policy") row["moved_bytes_per_token"] = 4e6;
  }
  return document_of(rows);
}

}  // namespace thermocline::test
