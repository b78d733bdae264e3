// JoinedTrace: a recorded trace as if some of its requests had decoded together.
//
// `batch` slots take the trace's tasks in order. A task that comes to a slot has its prompt first,
// step by step, alone; then every step joins the next token of each slot, until a task ends and the
// next takes its place (continuous batching). The active set of such a step is the union of theirs.
// Goals: nothing but a plan and some blocks of bits in memory; the same for any pool.
// Non-goals: recorded batches, whose steps stay apart (runtime's --batch).
// Thread-safety: const methods may be called from several threads, one at a time reads.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "sim/replay.h"
#include "traces/trace.h"

namespace thermocline {

class JoinedTrace final : public TraceReader {
 public:
  // `source` outlives it. Usage Error for a batch of zero.
  JoinedTrace(const TraceReader& source, uint32_t batch);

  std::span<const uint32_t> tasks_of(uint64_t step) const;  // whose tokens the step joins
  StepShape shape_of(uint64_t step) const;

  const TraceHeader& header() const override { return source_.header(); }
  uint64_t step_count() const override { return infos_.size(); }
  bool finished() const override { return source_.finished(); }
  const std::vector<std::string>& missing() const override { return source_.missing(); }
  bool holds(uint32_t rank) const override { return source_.holds(rank); }
  uint64_t file_bytes() const override { return source_.file_bytes(); }
  // The source's tasks; their steps are those here that serve them.
  const std::vector<TaskRecord>& tasks() const override { return tasks_; }
  std::vector<StepInfo> steps() const override { return infos_; }
  // Joined steps were never executed: zeros.
  std::vector<StepTimes> times(uint32_t rank) const override;
  std::vector<uint32_t> popcounts(uint64_t step_begin, uint64_t count) const override;
  void read(const NeuronPool& pool, uint64_t step_begin, uint64_t count,
            StepBlock& block) const override;
  void read_predicted(const NeuronPool& pool, uint64_t step_begin, uint64_t count,
                      StepBlock& block) const override;
  const std::vector<uint64_t>& magnitude_steps() const override { return no_steps_; }
  void read_magnitudes(const NeuronPool& pool, uint64_t row_begin, uint64_t row_count,
                       std::vector<float>& magnitudes) const override;
  std::string hash() const override { return source_.hash(); }

 private:
  struct Slot;
  void plan(uint32_t batch);
  void add_step(const StepInfo& info, std::span<const uint64_t> sources);
  void add_prompt(Slot& slot);
  void add_decode(std::vector<Slot>& slots);
  std::span<const uint64_t> sources_of(uint64_t step) const;
  // The row of a step of the source, from a few blocks that are kept.
  std::span<const uint64_t> source_row(const NeuronPool& pool, uint64_t step) const;

  struct Kept {
    StepBlock block;
    uint64_t used = 0;  // when last
  };

  const TraceReader& source_;
  std::vector<StepInfo> source_infos_, infos_;
  std::vector<std::vector<uint64_t>> task_steps_;  // the source's, by task
  std::vector<TaskRecord> tasks_;
  std::vector<uint64_t> offsets_ = {0};  // of each step in the two lists
  std::vector<uint64_t> sources_;        // steps of the source
  std::vector<uint32_t> step_tasks_;     // their tasks
  std::vector<uint64_t> source_active_;  // active neurons of each step of the source
  std::vector<uint64_t> no_steps_;
  uint32_t next_task_ = 0, next_pass_ = 0;
  size_t kept_max_;
  mutable std::mutex mutex_;
  mutable std::vector<Kept> kept_;
  mutable uint64_t reads_ = 0;
};

}  // namespace thermocline
