#include "runtime/engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "models/error.h"

namespace thermocline {
namespace {

// What every rank says at the end of a step.
struct Ballot {
  float best = -std::numeric_limits<float>::infinity();
  int32_t token = -1;      // of `best`, in the rank's vocabulary rows; -1: no opinion
  int32_t not_finite = 0;  // logits held a NaN or an infinity
  int32_t interrupted = 0;
  int32_t failed = 0;  // exit code of a failure of this rank
};

Ballot best_of(std::span<const float> logits, uint32_t vocab_begin) {
  Ballot ballot;
  for (uint32_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) ballot.not_finite = 1;
    // Strictly greater: of equals, the lowest token wins on any layout.
    if (logits[i] > ballot.best || ballot.token < 0) {
      ballot.best = logits[i];
      ballot.token = static_cast<int32_t>(vocab_begin + i);
    }
  }
  return ballot;
}

}  // namespace

Engine::Engine(Comm& comm, const ModelShape& shape, const Partition& partition, Decoder& decoder,
               EngineHooks& hooks, EngineOptions options)
    : comm_(comm),
      shape_(shape),
      partition_(partition),
      decoder_(decoder),
      hooks_(hooks),
      options_(std::move(options)) {
  const uint64_t chunk = options_.chunk_max;
  words_.resize(chunk * decoder.neuron_pool().words_per_step());
  const auto rank = static_cast<uint32_t>(comm.rank());
  if (partition.last_stage(rank)) logits_.resize(chunk * partition.ranks[rank].vocab.count);
  if (hooks.all_logits && rank == 0) whole_logits_.resize(chunk * shape.vocab_size);
}

TaskResult Engine::run(const TaskInput& task) {
  TC_CHECK(!task.prompt.empty(), "a prompt has at least its BOS token");
  TaskResult result;
  const Outcome first = prefill(task, result);
  if (!first.interrupted) {
    if (task.forced.empty()) {
      decode_greedily(task, first.token, result);
    } else {
      decode_forced(task, result);
    }
  }
  const TaskRecord record{task.task_id, step_total_, result.step_count,
                          static_cast<uint32_t>(task.prompt.size()), result.tokens};
  step_total_ += result.step_count;
  if (!result.interrupted) {
    for (StepObserver* observer : hooks_.observers) {
      guarded([&] { observer->on_task_end(record); });
    }
  }
  share_failure();
  return result;
}

// Stages work on different chunks at once; they meet for a ballot every `pipeline` chunks.
Engine::Outcome Engine::prefill(const TaskInput& task, TaskResult& result) {
  const auto count = static_cast<uint32_t>(task.prompt.size());
  const std::span<const int32_t> prompt(task.prompt);
  Outcome outcome;
  uint32_t chunk_index = 0;
  for (uint32_t begin = 0; begin < count && !outcome.interrupted; begin += options_.chunk_max) {
    const uint32_t size = std::min(options_.chunk_max, count - begin);
    const bool last = begin + size == count;
    const bool vote = last || ++chunk_index % partition_.layout.pipeline == 0;
    outcome = execute(task, prompt.subspan(begin, size), begin, Phase::prefill, vote);
    result.ttft_ns += outcome.duration_ns;
    result.step_count += size;
  }
  result.interrupted = outcome.interrupted;
  return outcome;
}

void Engine::decode_greedily(const TaskInput& task, int32_t token, TaskResult& result) {
  int32_t previous = task.prompt.back();
  while (true) {
    if (result.tokens.size() >= task.new_token_max || result.interrupted) return;
    result.tokens.push_back(token);
    if (hooks_.on_token) hooks_.on_token(previous, token);
    const bool full =
        result.tokens.size() >= task.new_token_max || result.step_count >= options_.context_length;
    if (full || stops(token)) return;
    previous = token;
    token = decode_step(task, token, result).token;
  }
}

void Engine::decode_forced(const TaskInput& task, TaskResult& result) {
  for (const int32_t token : task.forced) {
    result.tokens.push_back(token);
    decode_step(task, token, result);
    if (result.interrupted) return;
  }
}

Engine::Outcome Engine::decode_step(const TaskInput& task, int32_t token, TaskResult& result) {
  const Outcome outcome = execute(task, {&token, 1}, result.step_count, Phase::decode, true);
  ++result.step_count;
  result.tpot_ns.push_back(outcome.duration_ns);
  result.interrupted = outcome.interrupted;
  return outcome;
}

Engine::Outcome Engine::execute(const TaskInput& task, std::span<const int32_t> tokens,
                                uint32_t position, Phase phase, bool vote) {
  // An observer's time on one rank is no step's waiting time on another.
  if (vote) comm_.barrier();
  decoder_.times() = {};
  const uint64_t start = now_ns();
  const auto count = static_cast<uint32_t>(tokens.size());
  const auto words = std::span(words_).first(count * decoder_.neuron_pool().words_per_step());
  decoder_.forward(tokens, position, words);
  const uint64_t head_start = now_ns();
  const uint32_t first = hooks_.all_logits ? 0 : count - 1;
  if (vote || hooks_.all_logits) {
    if (!logits_.empty()) decoder_.logits(first, count - first, logits_.data());
    if (hooks_.all_logits) gather_logits(count - first);
  }
  Outcome outcome;
  if (vote) outcome = ballot(count - 1 - first);
  const uint64_t end = now_ns();
  outcome.duration_ns = end - start;
  const DecoderTimes& parts = decoder_.times();
  const StepTimes times{outcome.duration_ns - parts.comm_ns - parts.wait_ns, 0, parts.comm_ns,
                        parts.wait_ns};
  if (phase == Phase::decode) add_decode_step(times, end - head_start);
  if (hooks_.on_logits) pass_logits(count);
  observe(task, tokens, position, phase, times);
  ++pass_;
  return outcome;
}

