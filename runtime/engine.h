// Engine: prefill and decode of one task after the other, on one rank of the job.
//
// All ranks run the same calls. Each step ends in a ballot, one small all-gather, in which the last
// stage's ranks name their best token and every rank says whether it was interrupted or failed: so
// all ranks agree on the next token and on stopping, without further messages.
// Goals: greedy decoding and teacher forcing; observers that see each step once, in order, on every
//   rank; the same bits whoever observes.
// Non-goals: sampling, batches (later), files.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/decoder.h"
#include "traces/trace.h"

namespace thermocline {

// Sees what this rank's neurons did. Called after a step's time was taken: an observer costs no
// step anything, and changes no result.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) = 0;
  virtual void on_task_end(const TaskRecord& /*task*/) {}
};

struct EngineHooks {
  std::vector<StepObserver*> observers;
  // On rank 0 only: every step's logits (vocab_size), in order. Set on all ranks or on none.
  std::function<void(std::span<const float> logits)> on_logits;
  bool all_logits = false;  // true on every rank where rank 0 has on_logits
  // On rank 0 only: each token as it is decoded, with the one before it.
  std::function<void(int32_t previous, int32_t token)> on_token;
};

struct TaskInput {
  uint32_t index = 0;  // within the run
  int32_t task_id = 0;
  std::vector<int32_t> prompt;  // BOS first
  std::vector<int32_t> forced;  // what a teacher forces; empty: decode greedily
  uint32_t new_token_max = 0;   // of greedy decoding
};

// Sums over decode steps, for means. Times of the parts include their communication.
struct DecodeSums {
  uint64_t step_count = 0;
  uint64_t compute_ns = 0;
  uint64_t comm_ns = 0;
  uint64_t wait_ns = 0;
  uint64_t attention_ns = 0;
  uint64_t ffn_ns = 0;
  uint64_t head_ns = 0;         // output head and agreeing on the token, on the last stage
  uint64_t active_neurons = 0;  // of this rank
};

struct TaskResult {
  std::vector<int32_t> tokens;    // decoded greedily, or the forced ones
  uint64_t ttft_ns = 0;           // start of prefill to first token
  std::vector<uint64_t> tpot_ns;  // of each decode step
  uint32_t step_count = 0;
  bool interrupted = false;
};

struct EngineOptions {
  std::vector<int32_t> stop_tokens;  // greedy decoding ends after one of these
  uint32_t context_length = 0;
  uint32_t chunk_max = 32;
  bool (*interrupted)() = nullptr;  // looked at once a step
};

class Engine {
 public:
  // comm, decoder and hooks outlive the engine.
  Engine(Comm& comm, const ModelShape& shape, const Partition& partition, Decoder& decoder,
         EngineHooks& hooks, EngineOptions options);

  // Collective. Throws AgreedError on all ranks where an observer failed on one.
  TaskResult run(const TaskInput& task);

  const DecodeSums& sums() const { return sums_; }

 private:
  struct Outcome {
    int32_t token = -1;  // the greedy next token; -1 where no logits were asked for
    bool interrupted = false;
    uint64_t duration_ns = 0;
  };

  // One chunk of tokens through all ranks. vote: agree on the next token and on stopping.
  Outcome execute(const TaskInput& task, std::span<const int32_t> tokens, uint32_t position,
                  Phase phase, bool vote);
  Outcome prefill(const TaskInput& task, TaskResult& result);
  void decode_greedily(const TaskInput& task, int32_t token, TaskResult& result);
  void decode_forced(const TaskInput& task, TaskResult& result);
  Outcome decode_step(const TaskInput& task, int32_t token, TaskResult& result);
  void gather_logits(uint32_t count);
  void pass_logits(uint32_t count);
  void add_decode_step(const StepTimes& times, uint64_t head_ns);
  Outcome ballot(uint32_t position);
  void observe(const TaskInput& task, std::span<const int32_t> tokens, uint32_t position,
               Phase phase, const StepTimes& times);
  void guarded(const std::function<void()>& work);
  void share_failure();
  bool stops(int32_t token) const;

  Comm& comm_;
  const ModelShape& shape_;
  const Partition& partition_;
  Decoder& decoder_;
  EngineHooks& hooks_;
  EngineOptions options_;
  DecodeSums sums_;
  uint32_t step_total_ = 0;  // of the tasks before
  uint32_t pass_ = 0;        // forwards so far
  std::string failure_;      // of an observer on this rank, until the next ballot
  int failure_code_ = 0;
  std::vector<uint64_t> words_;      // (chunk_max, words_per_step)
  std::vector<float> logits_;        // (chunk_max, vocabulary rows of this rank)
  std::vector<float> whole_logits_;  // (chunk_max, vocab_size), rank 0 with on_logits
};

}  // namespace thermocline
