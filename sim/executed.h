// The cost model beside the machine that recorded the trace: predicted against executed.
//
// Goals: a residual for every trace that holds measured times; a reason where it holds none.
// Non-goals: policies: for that comparison all neurons are in one tier.
// A run in three tiers names its policy and budgets instead: a replay of the same predicts it.
// Thread-safety: pure functions over a reader.
#pragma once

#include <optional>
#include <string>

#include "models/distribution.h"
#include "sim/cost.h"
#include "traces/trace.h"

namespace thermocline {

// The model against the machine that recorded the trace, over decode steps.
// executed: of a step, the longest account of a rank (compute + comm + wait): a rank waits for what
//   it does not compute or transfer, so every account spans the step.
// predicted: modelled reading on that machine (its read bandwidth per rank, exact gate), plus the
//   measured mean of what is not computing: executed less the sum over stages of the slowest
//   rank's measured compute. So the residual judges the reading alone; compute_ratio shows it bare.
struct ExecutedComparison {
  uint64_t step_count = 0;
  Distribution executed_ms, predicted_ms;
  double predicted_over_executed = 0;  // of the means
  double compute_ratio = 0;            // modelled reading over measured compute, of the means
  double measured_overhead_ms = 0;     // communication and waiting, mean
};

// Nothing where the trace has no measured bandwidth, no times or no decode step; `reason` says so.
std::optional<ExecutedComparison> compare_executed(const TraceReader& trace,
                                                   const RecordingConfig& config,
                                                   std::string& reason);

// What a run with its FFN on device, host and disk did, as its trace says.
struct ExecutedInTiers {
  std::string policy;  // resolved
  uint64_t device_bytes = 0, host_bytes = 0, migration_bytes = 0;
  Distribution step_ms;  // of decode steps: `executed` above
};

// Nothing where the trace is of another run or a part of one, holds no times or no decode step, or
// had several requests in a pass. Errors: an input Error naming `path` where its configuration is
// damaged.
std::optional<ExecutedInTiers> executed_in_tiers(const TraceReader& trace,
                                                 const RecordingConfig& config,
                                                 const std::string& path);

}  // namespace thermocline
