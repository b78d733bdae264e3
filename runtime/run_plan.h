// RunPlan: everything that `thermocline run` decides before it loads a weight.
//
// Goals: a wrong option or file is found here, on every rank alike, before anything runs or any
//   file is made. Non-goals: executing (run.h).
// Thread-safety: each rank makes its own plan from the same options.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/embedded.h"
#include "models/model_spec.h"
#include "models/prompts.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "runtime/engine.h"
#include "runtime/live_policies.h"
#include "runtime/partition.h"
#include "runtime/partition_solver.h"
#include "runtime/predictor.h"
#include "runtime/tiers/tier_layout.h"
#include "traces/trace.h"

namespace thermocline {

// As the command line says.
struct RunOptions {
  std::string model = std::string(kDemoModel);
  std::string tokenizer;  // empty: the checkpoint's own vocabulary, else bytes
  std::optional<std::string> prompt;
  PromptOptions prompts;
  uint32_t max_new_tokens = 128;
  bool teacher_forced = false;
  double temperature = 0.0, top_p = 1.0;  // 0: greedy
  uint32_t samples_per_task = 1;
  std::vector<std::string> stop;  // escaped; none: those of MBPP's prompts, "": none at all
  std::string samples;            // path of the .jsonl
  std::string logits;             // path of the .npy
  std::string record;             // path of the trace
  bool resume = false;            // goes on with what was recorded there
  bool overwrite = false;         // or starts over
  std::string record_magnitudes = "none";  // "log8:every=4"
  std::string policies, budgets = "auto", profile, migration = "32MiB";
  std::string host_budget;          // of host memory, where there are three tiers
  std::string future;               // for oracles: a trace of this very run
  std::string tiers;                // "device,host"; empty: as disk_tier says
  std::string disk_tier;            // folder of the bundle file; empty: the FFN is in memory
  std::string disk_reads = "auto";  // how it is read: see open_disk_reader
  std::string read_ahead;           // the predictor that says what is read early; empty: nothing
  // Whose rates policies may weigh, and whose nodes the partition is solved for unless `layout` or
  // `rank_weights` give one; empty: that of replay, and the default partition.
  std::string cluster;
  std::string layout, rank_weights;
  std::string active_share;      // of neurons, as the solver expects it; empty: by the activation
  bool print_partition = false;  // and run nothing
  uint32_t ranks = 0;            // that it is printed for; 0: those of the job or the cluster
  std::string activation_threshold = "0";  // a number, or "p90": the 90th percentile
  std::string predictor = "exact";         // "sign:threshold=0.5"
  bool audit_predictor = false;
  uint32_t threads = 0;      // per rank; 0: the rank's share of the cores
  uint32_t local_ranks = 0;  // 0: the ranks that mpirun started
  uint32_t batch = 1;        // tasks in flight
  uint64_t seed = 1;
  bool bench = false;
  std::string backend = "auto";
  uint32_t device = 0;        // of the backend
  bool check_finite = false;  // weights as they are loaded, the residual stream as it runs
  std::string json;
  std::string listen;  // "127.0.0.1:9100" serves live counters; empty: nobody listens
  double linger = 0;   // seconds for which it goes on after the end
};

// Where the recorded bits of a SiLU model begin: a value, or a percentile of the first prompt.
struct ActivationThreshold {
  float value = 0.0f;
  std::optional<double> percent;
};

// Of which steps the trace takes |act(gate)|, and how.
struct MagnitudeSampling {
  MagnitudeFormat format = MagnitudeFormat::none;
  uint32_t every = 0;  // 0: of none
};

struct RunPlan {
  ModelSpec spec;
  std::unique_ptr<WeightSource> source;  // until the weights are loaded: it maps the whole file
  ModelShape shape;
  BundleTypes ffn_types = DType::f32;
  std::string weight_provenance, weight_hash;
  std::unique_ptr<Tokenizer> tokenizer;
  Partition partition;
  std::optional<SolvedPartition> solved;  // what `partition` is, where a cluster file decides
  ActivationThreshold threshold;
  LivePolicyOptions live;  // with tiers: a policy, and a budget for each of hot_tiers()
  TierLayout tiers = TierLayout::one;
  std::vector<TaskInput> tasks;  // with all samples of a task behind each other
  bool whole_programs = false;   // what decoding writes: MBPP's solutions, not continuations
  SamplingOptions sampling;
  StopRule stop;
  std::vector<std::string> notes;  // a line each: what was skipped, what a default means
  std::string prompts_text;        // "embedded, test, 0 shots"
  std::string prompts_hash;
  uint32_t position_max = 0;  // of the longest task
  uint32_t batch = 1;         // tasks in flight, at most as many as there are
  MagnitudeSampling magnitudes;
  PredictorSpec predictor;
  std::optional<PredictorSpec> read_ahead;

  // Whose hot set the i-th policy at a budget keeps: "device"; empty where there are no tiers.
  std::string_view hot_tier(size_t i) const {
    const auto names = hot_tiers(tiers);
    return i < names.size() ? names[i] : std::string_view();
  }
  // What a tier of hot_tiers() has for hot bundles of the whole model, bytes.
  uint64_t hot_budget(size_t tier) const {
    return live.policies.empty() ? 0 : live.budgets[tier].bytes;
  }
  // Which rank of the job a rank of the layout is.
  uint32_t job_rank(uint32_t layout_rank) const {
    return solved.has_value() ? solved->job_ranks[layout_rank] : layout_rank;
  }
};

inline constexpr uint32_t kChunkMax = 32;  // prompt tokens that share one pass over the weights

RunPlan make_run_plan(const RunOptions& options, uint32_t rank_count);

// "0.1" or "p90". Usage Error for anything else.
ActivationThreshold parse_activation_threshold(std::string_view text);

// "none", "log8", "f16", "log8:every=4". Usage Error for anything else.
MagnitudeSampling parse_magnitudes(std::string_view text);

}  // namespace thermocline
