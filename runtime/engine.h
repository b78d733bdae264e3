// Engine: prefill and decode of a run's tasks on one rank of the job, several of them in flight.
//
// Each task in flight has a slot of the KV cache. It is prefilled alone, in chunks; then all in
// flight decode together, a token of each in one pass over the weights. Where a task ends, the next
// is prefilled into its slot. What a task computes does not depend on the batch, to the bit.
// All ranks run the same calls. A pass ends in a ballot, one small all-gather, in which the last
// stage's ranks name their best next token of each task and every rank says whether it was
// interrupted or failed: so all ranks agree on tokens and on stopping, without further messages.
// Where tokens are sampled, rank 0 gathers whole logits before the ballot, draws, and is the only
// one to name a token. Stop strings need no message at all: every rank decodes the tokens.
// Goals: greedy decoding, sampling and teacher forcing; observers that see each step once, in
//   order, on every rank; the same bits whoever observes.
// Non-goals: files, prefill and decode in one pass, several batches in a pipeline.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/decoder.h"
#include "runtime/sampler.h"
#include "runtime/stop_strings.h"
#include "traces/trace.h"

namespace thermocline {

// Sees what this rank's neurons did, a step at a time: one token of one task, whatever the batch.
// Called after a pass's time was taken: an observer costs no step anything, and changes no result.
class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) = 0;
  // In the order of the tasks, so that the n-th call is about the n-th task: one that ends before
  // an earlier one is held back. None for tasks that were interrupted, nor for those behind one.
  virtual void on_task_end(const TaskRecord& /*task*/) {}
};

struct TaskInput {
  uint32_t index = 0;  // within the run
  int32_t task_id = 0;
  std::vector<int32_t> prompt;  // BOS first
  std::vector<int32_t> forced;  // what a teacher forces; empty: decode
  uint32_t new_token_max = 0;   // of decoding
  uint32_t sample = 0;          // of those of the same task
};

// Sees decoded tokens as they are chosen. Tasks begin in order; the tokens of those in
// flight alternate.
class TokenObserver {
 public:
  virtual ~TokenObserver() = default;
  virtual void on_task_begin(const TaskInput& task) = 0;
  virtual void on_token(const TaskInput& task, int32_t previous, int32_t token) = 0;
  virtual void on_task_end(const TaskInput& task) = 0;  // as it ends; not if interrupted
};

// Payload bytes that this rank sent to each rank of the job: (ranks), its own entry zero.
struct SentBytes {
  std::vector<uint64_t> run;  // since the engine was made: all passes, and what is agreed between
  std::vector<uint64_t> decode;  // of these, in decode steps
};

// Of every rank, by rank. Collective.
std::vector<SentBytes> gather_sent(Comm& comm, const SentBytes& mine);

// A pass that this rank went through, its time taken.
struct PassReport {
  Phase phase;
  uint32_t step_count;
  StepTimes times;  // of the whole pass
  // Whether all ranks met at its end. Where they did not, other stages may still be at it.
  bool all_met;
  SentBytes sent;  // so far

  uint64_t duration_ns() const {
    return times.compute_ns + times.transfer_ns + times.comm_ns + times.wait_ns;
  }
};

struct EngineHooks {
  std::vector<StepObserver*> observers;
  // On rank 0 only: every step's logits (vocab_size), in order. Set on all ranks or on none.
  std::function<void(std::span<const float> logits)> on_logits;
  bool all_logits = false;          // true on every rank where rank 0 has on_logits
  TokenObserver* tokens = nullptr;  // on rank 0 only
  // After a pass's time was taken, with its rows. Set on all ranks or on none: it may be
  // collective.
  std::function<void(std::span<const DecoderRow> rows)> on_pass;
  // Behind it, with what the pass took. Likewise.
  std::function<void(const PassReport& report)> on_report;
};

// Sums over decode passes, for means. Times of the parts include their communication.
struct DecodeSums {
  uint64_t pass_count = 0;
  uint64_t step_count = 0;  // of these passes
  uint64_t compute_ns = 0;
  uint64_t transfer_ns = 0;  // waiting for weights from another tier
  uint64_t comm_ns = 0;
  uint64_t wait_ns = 0;
  uint64_t attention_ns = 0;
  uint64_t ffn_ns = 0;
  uint64_t predictor_ns = 0;    // of ffn_ns
  uint64_t head_ns = 0;         // output head and agreeing on the token, on the last stage
  uint64_t needed_neurons = 0;  // of this rank: those active in any step of a pass
  uint64_t candidates = 0;      // likewise: those that a predictor named in any step of a pass
};

struct TaskResult {
  std::vector<int32_t> tokens;    // decoded, the stop among them, or the forced ones
  uint64_t ttft_ns = 0;           // start of its prefill to its first token
  std::vector<uint64_t> tpot_ns;  // of each decode step: the duration of its pass
  uint32_t step_begin = 0;        // its first step's number in the run
  uint32_t step_count = 0;        // 0: it never began
  bool interrupted = false;
};

