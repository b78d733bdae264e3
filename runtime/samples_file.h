// SamplesFile: what each task decoded, one JSON object a line, as MBPP's harnesses read it.
//
// Of tasks in MBPP's form the line is EvalPlus's: {"task_id": "Mbpp/11", "solution": TEXT}, the
// whole
//   program. Of --prompt it is HumanEval's: {"task_id": "prompt/0", "completion": TEXT},
//   what follows the prompt. The other keys (sample, seed, temperature, top_p, finish_reason,
//   model, weights) are for people; harnesses ignore them.
// Goals: lines in the order of the tasks, those among them that a resumed run takes over; PATH.tmp
//   until finish(), and whole lines in it at any moment. Non-goals: running what was written.
// Thread-safety: rank 0's thread.
#pragma once

#include <string>

#include "models/new_file.h"
#include "runtime/run_plan.h"

namespace thermocline {

class SamplesFile final : public StepObserver {
 public:
  // The plan outlives the file.
  SamplesFile(const std::string& path, const RunPlan& plan);
  ~SamplesFile() override;  // keeps what finish() did not rename
  SamplesFile(const SamplesFile&) = delete;
  SamplesFile& operator=(const SamplesFile&) = delete;

  void on_step(const StepInfo&, const StepTimes&, const StepData&) override {}
  void on_task_end(const TaskRecord& record) override;

  void finish();
  // Renames what is complete to PATH.partial, and says so; empty where nothing is.
  std::string keep_partial();

 private:
  std::string path_;
  const RunPlan& plan_;
  NewFile file_;
  uint64_t byte_count_ = 0;
  size_t line_count_ = 0;
  bool closed_ = false;
};

// The line of one sample, its line break included.
std::string sample_line(const RunPlan& plan, const TaskInput& task, const DecodedText& decoded);

}  // namespace thermocline
