// ReplayAccount: what one policy at one budget comes to, by task and in time.
//
// Goals: bounded memory: some numbers for each task, whatever the number of steps.
// Non-goals: integers of hits and moves (HotSetStats has them).
// Thread-safety: one row, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/bootstrap.h"
#include "sim/cost.h"
#include "sim/log_histogram.h"
#include "traces/trace.h"

namespace thermocline {

struct ReplayAccount {
  std::vector<TaskSums> tasks;  // (tasks of the trace)
  std::vector<double> ttft_ms;  // (tasks) passes with its prompt, added up; 0: none was counted
  LogHistogram tpot_ms;         // of each decoded token: its pass
  double hidden_ms = 0;         // the same, migrations hidden, summed
  double decode_ms = 0;         // of passes that decode, each once
  uint64_t token_count = 0;     // decoded

  bool operator==(const ReplayAccount&) const = default;
};

// One step of a pass: its counters over all pools, and whose it is.
struct AccountStep {
  StepCounts counts;
  Phase phase;
  std::span<const uint32_t> tasks;  // each has an equal share in the step
};

// Adds a pass. Without times (a replay without a cost model), `timed` is false.
void add_pass(ReplayAccount& account, std::span<const AccountStep> steps, const PassTime& time,
              bool timed);

}  // namespace thermocline
