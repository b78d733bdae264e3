// Copying traces: all of one, or chosen tasks, steps and layers; several after each other.
//
// What `trace cut`, `trace merge` and `trace check --repair` share: steps go through a reader and a
//   writer for each rank, block by block, so that what is written has been checked.
// Goals: memory for a few blocks; tasks numbered anew from 0, their records adjusted to the steps
//   that are kept; a copy of everything has the hash of the original.
// Thread-safety: a copy belongs to one thread (its writers have threads of their own).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "traces/trace.h"

namespace thermocline {

// Steps [begin, end).
struct StepRange {
  uint64_t begin, end;
  bool operator==(const StepRange&) const = default;
};

// Layers [begin, end).
struct LayerRange {
  uint32_t begin, end;
};

// Ascending steps as ranges.
std::vector<StepRange> ranges_of(const std::vector<uint64_t>& steps);

// The steps of the tasks for which `keep` (by index) is true, as ascending ranges.
std::vector<StepRange> steps_of_tasks(const TraceReader& trace, const std::vector<bool>& keep);

// The header of a trace of some of these layers: pools that keep none of them are left out.
// source_ranks: for each pool that is left, the rank that it comes from.
TraceHeader cut_header(const TraceHeader& header, LayerRange layers,
                       std::vector<uint32_t>& source_ranks);

// Says in config_json what was done to a trace, beside the configuration of the run.
void note_in(TraceHeader& header, const char* key, const nlohmann::ordered_json& note);

using CopyProgress = std::function<void(uint64_t steps_done)>;

// A new trace that grows by parts of others.
class TraceCopy {
 public:
  // `path` is the new master's. Errors: it cannot be written.
  TraceCopy(const std::string& path, const TraceHeader& header);
  ~TraceCopy();

  // Appends these steps of `trace` and the tasks that have steps among them. The trace's layers
  // [layer_begin, +header.layer_count) are those of the new trace. source_ranks: whose times each
  // new rank takes.
  // Errors: what is read is damaged.
  void add(const TraceReader& trace, const std::vector<StepRange>& ranges, uint32_t layer_begin,
           const std::vector<uint32_t>& source_ranks, const CopyProgress& progress);
  uint64_t step_count() const { return step_count_; }
  uint32_t task_count() const { return task_count_; }
  // Finishes the shards and joins them. Without it, nothing is left but partial files, which the
  // destructor removes.
  void finish();

 private:
  struct Source;
  void copy_block(Source& source, StepRange range);
  void append_step(Source& source, uint64_t step, uint32_t rank);
  void end_tasks(Source& source);

  std::string path_;
  TraceHeader header_;
  std::vector<std::unique_ptr<TraceWriter>> writers_;  // by rank
  uint64_t step_count_ = 0;
  uint32_t task_count_ = 0;
  uint32_t pass_count_ = 0;
  bool finished_ = false;
};

}  // namespace thermocline
