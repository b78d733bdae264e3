#include "traces/synthetic_tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "models/counter_random.h"
#include "models/error.h"
#include "models/hash.h"

namespace thermocline {
namespace {

enum Stream : uint32_t { kShape, kTokens };

constexpr uint32_t kChunk = 32;  // prompt positions that share a pass
constexpr uint32_t kTokensPerBlock = RandomStream::kBytesPerBlock / sizeof(uint32_t);
constexpr uint32_t kStepsPerTaskMin = 8;  // a prompt and a few tokens

// Quantiles of the length of prompt and solution. Between the published ones (0, 5, 50, 95, 99 %)
// lengths grow geometrically, which gives the published mean. Numbers of 65536ths, ascending.
struct Quantile {
  uint32_t share, tokens;
};
constexpr uint32_t at(uint32_t percent) { return percent * 65536 / 100; }
constexpr Quantile kLengths[] = {
    {at(0), 98},   {at(5), 117},  {at(10), 124}, {at(15), 131}, {at(20), 139}, {at(25), 147},
    {at(30), 156}, {at(35), 166}, {at(40), 176}, {at(45), 186}, {at(50), 197}, {at(55), 213},
    {at(60), 230}, {at(65), 248}, {at(70), 267}, {at(75), 289}, {at(80), 312}, {at(85), 336},
    {at(90), 363}, {at(95), 392}, {at(99), 572}, {at(100), 640}};

uint32_t length_at(uint32_t share) {
  const Quantile* above =
      std::find_if(std::begin(kLengths) + 1, std::end(kLengths) - 1,
                   [share](const Quantile& quantile) { return share < quantile.share; });
  const Quantile& below = above[-1];
  return below.tokens +
         (above->tokens - below.tokens) * (share - below.share) / (above->share - below.share);
}

// The numbers of one block of a row.
struct Block {
  uint32_t numbers[kTokensPerBlock];

  Block(uint64_t seed, Stream stream, uint32_t row, uint32_t block) {
    uint8_t bytes[RandomStream::kBytesPerBlock];
    RandomStream(seed, stream).blocks(row, block, 1, bytes);
    std::memcpy(numbers, bytes, sizeof numbers);
  }
};

}  // namespace

SyntheticTasks::SyntheticTasks(const SyntheticTextOptions& options) : options_(options) {
  const uint64_t steps = options.step_count;
  if (steps == 0 || steps > UINT32_MAX) {
    throw bad_usage(fmt::format("--steps {}: expected from 1 to {}", steps, UINT32_MAX));
  }
  const uint64_t task_max = steps / kStepsPerTaskMin;
  if (options.task_count && (*options.task_count == 0 || *options.task_count > task_max)) {
    throw bad_usage(fmt::format("--tasks {}: expected from 1 to {} for {} steps ({} a task)",
                                *options.task_count, task_max, steps, kStepsPerTaskMin));
  }
  const auto drawn_all = [&] {
    return options.task_count ? task_count_ == *options.task_count : length_total_ >= steps;
  };
  while (!drawn_all()) length_total_ += length(task_count_++);
  if (!options.task_count) length_total_ = steps;  // lengths stay as they are, but for the cut
  while (const auto task = next()) longest_ = std::max(longest_, task->step_count);
  index_ = pass_ = 0;
  begin_ = length_sum_ = 0;
}

std::string SyntheticTasks::hash() const {
  Fnv1a hash;
  hash.add("synthetic text");
  hash.add_value(options_.seed);
  hash.add_value(options_.step_count);
  hash.add_value(task_count_);
  hash.add_value(uint8_t{options_.task_count.has_value()});
  hash.add_value(options_.vocab_size);
  return hash.hex();
}

uint32_t SyntheticTasks::length(uint32_t task) const {
  return length_at(Block(options_.seed, kShape, task, 0).numbers[0] >> 16);
}

// At least one.
uint32_t SyntheticTasks::prompt_tokens(uint32_t task, uint32_t step_count) const {
  const uint64_t random = Block(options_.seed, kShape, task, 0).numbers[1];
  const uint64_t share = (uint64_t{1} << 31) + (random * 22 / 100);  // of 2^32
  return std::max(1u, static_cast<uint32_t>(step_count * share >> 32));
}

int32_t SyntheticTasks::token(uint32_t task, uint32_t position) const {
  const Block block(options_.seed, kTokens, task, position / kTokensPerBlock);
  const uint64_t number = block.numbers[position % kTokensPerBlock];
  return static_cast<int32_t>(number * options_.vocab_size >> 32);
}

// The step at which tasks of these lengths together end.
uint64_t SyntheticTasks::end_of(uint64_t length_sum) const {
  if (length_sum >= length_total_) return options_.step_count;
  const auto stretched = static_cast<unsigned __int128>(length_sum) * options_.step_count;
  return static_cast<uint64_t>(stretched / length_total_);
}

std::optional<SyntheticTask> SyntheticTasks::next() {
  if (index_ == task_count_) return std::nullopt;
  length_sum_ += length(index_);
  const uint64_t end = end_of(length_sum_);
  SyntheticTask task{index_, static_cast<uint32_t>(begin_), static_cast<uint32_t>(end - begin_), 0,
                     pass_};
  task.prompt_tokens = prompt_tokens(index_, task.step_count);
  pass_ += (task.prompt_tokens + kChunk - 1) / kChunk + task.step_count - task.prompt_tokens;
  begin_ = end;
  ++index_;
  return task;
}

StepInfo SyntheticTasks::step(const SyntheticTask& task, uint32_t position) const {
  const bool prefill = position < task.prompt_tokens;
  const uint32_t chunks = (task.prompt_tokens + kChunk - 1) / kChunk;
  const uint32_t pass = prefill ? position / kChunk : chunks + position - task.prompt_tokens;
  return {token(task.index, position), position, task.index,
          prefill ? Phase::prefill : Phase::decode, task.pass_begin + pass};
}

// The last prompt position yields the first token, the last step one that is no step's input.
TaskRecord SyntheticTasks::record(const SyntheticTask& task) const {
  TaskRecord record{static_cast<int32_t>(task.index + 1),
                    task.step_begin,
                    task.step_count,
                    task.prompt_tokens,
                    {}};
  for (uint32_t position = task.prompt_tokens; position <= task.step_count; ++position) {
    record.generated.push_back(token(task.index, position));
  }
  return record;
}

}  // namespace thermocline
