// Selection: the layers and steps of a trace that a command is asked for, read block by block.
//
// "--layers 0..3 --steps 0..999 --tasks 11..20,35": layers (one range) and steps count from 0,
//   tasks are named as the prompts file names them. Each narrows the others.
// Goals: what is selected looks like a smaller trace: layers and tasks count from 0 again; bounded
//   memory (one stored block of steps at a time, and the column of steps).
// Thread-safety: const after construction; it refers to the reader.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "traces/trace.h"

namespace thermocline {

struct SelectionText {
  std::string layers, steps, tasks;  // empty: all
};

class Selection {
 public:
  // Errors{usage}: no range, or nothing is selected.
  explicit Selection(const TraceReader& trace, const SelectionText& text = {});

  const TraceReader& trace() const { return *trace_; }
  const NeuronPool& pool() const { return pool_; }  // the layers, all neurons of each
  uint64_t step_count() const { return steps_.size(); }
  const std::vector<uint64_t>& steps() const { return steps_; }  // numbers in the trace, ascending
  const std::vector<StepInfo>& infos() const { return infos_; }  // `task` counts from 0
  const std::vector<int32_t>& task_ids() const { return tasks_; }  // -1: the task did not end

  // Blocks: runs of the selected steps that lie in one stored block.
  size_t block_count() const { return block_ends_.size(); }
  uint64_t block_begin(size_t block) const { return block == 0 ? 0 : block_ends_[block - 1]; }
  uint64_t block_end(size_t block) const { return block_ends_[block]; }
  // The block's selected steps, one after the other: step_begin counts selected steps.
  void read(size_t block, StepBlock& bits) const;
  // The same of its popcounts: (steps of the block, layers).
  std::vector<uint32_t> popcounts(size_t block) const;

 private:
  void select_layers(const std::string& text);
  void select_steps(const SelectionText& text);
  void find_blocks();

  const TraceReader* trace_;
  NeuronPool pool_;
  std::vector<uint64_t> steps_;
  std::vector<StepInfo> infos_;
  std::vector<int32_t> tasks_;
  std::vector<uint64_t> block_ends_;  // of the selected steps
};

}  // namespace thermocline
