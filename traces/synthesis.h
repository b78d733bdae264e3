// Writes a trace whose activity was drawn, not executed.
//
// For studies of policies at the size of a 70B model, which no laptop executes: a step of 80 layers
//   takes a fraction of a millisecond. Times are zero: such a trace answers what a hot threshold
//   would hit, not how long it took.
// Goals: the statistics that were asked for, beside what was counted in the bits; the same bits for
//   any number of ranks; memory for some blocks of steps, whatever the length.
// Non-goals: the drawing itself (traces/activity_process.h, traces/synthetic_tasks.h).
// Thread-safety: one call at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/model_spec.h"
#include "models/neuron.h"
#include "traces/activity_process.h"

namespace thermocline {

struct SynthTraceOptions {
  std::string path;  // of the master
  uint64_t step_count = 20000;
  std::optional<uint32_t> task_count;
  uint32_t stages = 1, tensor_ranks = 4;  // of the layout that the shards are cut by
  ActivityProcessOptions process;

  std::string layout() const;  // "pp1,tp4"
};

// A line of the table: shares from 0 to 1.
struct SynthFigure {
  std::string name;
  std::optional<double> asked, counted;  // nothing: no formula; no such pair in the counted steps
};

struct SynthTraceResult {
  uint64_t step_count = 0, counted_steps = 0;  // steps counted for the figures: the first
  uint32_t task_count = 0;
  uint64_t raw_bytes = 0;  // of active bits
  double draw_seconds = 0, seconds = 0;
  std::string weight_hash, trace_hash;
  std::vector<SynthFigure> figures;
};

// Pools of pp * tp ranks: whole layers by stage, neurons by rank of a stage, evenly.
// Usage Error for more than there are.
std::vector<NeuronPool> synth_pools(const ModelShape& shape, uint32_t stages,
                                    uint32_t tensor_ranks);

// Errors: usage for options that do not fit; failed where interrupted() ends it, with a partial
// trace left that --allow-partial reads.
SynthTraceResult synthesise_trace(const ModelSpec& spec, const SynthTraceOptions& options);

}  // namespace thermocline
