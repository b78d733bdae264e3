// The outcome of a run as rows for --json and as a table for people.
//
// Row kinds: "run" (one), "rank" (one a rank), "link" (one for each two ranks of which one sent the
//   other something), "tier" (one a rank and tier that has a hot set), "policy" (one a policy and
//   budget; `tier` names the tier whose hot set that is, null: none), with --bench
//   "bench" (name, bytes, ms, gb_per_s, share_of_limit), and with --audit-predictor "predictor"
//   (one for the model, whose layer is null, and one a layer). Every time is measured.
// A decode pass of N tasks in flight is N steps: rank rows have its times shared among them, bench
// figures have the whole pass, as its bytes are read once.
// Goals: pure functions of what the ranks measured. Non-goals: measuring.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/predictor_audit.h"
#include "runtime/run_plan.h"

namespace thermocline {

// What the bundle store of a rank did over all passes, and what it takes of memory: places for hot
// bundles, those that were staged at once, those on their way to a device.
struct StoreFacts {
  TierCounters counters;
  uint64_t hot_bytes = 0, staging_bytes = 0, passage_bytes = 0;
};

// What each rank knows of itself; sent as bytes.
struct RankFacts {
  DecodeSums sums;
  uint64_t peak_rss_bytes;
  double read_bandwidth;     // bytes/s, all ranks measuring at once
  uint64_t weight_bytes;     // held
  uint64_t attention_bytes;  // read per decode pass by the attention sublayers
  uint64_t head_bytes;       // read per decode pass by the output head
  uint64_t ffn_bytes;        // read per decode pass by the FFN, mean: up, down of active neurons
  StoreFacts store;          // with --disk-tier
  // With a device tier.
  TierCounters device_counters;
  SideBySideTimes side_by_side;
  DeviceTierSize device_tier;
};

struct RunOutcome {
  std::vector<SentBytes> sent;  // by rank
  std::string backend, device;  // of rank 0: "cpu", "avx2, 2 threads"
  std::vector<RankFacts> ranks;
  std::vector<double> ttft_ms, tpot_ms;  // per task, per decode step
  uint64_t step_count = 0;
  std::vector<std::string> texts;  // decoded greedily, by task
  std::vector<LivePolicyResult> policies;
  std::string trace_hash;  // empty where nothing was recorded
  std::vector<float> activation_thresholds;
  uint32_t thread_count = 1;
  std::string disk_reads;    // how the disk tier was read: "io_uring"; empty: there was none
  bool one_process = false;  // ranks are threads: they share one resident set
  std::optional<double> predictor_threshold;  // none: every gate is computed
  std::optional<PredictorAuditResult> audit;
};

// Time and bytes of a part of a decode pass, one token of each task in flight, for the whole model.
struct BenchFigure {
  std::string name;  // "attention", "ffn", "layer" (both, of one layer), "head"
  uint64_t bytes;
  double ms;
  double gb_per_s;
  double share_of_limit;  // of the read bandwidth of the ranks that work at the same time
};
std::vector<BenchFigure> bench_figures(const RunPlan& plan, const RunOutcome& outcome);

// Decoded by all tasks in flight together, while they decode; 0 where none did.
double decode_tokens_per_second(const RunOutcome& outcome);

nlohmann::ordered_json run_rows(const RunOptions& options, const RunPlan& plan,
                                const RunOutcome& outcome);
void print_run(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome);

// How tokens are chosen and texts end, for --json and the trace: {temperature, top_p,
// samples_per_task, stop}.
nlohmann::ordered_json decoding_facts(const RunOptions& options, const RunPlan& plan);

// One line before anything runs: the model, its weights' provenance, the layout.
std::string describe(const RunPlan& plan);

}  // namespace thermocline
