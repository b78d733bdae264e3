// SyntheticTasks: texts that were never written, as long as those of MBPP.
//
// A task is a prompt and a solution. Their length follows the quantiles of MBPP's test split
// without
//   shots (activations.md section 4: least 98 tokens, median 197, mean 227, 95 % under 392, 99 %
//   under 572; the one task of 4,227 is left out). The prompt is 50 to 72 % of it, drawn evenly:
//   the median of both is MBPP's. Tokens are drawn evenly from the vocabulary.
// Without a number of tasks, tasks are drawn until the steps are used up; the last is cut. With
// one,
//   all lengths are stretched by the same factor, so that both numbers are met.
// Passes are those of the runtime: 32 prompt positions share one, each decoded token has its own.
// Goals: tasks one after the other in memory for one; a function of the seed alone.
// Non-goals: what neurons do (traces/activity_process.h).
// Thread-safety: next() belongs to one thread; const methods may be called from any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "traces/trace.h"

namespace thermocline {

struct SyntheticTextOptions {
  uint64_t seed = 1;
  uint64_t step_count = 0;             // of all tasks
  std::optional<uint32_t> task_count;  // nothing: as many as the steps are enough for
  uint32_t vocab_size = 1;
};

struct SyntheticTask {
  uint32_t index;
  uint32_t step_begin;
  uint32_t step_count;
  uint32_t prompt_tokens;
  uint32_t pass_begin;
};

class SyntheticTasks {
 public:
  // Usage Error for numbers that do not fit each other.
  explicit SyntheticTasks(const SyntheticTextOptions& options);

  uint32_t task_count() const { return task_count_; }
  uint32_t longest() const { return longest_; }  // steps of a task
  std::string hash() const;                      // names the text

  // Nothing after the last.
  std::optional<SyntheticTask> next();
  StepInfo step(const SyntheticTask& task, uint32_t position) const;
  TaskRecord record(const SyntheticTask& task) const;

 private:
  uint32_t length(uint32_t task) const;  // before it is stretched or cut
  uint32_t prompt_tokens(uint32_t task, uint32_t step_count) const;
  int32_t token(uint32_t task, uint32_t position) const;
  uint64_t end_of(uint64_t length_sum) const;

  SyntheticTextOptions options_;
  uint32_t task_count_ = 0, longest_ = 0;
  uint64_t length_total_ = 0;
  // Of the next task.
  uint32_t index_ = 0, pass_ = 0;
  uint64_t begin_ = 0, length_sum_ = 0;
};

}  // namespace thermocline
