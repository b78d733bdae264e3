// PredictorAudit: how good a predictor is while a run uses it, and what it does to the logits.
//
// Of each step and layer, the exact gate of the same input (Decoder::exact_words) says which
//   candidates were right; an exact decoder, which is fed the same tokens and shares the weights
//   but has a KV cache of its own, says what the logits would have been.
// Goals: counts are integers, the same for any ranks and threads. It changes no result of the run.
// Non-goals: time; an audited run does three times the work, and only its sublayers' times mean
//   anything.
// Thread-safety: one rank, one thread; every call is collective.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/decoder.h"

namespace thermocline {

// Of neurons, each counted once a step.
struct PredictorCounts {
  uint64_t neurons = 0;
  uint64_t candidates = 0;
  uint64_t active = 0;  // by the exact gate
  uint64_t both = 0;

  void add(const PredictorCounts& other);
  double recall() const;     // of the active ones, candidates; 1 where none was active
  double precision() const;  // of the candidates, active ones; 1 where there was no candidate
  double candidate_share() const;
  double active_share() const;
};

// The run's logits held to those of the exact decoder. Sums over steps.
struct LogitErrors {
  uint64_t step_count = 0;
  double largest = 0;        // |difference| of any logit of any step
  double divergence = 0;     // KL(exact || run), in nats
  uint64_t agreed_tops = 0;  // steps whose largest logit is the same token's

  // The same step's logits of both. An exact one that is not finite counts as any other.
  void add(std::span<const float> run, std::span<const float> exact);
  double mean_divergence() const;
  double top1_agreement() const;
};

struct PredictorAuditResult {
  std::vector<PredictorCounts> layers;  // of the whole model
  LogitErrors logits;                   // on rank 0

  PredictorCounts whole() const;
};

class PredictorAudit {
 public:
  // `run` has DecoderOptions::audit_gate; `exact` no predictor. All outlive the audit.
  PredictorAudit(Comm& comm, const Partition& partition, const ModelShape& shape, Decoder& run,
                 Decoder& exact);

  // The pass that `run` just had.
  void on_pass(std::span<const DecoderRow> rows);
  // Counts of all ranks.
  PredictorAuditResult finish();

 private:
  void count_words(size_t row_count);
  void compare_logits(uint32_t row_count);

  Comm& comm_;
  const Partition& partition_;
  const ModelShape& shape_;
  Decoder& run_;
  Decoder& exact_;
  PredictorAuditResult result_;
  std::vector<DecoderRow> rows_;
  std::vector<uint64_t> words_;
  std::vector<float> mine_, run_logits_, exact_logits_;
};

}  // namespace thermocline
