#include "runtime/engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "models/error.h"

namespace thermocline {

// What every rank says of one task's next token at the end of a pass.
struct Engine::Ballot {
  float best = -std::numeric_limits<float>::infinity();
  int32_t token = -1;      // of `best`, in the rank's vocabulary rows; -1: no opinion
  int32_t not_finite = 0;  // logits held a NaN or an infinity
  int32_t interrupted = 0;
  int32_t failed = 0;  // exit code of a failure of this rank
};

Engine::Ballot Engine::best_of(std::span<const float> logits, uint32_t vocab_begin) {
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

void gather_vocabulary(Comm& comm, const Partition& partition, uint32_t vocab_size,
                       const float* mine, uint32_t count, float* whole) {
  const auto rank = static_cast<uint32_t>(comm.rank());
  if (partition.last_stage(rank) && rank != 0) {
    comm.send(0, mine, uint64_t{count} * partition.ranks[rank].vocab.count * sizeof(float));
  }
  if (rank != 0) return;
  std::vector<float> part;
  for (const RankShare& share : partition.ranks) {
    if (!partition.last_stage(share.rank)) continue;
    const size_t width = share.vocab.count;
    part.resize(count * width);
    if (share.rank == 0) {
      std::copy_n(mine, part.size(), part.data());
    } else {
      comm.receive(static_cast<int>(share.rank), part.data(), part.size() * sizeof(float));
    }
    for (size_t t = 0; t < count; ++t) {
      std::copy_n(part.data() + t * width, width, whole + t * vocab_size + share.vocab.begin);
    }
  }
}

std::vector<SentBytes> gather_sent(Comm& comm, const SentBytes& mine) {
  const size_t size = mine.run.size();
  std::vector<uint64_t> run(size * size), decode(size * size);
  comm.all_gather(mine.run.data(), size * sizeof(uint64_t), run.data());
  comm.all_gather(mine.decode.data(), size * sizeof(uint64_t), decode.data());
  std::vector<SentBytes> all(size);
  for (size_t rank = 0; rank < size; ++rank) {
    all[rank].run.assign(&run[rank * size], &run[rank * size] + size);
    all[rank].decode.assign(&decode[rank * size], &decode[rank * size] + size);
  }
  return all;
}

Engine::Engine(Comm& comm, const ModelShape& shape, const Partition& partition, Decoder& decoder,
               EngineHooks& hooks, EngineOptions options)
    : comm_(comm),
      shape_(shape),
      partition_(partition),
      decoder_(decoder),
      hooks_(hooks),
      options_(std::move(options)),
      sampler_(options_.sampling),
      decode_sent_(static_cast<size_t>(comm.size())),
      sent_before_run_(comm.sent_bytes()),
      step_total_(options_.step_begin),
      pass_(options_.pass_begin) {
  TC_CHECK(options_.batch > 0 && options_.batch <= decoder.slot_count(), "a slot for each task");
  TC_CHECK(options_.stop.strings.empty() || options_.stop.tokenizer != nullptr, "a tokenizer");
  const uint64_t row_max = std::max(options_.chunk_max, options_.batch);
  words_.resize(row_max * decoder.neuron_pool().words_per_step());
  const auto rank = static_cast<uint32_t>(comm.rank());
  if (partition.last_stage(rank)) logits_.resize(row_max * partition.ranks[rank].vocab.count);
  if (gathers() && rank == 0) {
    whole_logits_.resize((hooks.all_logits ? row_max : options_.batch) * shape.vocab_size);
  }
  if (const uint64_t every = options_.magnitudes_every; every > 0) {
    magnitudes_.resize((row_max + every - 1) / every * decoder.neuron_pool().total());
  }
}

std::vector<TaskResult> Engine::run(std::span<const TaskInput> tasks) {
  Run run{tasks, std::vector<TaskResult>(tasks.size()), {}};
  run.slots.resize(options_.batch);
  const auto in_flight = [](const std::optional<Request>& slot) { return slot.has_value(); };
  const auto work_is_left = [&] {
    return run.begun < tasks.size() || std::any_of(run.slots.begin(), run.slots.end(), in_flight);
  };
  while (!run.interrupted && work_is_left()) {
    fill_slots(run);
    if (!run.interrupted) decode_once(run);
  }
  for (std::optional<Request>& slot : run.slots) {
    if (!slot.has_value()) continue;
    slot->result.interrupted = true;
    settle(run, slot);
  }
  share_failure();
  return std::move(run.results);
}

// A task may end with its prefill: then the next one takes the slot at once.
void Engine::fill_slots(Run& run) {
  for (uint32_t i = 0; i < run.slots.size(); ++i) {
    std::optional<Request>& slot = run.slots[i];
    while (!slot.has_value() && run.begun < run.tasks.size() && !run.interrupted) {
      slot = Request{&run.tasks[run.begun++], i, {}, StopText(options_.stop.strings)};
      const Outcome outcome = prefill(*slot);
      run.interrupted = outcome.interrupted;
      if (!run.interrupted) choose_next(*slot, chosen_[0]);
      if (slot->ended) settle(run, slot);
    }
  }
}

// One token of each task in flight.
void Engine::decode_once(Run& run) {
  rows_.clear();
  row_tasks_.clear();
  for (const std::optional<Request>& slot : run.slots) {
    if (slot.has_value()) add_row(*slot, slot->next, slot->result.step_count);
  }
  if (rows_.empty()) return;
  const Outcome outcome = execute(Phase::decode, static_cast<uint32_t>(rows_.size()));
  run.interrupted = outcome.interrupted;
  size_t row = 0;
  for (std::optional<Request>& slot : run.slots) {
    if (!slot.has_value()) continue;
    ++slot->result.step_count;
    slot->result.tpot_ns.push_back(outcome.duration_ns);
    if (!run.interrupted) choose_next(*slot, chosen_[row]);
    if (slot->ended) settle(run, slot);
    ++row;
  }
}

// Frees the slot of a task, and tells observers of the tasks that ended, up to the first that has
// not.
void Engine::settle(Run& run, std::optional<Request>& slot) {
  if (hooks_.tokens != nullptr && slot->ended) hooks_.tokens->on_task_end(*slot->task);
  run.results[static_cast<size_t>(slot->task - run.tasks.data())] = std::move(slot->result);
  slot.reset();
  for (; run.recorded < run.tasks.size(); ++run.recorded) {
    const TaskInput& task = run.tasks[run.recorded];
    const TaskResult& result = run.results[run.recorded];
    if (result.step_count == 0 || result.interrupted) return;
    const TaskRecord record{task.task_id, result.step_begin, result.step_count,
                            static_cast<uint32_t>(task.prompt.size()), result.tokens};
    for (StepObserver* observer : hooks_.observers) {
      guarded([&] { observer->on_task_end(record); });
    }
  }
}

// Stages work on different chunks at once; they meet for a ballot every `pipeline` chunks.
Engine::Outcome Engine::prefill(Request& request) {
  const std::vector<int32_t>& prompt = request.task->prompt;
  TC_CHECK(!prompt.empty(), "a prompt has at least its BOS token");
  if (hooks_.tokens != nullptr) hooks_.tokens->on_task_begin(*request.task);
  const auto count = static_cast<uint32_t>(prompt.size());
  TaskResult& result = request.result;
  result.step_begin = step_total_;
  Outcome outcome;
  uint32_t chunk_index = 0;
  while (result.step_count < count && !outcome.interrupted) {
    rows_.clear();
    row_tasks_.clear();
    const uint32_t end = std::min(count, result.step_count + options_.chunk_max);
    for (; result.step_count < end; ++result.step_count) {
      add_row(request, prompt[result.step_count], result.step_count);
    }
    const bool vote = end == count || ++chunk_index % partition_.layout.pipeline == 0;
    outcome = execute(Phase::prefill, vote ? 1 : 0);
    result.ttft_ns += outcome.duration_ns;
  }
  return outcome;
}

// The token that the task feeds next, where `chosen` is the ranks' choice; or its end.
void Engine::choose_next(Request& request, int32_t chosen) {
  const TaskInput& task = *request.task;
  TaskResult& result = request.result;
  const bool forced = !task.forced.empty();
  request.ended = result.tokens.size() >= (forced ? task.forced.size() : task.new_token_max);
  if (request.ended) return;
  request.next = forced ? task.forced[result.tokens.size()] : chosen;
  const int32_t previous = result.tokens.empty() ? task.prompt.back() : result.tokens.back();
  result.tokens.push_back(request.next);
  if (forced) return;
  if (hooks_.tokens != nullptr) hooks_.tokens->on_token(task, previous, chosen);
  request.ended = result.tokens.size() >= task.new_token_max ||
                  result.step_count >= options_.context_length || stops(request, previous);
}

bool Engine::stops(Request& request, int32_t previous) const {
  const StopRule& rule = options_.stop;
  if (rule.has_token(request.next)) return true;
  return !rule.strings.empty() && request.text.add(rule.tokenizer->decode(previous, request.next));
}

void Engine::add_row(const Request& request, int32_t token, uint32_t position) {
  rows_.push_back({token, position, request.slot});
  row_tasks_.push_back(request.task);
}

// The rows through all ranks. Of the last `voter_count` of them, all ranks agree on the next token;
// where it is 0, they do not meet.
Engine::Outcome Engine::execute(Phase phase, uint32_t voter_count) {
  place_magnitudes();
  // An observer's time on one rank is no step's waiting time on another.
  if (voter_count > 0) comm_.barrier();
  decoder_.times() = {};
  sent_before_pass_ = comm_.sent_bytes();
  const uint64_t start = now_ns();
  const auto count = static_cast<uint32_t>(rows_.size());
  decoder_.forward(rows_, std::span(words_).first(count * decoder_.neuron_pool().words_per_step()));
  const uint64_t head_start = now_ns();
  const uint32_t first = hooks_.all_logits ? 0 : count - voter_count;
  if (first < count) {
    if (!logits_.empty()) decoder_.logits(first, count - first, logits_.data());
    if (gathers()) {
      decoder_.timed_transfer(comm_, [&] {
        gather_vocabulary(comm_, partition_, shape_.vocab_size, logits_.data(), count - first,
                          whole_logits_.data());
      });
    }
  }
  Outcome outcome;
  if (voter_count > 0) outcome.interrupted = ballot(count - voter_count - first, voter_count);
  const uint64_t end = now_ns();
  const DecoderTimes parts = decoder_.times();
  outcome.duration_ns = end - start - parts.audit_ns;
  const uint64_t elsewhere = parts.comm_ns + parts.wait_ns + parts.transfer_ns;
  const StepTimes times{outcome.duration_ns - elsewhere, parts.transfer_ns, parts.comm_ns,
                        parts.wait_ns};
  if (phase == Phase::decode) add_decode_pass(times, end - head_start);
  if (hooks_.on_logits) pass_logits(count);
  observe(phase, times);
  if (hooks_.on_pass) hooks_.on_pass(rows_);
  if (hooks_.on_report) hooks_.on_report({phase, count, times, voter_count > 0, sent()});
  return outcome;
}

// Room for the magnitudes of the pass's steps that are sampled.
void Engine::place_magnitudes() {
  if (options_.magnitudes_every == 0) return;
  float* room = magnitudes_.data();
  for (uint32_t t = 0; t < rows_.size(); ++t) {
    if ((step_total_ + t) % options_.magnitudes_every != 0) continue;
    rows_[t].magnitudes = room;
    room += decoder_.neuron_pool().total();
  }
}

void Engine::add_decode_pass(const StepTimes& times, uint64_t head_ns) {
  ++sums_.pass_count;
  sums_.step_count += rows_.size();
  sums_.compute_ns += times.compute_ns;
  sums_.transfer_ns += times.transfer_ns;
  sums_.comm_ns += times.comm_ns;
  sums_.wait_ns += times.wait_ns;
  sums_.attention_ns += decoder_.times().attention_ns;
  sums_.ffn_ns += decoder_.times().ffn_ns;
  if (!logits_.empty()) sums_.head_ns += head_ns;
  sums_.predictor_ns += decoder_.times().predictor_ns;
  sums_.needed_neurons += in_any_row(words_);
  sums_.candidates += in_any_row(decoder_.candidate_words());
  for (size_t to = 0; to < decode_sent_.size(); ++to) {
    decode_sent_[to] += comm_.sent_bytes()[to] - sent_before_pass_[to];
  }
}

SentBytes Engine::sent() const {
  SentBytes sent{comm_.sent_bytes(), decode_sent_};
  for (size_t to = 0; to < sent.run.size(); ++to) sent.run[to] -= sent_before_run_[to];
  return sent;
}

// How many neurons have a bit in any row of the pass.
uint64_t Engine::in_any_row(std::span<const uint64_t> words) const {
  if (words.empty()) return 0;
  const uint64_t stride = decoder_.neuron_pool().words_per_step();
  uint64_t count = 0;
  for (uint64_t i = 0; i < stride; ++i) {
    uint64_t any = 0;
    for (uint64_t t = 0; t < rows_.size(); ++t) any |= words[t * stride + i];
    count += static_cast<uint64_t>(std::popcount(any));
  }
  return count;
}

void Engine::pass_logits(uint32_t count) {
  for (size_t t = 0; t < count; ++t) {
    guarded([&] {
      hooks_.on_logits(std::span(whole_logits_).subspan(t * shape_.vocab_size, shape_.vocab_size));
    });
  }
}

// Of a row of the pass, drawn from its row of whole logits. As rank 0 has all of them, it also says
// for the others whether they are finite.
Engine::Ballot Engine::drawn(uint32_t logits_row, uint32_t row) {
  const size_t width = shape_.vocab_size;
  const std::span<const float> logits = std::span(whole_logits_).subspan(logits_row * width, width);
  Ballot ballot = best_of(logits, 0);
  const TaskInput& task = *row_tasks_[row];
  if (ballot.not_finite == 0) {
    ballot.token = sampler_.draw(logits, {task.task_id, task.sample, rows_[row].position + 1});
  }
  return ballot;
}

Engine::Ballot Engine::opinion(uint32_t logits_row, uint32_t row) {
  const auto rank = static_cast<uint32_t>(comm_.rank());
  if (!options_.sampling.greedy()) return rank == 0 ? drawn(logits_row, row) : Ballot{};
  if (logits_.empty()) return {};
  const Range vocab = partition_.ranks[rank].vocab;
  const auto from = size_t{logits_row} * vocab.count;
  return best_of(std::span(logits_).subspan(from, vocab.count), vocab.begin);
}

// Next tokens of the last `voter_count` rows, whose logits begin at row `logits_begin` of the last
// ones. True if a rank was interrupted.
bool Engine::ballot(uint32_t logits_begin, uint32_t voter_count) {
  const auto row_begin = static_cast<uint32_t>(rows_.size()) - voter_count;
  const bool stop = options_.interrupted != nullptr && options_.interrupted();
  std::vector<Ballot> mine(voter_count);
  for (uint32_t i = 0; i < voter_count; ++i) {
    mine[i] = opinion(logits_begin + i, row_begin + i);
    mine[i].interrupted = stop ? 1 : 0;
    mine[i].failed = failure_code_;
  }
  std::vector<Ballot> all(voter_count * static_cast<size_t>(comm_.size()));
  decoder_.timed_transfer(
      comm_, [&] { comm_.all_gather(mine.data(), voter_count * sizeof(Ballot), all.data()); });
  return count_votes(all, voter_count);
}

// all: (rank, voter)
bool Engine::count_votes(std::span<const Ballot> all, uint32_t voter_count) {
  std::vector<Ballot> best(voter_count);
  bool interrupted = false, failed = false, finite = true;
  for (size_t i = 0; i < all.size(); ++i) {
    const Ballot& vote = all[i];
    failed = failed || vote.failed != 0;
    interrupted = interrupted || vote.interrupted != 0;
    finite = finite && vote.not_finite == 0;
    Ballot& winner = best[i % voter_count];
    if (vote.token >= 0 && (winner.token < 0 || vote.best > winner.best)) winner = vote;
  }
  if (failed) share_failure();
  if (!finite) {
    throw AgreedError(ErrorKind::failed,
                      comm_.rank() == 0
                          ? "a logit is not a finite number: the weights are damaged, or "
                            "their type cannot hold the model's values"
                          : "");
  }
  chosen_.clear();
  for (const Ballot& winner : best) chosen_.push_back(winner.token);
  return interrupted;
}

void Engine::observe(Phase phase, const StepTimes& times) {
  const NeuronPool& pool = decoder_.neuron_pool();
  const uint64_t stride = pool.words_per_step(), count = rows_.size();
  // A pass's time is shared evenly.
  const StepTimes share{times.compute_ns / count, times.transfer_ns / count, times.comm_ns / count,
                        times.wait_ns / count};
  for (uint64_t t = 0; t < count; ++t) {
    const DecoderRow& row = rows_[t];
    const StepInfo info{row.token, row.position, row_tasks_[t]->index, phase, pass_};
    StepData data{std::span<const uint64_t>(words_).subspan(t * stride, stride), {}, {}};
    if (row.magnitudes != nullptr) data.magnitudes = {row.magnitudes, pool.total()};
    for (StepObserver* observer : hooks_.observers) {
      guarded([&] { observer->on_step(info, share, data); });
    }
  }
  step_total_ += static_cast<uint32_t>(count);
  ++pass_;
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

}  // namespace thermocline
