// Results: the rows that `run`, `replay` and `trace stat` wrote, checked and typed, by model.
//
// Goals: every field is checked when it is read, an error names file, row and key; live counters
//   are compared with the replay's as integers; rows of several files merge into one results.json
//   that carries all the report needs.
// Non-goals: computing anything that a row does not say; HTML.
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/distribution.h"
#include "sim/bootstrap.h"

namespace thermocline {

using Json = nlohmann::ordered_json;

using Counters = std::map<std::string, uint64_t>;

// The hot threshold after each step of one task, in the policy's own unit.
struct ThresholdSeries {
  std::string task_id;
  std::vector<std::optional<double>> values;
};

// One policy at one budget.
struct PolicyRow {
  std::string policy;
  std::string parameters;  // "halflife=32,cap=200"; empty where it has none
  bool oracle = false;
  bool live = false;  // counted during the execution, not in replay
  std::string weights, weight_hash, trace_hash;
  uint64_t budget_bytes = 0;
  double budget_percent = 0;  // of all FFN bundles
  double hit_ratio = 0;
  double byte_hit_ratio = 0;
  double moved_bytes_per_token = 0;
  uint64_t hot_bytes_peak = 0;
  std::optional<Distribution> tpot_ms;  // modelled on `cluster`
  std::string cluster;
  bool cluster_measured = false;  // or published figures
  bool fits = true;               // into the memory of the cluster
  std::string gate;               // what a step reads: "predicted" (active neurons) | "exact"
  Counters counters;

  // What older results lack stays empty.
  std::optional<double> miss_bytes_per_token, wasted_bytes_per_token, migrations_per_token;
  std::optional<double> hot_bytes_mean;
  std::optional<Distribution> ttft_ms;
  std::optional<Interval> tpot_ci95;     // of the mean, over tasks
  std::optional<double> tpot_hidden_ms;  // migrations behind compute, a mean
  std::optional<double> tokens_per_s_per_gib;
  // The oracle's hit ratio at the same budget less this one.
  std::optional<double> regret_static, regret_clairvoyant;
  std::vector<double> hot_by_layer;  // mean share of each layer that was hot
  std::optional<ThresholdSeries> thresholds;
  uint64_t batch = 1;
  std::string fill, pools, group, regime;
  std::string tuned_on;  // hash of the validation trace; empty where nothing was tuned
  uint64_t warmup_steps = 0;
  std::optional<uint64_t> migration_bytes;  // the limit for a step

  std::string name() const { return parameters.empty() ? policy : policy + ":" + parameters; }
};

// One policy less another at the same budget, over the same tasks.
struct ComparisonRow {
  std::string policy, parameters, versus, versus_parameters;
  uint64_t budget_bytes = 0, batch = 1;
  double budget_percent = 0;
  TaskMetric metric = TaskMetric::hit_ratio;
  double value = 0, versus_value = 0;
  double difference = 0;         // value less versus_value
  std::optional<Interval> ci95;  // of the difference
  uint64_t tasks = 0, tasks_won = 0, tasks_lost = 0, tasks_tied = 0, resamples = 0;