void Engine::add_decode_step(const StepTimes& times, uint64_t head_ns) {
  const NeuronPool& pool = decoder_.neuron_pool();
  ++sums_.step_count;
  sums_.compute_ns += times.compute_ns;
  sums_.comm_ns += times.comm_ns;
  sums_.wait_ns += times.wait_ns;
  sums_.attention_ns += decoder_.times().attention_ns;
  sums_.ffn_ns += decoder_.times().ffn_ns;
  if (!logits_.empty()) sums_.head_ns += head_ns;
  sums_.active_neurons += ActiveSet{std::span(words_).first(pool.words_per_step())}.count();
}

// Rows of the last stage's ranks, side by side on rank 0.
void Engine::gather_logits(uint32_t count) {
  const auto rank = static_cast<uint32_t>(comm_.rank());
  decoder_.timed_transfer(comm_, [&] {
    if (partition_.last_stage(rank) && rank != 0) {
      const size_t width = partition_.ranks[rank].vocab.count;
      comm_.send(0, logits_.data(), count * width * sizeof(float));
    }
    if (rank != 0) return;
    std::vector<float> part;
    for (const RankShare& share : partition_.ranks) {
      if (!partition_.last_stage(share.rank)) continue;
      const size_t width = share.vocab.count;
      part.resize(count * width);
      if (share.rank == 0) {
        std::copy_n(logits_.data(), part.size(), part.data());
      } else {
        comm_.receive(static_cast<int>(share.rank), part.data(), part.size() * sizeof(float));
      }
      for (size_t t = 0; t < count; ++t) {
        std::copy_n(part.data() + t * width, width,
                    whole_logits_.data() + t * shape_.vocab_size + share.vocab.begin);
      }
    }
  });
}

void Engine::pass_logits(uint32_t count) {
  for (size_t t = 0; t < count; ++t) {
    guarded([&] {
      hooks_.on_logits(std::span(whole_logits_).subspan(t * shape_.vocab_size, shape_.vocab_size));
    });
  }
}

// row: which row of the last logits the next token is chosen from.
Engine::Outcome Engine::ballot(uint32_t row) {
  const auto rank = static_cast<uint32_t>(comm_.rank());
  Ballot mine;
  if (!logits_.empty()) {
    const Range vocab = partition_.ranks[rank].vocab;
    mine = best_of(std::span(logits_).subspan(size_t{row} * vocab.count, vocab.count), vocab.begin);
  }
  mine.interrupted = options_.interrupted != nullptr && options_.interrupted() ? 1 : 0;
  mine.failed = failure_code_;
  std::vector<Ballot> all(static_cast<size_t>(comm_.size()));
  decoder_.timed_transfer(comm_, [&] { comm_.all_gather(&mine, sizeof mine, all.data()); });
  Outcome outcome;
  Ballot best;
  bool failed = false;
  bool finite = true;
  for (const Ballot& vote : all) {
    failed = failed || vote.failed != 0;
    outcome.interrupted = outcome.interrupted || vote.interrupted != 0;
    finite = finite && vote.not_finite == 0;
    if (vote.token >= 0 && (best.token < 0 || vote.best > best.best)) best = vote;
  }
  if (failed) share_failure();
  if (!finite) {
    throw AgreedError(ErrorKind::failed,
                      rank == 0 ? "a logit is not a finite number: the weights are damaged, or "
                                  "their type cannot hold the model's values"
                                : "");
  }
  outcome.token = best.token;
  return outcome;
}

void Engine::observe(const TaskInput& task, std::span<const int32_t> tokens, uint32_t position,
                     Phase phase, const StepTimes& times) {
  const uint64_t stride = decoder_.neuron_pool().words_per_step();
  const uint64_t count = tokens.size();
  // A prefill chunk's time is shared evenly.
  const StepTimes share{times.compute_ns / count, times.transfer_ns / count, times.comm_ns / count,
                        times.wait_ns / count};
  for (uint64_t t = 0; t < count; ++t) {
    const StepInfo info{tokens[t], position + static_cast<uint32_t>(t), task.index, phase, pass_};
    const StepData data{std::span<const uint64_t>(words_).subspan(t * stride, stride), {}, {}};
    for (StepObserver* observer : hooks_.observers) {
      guarded([&] { observer->on_step(info, share, data); });
    }
  }
}

// Keeps the first failure of this rank for the next ballot, where all ranks hear of it.
void Engine::guarded(const std::function<void()>& work) {
  if (failure_code_ != 0) return;
  try {
    work();
  } catch (const Error& error) {
    failure_code_ = error.exit_code();
    failure_ = error.what();
  }
}

void Engine::share_failure() {
  together(comm_, [&] {
    if (failure_code_ != 0) throw Error(static_cast<ErrorKind>(failure_code_), failure_);
  });
}

bool Engine::stops(int32_t token) const {
  return std::find(options_.stop_tokens.begin(), options_.stop_tokens.end(), token) !=
         options_.stop_tokens.end();
}

}  // namespace thermocline