struct EngineOptions {
  StopRule stop;  // of decoding; its tokenizer outlives the engine
  uint32_t context_length = 0;
  uint32_t chunk_max = 32;          // prompt tokens of one pass
  bool (*interrupted)() = nullptr;  // looked at once a ballot
  uint32_t batch = 1;               // tasks in flight, at most the decoder's slots
  // Observers get |act(gate)| of each step of the run whose number is a multiple; 0: of none.
  uint32_t magnitudes_every = 0;
  // Where the run goes on: what observers were shown before.
  uint32_t step_begin = 0, pass_begin = 0;
  SamplingOptions sampling = {};
};

// Logits of `count` rows, side by side on rank 0: mine (count, this rank's vocabulary rows), of the
// last stage's ranks; whole (count, vocab_size), on rank 0. Collective.
void gather_vocabulary(Comm& comm, const Partition& partition, uint32_t vocab_size,
                       const float* mine, uint32_t count, float* whole);

class Engine {
 public:
  // comm, decoder and hooks outlive the engine.
  Engine(Comm& comm, const ModelShape& shape, const Partition& partition, Decoder& decoder,
         EngineHooks& hooks, EngineOptions options);

  // Collective; results in the order of the tasks. An interruption ends all tasks in flight.
  // Throws AgreedError on all ranks where an observer failed on one.
  std::vector<TaskResult> run(std::span<const TaskInput> tasks);
  TaskResult run(const TaskInput& task) { return run({&task, 1}).front(); }

  const DecodeSums& sums() const { return sums_; }
  SentBytes sent() const;

 private:
  // A task in flight.
  struct Request {
    const TaskInput* task;
    uint32_t slot;
    TaskResult result;
    StopText text;       // empty where no strings stop it
    int32_t next = -1;   // the token to feed
    bool ended = false;  // nothing is left to feed
  };
  // What run() is about.
  struct Run {
    std::span<const TaskInput> tasks;
    std::vector<TaskResult> results;            // of those that ended
    std::vector<std::optional<Request>> slots;  // empty: free
    size_t begun = 0;                           // tasks
    size_t recorded = 0;                        // tasks whose end the observers know of
    bool interrupted = false;
  };
  struct Outcome {
    bool interrupted = false;
    uint64_t duration_ns = 0;
  };
  struct Ballot;

  void fill_slots(Run& run);
  void decode_once(Run& run);
  void settle(Run& run, std::optional<Request>& slot);
  Outcome prefill(Request& request);
  void choose_next(Request& request, int32_t chosen);
  bool stops(Request& request, int32_t previous) const;

  bool gathers() const { return hooks_.all_logits || !options_.sampling.greedy(); }
  void add_row(const Request& request, int32_t token, uint32_t position);
  Outcome execute(Phase phase, uint32_t voter_count);
  void place_magnitudes();
  void pass_logits(uint32_t count);
  void add_decode_pass(const StepTimes& times, uint64_t head_ns);
  uint64_t in_any_row(std::span<const uint64_t> words) const;
  static Ballot best_of(std::span<const float> logits, uint32_t vocab_begin);
  Ballot drawn(uint32_t logits_row, uint32_t row);
  Ballot opinion(uint32_t logits_row, uint32_t row);
  bool ballot(uint32_t logits_begin, uint32_t voter_count);
  bool count_votes(std::span<const Ballot> all, uint32_t voter_count);
  void observe(Phase phase, const StepTimes& times);
  void guarded(const std::function<void()>& work);
  void share_failure();

  Comm& comm_;
  const ModelShape& shape_;
  const Partition& partition_;
  Decoder& decoder_;
  EngineHooks& hooks_;
  EngineOptions options_;
  Sampler sampler_;
  DecodeSums sums_;
  // By rank: of decode steps; the Comm's counts before the engine, and before the pass.
  std::vector<uint64_t> decode_sent_, sent_before_run_, sent_before_pass_;
  uint32_t step_total_ = 0;  // steps so far
  uint32_t pass_ = 0;        // forwards so far
  std::string failure_;      // of an observer on this rank, until the next ballot
  int failure_code_ = 0;
  // Of the pass: a row a step.
  std::vector<DecoderRow> rows_;
  std::vector<const TaskInput*> row_tasks_;
  std::vector<int32_t> chosen_;  // the next tokens that its ballot agreed on
  // Room for the largest pass.
  std::vector<uint64_t> words_;      // (row, words_per_step)
  std::vector<float> logits_;        // (row, vocabulary rows of this rank)
  std::vector<float> whole_logits_;  // (row, vocab_size), rank 0 where it gathers them
  std::vector<float> magnitudes_;    // (sampled row, layer_count, neuron_count)
};

}  // namespace thermocline