  // Whether the policy is better (1) or worse (-1) than `versus`, or the tasks cannot tell (0):
  // the interval holds zero, or there is none and the values are equal.
  int sign() const;
};

// The run that recorded the test trace.
struct RunRow {
  std::string model, weights, layout, prompts;
  uint64_t ranks = 0, threads = 0, step_count = 0, seed = 0, peak_rss_bytes = 0;
  std::optional<Distribution> ttft_ms, tpot_ms;
  std::optional<double> layer_ms, layer_gb_per_s, read_gb_per_s;
};

struct RankRow {
  uint64_t rank = 0, stage = 0, peak_rss_bytes = 0;
  double compute_ms = 0, comm_ms = 0, wait_ms = 0;  // means per step
};

// The cost model against the machine that recorded the trace.
struct ExecutedRow {
  double executed_ms = 0, predicted_ms = 0;
  double predicted_over_executed = 0;
  std::optional<double> reading_ratio;  // modelled reading over measured compute
  std::optional<double> overhead_ms;    // communication and waiting, taken as measured
};

// With three tiers: the hot set of host memory, below the device's.
struct HostExecution {
  uint64_t budget_bytes = 0;
  double budget_percent = 0, hit_ratio = 0;
  double in_tier = 0;  // of what was needed and cold on the device, once a pass
  Counters counters, predicted_counters;
};

// One policy at one budget, executed with its hot set in the fastest tier (sim/execution.h).
struct ExecutionRow {
  std::string tiers, policy, parameters;  // "host,disk"
  bool oracle = false;
  uint64_t budget_bytes = 0;
  double budget_percent = 0, hit_ratio = 0;
  std::optional<Distribution> ttft_ms, tpot_ms;   // measured
  std::optional<double> predicted_ms;             // modelled, a mean of the same steps
  std::optional<double> predicted_over_executed;  // of these two
  double in_fast_tier = 0;                        // of what was needed, once a pass
  double hot_bytes = 0, staging_bytes = 0;        // held, by all ranks
  double read_bytes_per_step = 0, moved_bytes_per_step = 0;
  double compute_ms = 0, transfer_ms = 0;  // of a decode step
  uint64_t weight_bytes = 0, peak_rss_bytes = 0;
  std::string trace_hash, predicted_trace_hash;
  Counters counters, predicted_counters;
  std::optional<HostExecution> host;  // with three tiers

  std::string name() const { return parameters.empty() ? policy : policy + ":" + parameters; }
};

// What the test trace's activity offers a hot threshold to follow, all layers together.
struct ActivityRow {
  std::string weights;
  uint64_t step_count = 0, task_count = 0;
  std::map<std::string, double> figures;  // by key of traces/activity_figures.h; shares
};

struct StageRow {
  std::string stage, command;
  double seconds = 0;
};

struct ModelResults {
  std::string label;
  std::optional<RunRow> run;  // of the test split
  std::vector<RankRow> ranks;
  std::vector<PolicyRow> live, replayed;
  std::vector<ComparisonRow> comparisons;
  std::vector<ExecutionRow> executions;
  std::optional<ExecutedRow> executed;
  std::optional<ActivityRow> activity;  // older results have none
  std::vector<StageRow> stages;
};

struct Results {
  std::string version;
  Json machine;
  std::string study_name;  // empty where no study made them
  Json study;              // the row of kind "study", or null
  std::vector<ModelResults> models;
};

// Where rows come from when results are merged.
struct ResultFile {
  std::string path;
  std::string label;  // the model's
  std::string stage;  // "profile" | "test" | "replay" | "stat"
};

// The rows of a file written by write_json. Errors: no such file, not JSON, no such rows.
Json open_rows(const std::string& path);
// Rows of all files in order, each with its label and stage first.
Json merge_rows(const std::vector<ResultFile>& files);
// Rows of kind "policy" as CSV, nested fields flattened ("tpot_ms_p95").
std::string csv_of(const Json& rows);

// All rows of a results.json, the folder of one, or several JSON files of its commands, in
// the envelope of the first.
Json open_documents(const std::vector<std::string>& paths);
Results parse_results(const Json& document, const std::string& origin);
Results open_results(const std::vector<std::string>& paths);

// Live counters against the replay's, for the same trace, policy, parameters and budget.
struct Agreement {
  uint64_t total = 0, equal = 0;
  std::vector<std::string> differences;  // a line each
  // One comparison more; empty: it is equal.
  void add(const std::string& difference) {
    ++total;
    if (difference.empty()) {
      ++equal;
    } else {
      differences.push_back(difference);
    }
  }
  bool holds() const { return total > 0 && equal == total && differences.empty(); }
};
Agreement compare_live(const ModelResults& model);
// The same over all models; or another comparison.
Agreement agreement_of(const Results& results,
                       Agreement (*compare)(const ModelResults&) = compare_live);
// How what was counted during an execution differs from a replay: the traces, or each counter;
// empty where they are equal.
std::string difference_of(const Counters& live, const std::string& live_trace,
                          const Counters& replayed, const std::string& replayed_trace);

}  // namespace thermocline
