// Runs an engine on ranks that are threads of this process, and gathers what they saw.
//
// Thread-safety: each call makes ranks of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/weights.h"
#include "runtime/backend.h"
#include "runtime/engine.h"
#include "runtime/predictor_audit.h"

namespace thermocline::test {

struct LocalRunOptions {
  std::string layout = "pp1,tp1";
  std::string rank_weights;
  int threads = 1;
  uint32_t chunk_max = 32;
  std::vector<int32_t> prompt = {1};  // one task, unless there are `tasks`
  std::vector<int32_t> forced;
  uint32_t new_token_max = 0;
  std::vector<TaskInput> tasks;
  uint32_t batch = 1;
  StopRule stop;
  SamplingOptions sampling;
  uint32_t magnitudes_every = 0;
  float silu_threshold = 0.0f;
  bool logits = true;
  bool (*interrupted)() = nullptr;
  bool check_finite = false;
  TierOptions tiers = {};
  bool side_by_side = false;  // tiers have a device: cpu with `threads` computes what is cold
  std::function<const HotSet*(uint32_t rank)> hot;       // that tiers follow; none: nothing is hot
  std::function<const HotSet*(uint32_t rank)> host_hot;  // of three tiers, that the host's follows
  std::string predictor = "exact";
  std::string lookahead = "exact";  // what is read ahead of tiers; exact: nothing
  bool audit = false;
  std::function<std::unique_ptr<Backend>()> backend;  // of each rank; none: cpu with `threads`
  // Called on every rank for one more observer; it lives as long as the run.
  std::function<std::unique_ptr<StepObserver>(const Partition&, uint32_t rank)> observer;
};

struct LocalRunResult {
  Partition partition;
  TaskResult task;  // the first, as rank 0 has it
  std::vector<TaskResult> tasks;
  std::vector<TaskRecord> records;  // in the order in which observers got them
  std::vector<float> logits;        // (step, vocab_size)
  std::vector<uint8_t> active;      // (step, layer, neuron) of the whole model: 0 or 1
  std::vector<StepInfo> steps;
  std::vector<uint32_t> step_counts;          // by rank
  std::vector<TierCounters> tiers;            // by rank, of the fastest tier
  std::vector<TierCounters> host_tiers;       // by rank, of the host's, where there are three
  std::vector<SentBytes> sent;                // by rank
  std::vector<SideBySideTimes> side_by_side;  // by rank
  // Likewise: who was looked at, with a predictor; who is active by the exact gate, with an audit.
  std::vector<uint8_t> candidates, exact;
  PredictorAuditResult audit;     // as rank 0 has it
  std::vector<float> magnitudes;  // (step, layer, neuron) if asked for; -1: not of this step
};

LocalRunResult run_locally(const WeightSource& source, const LocalRunOptions& options);

// max |a - b| / max |a|
double relative_difference(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace thermocline::test
