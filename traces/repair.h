// Repair: what is good of a damaged or unfinished trace, as a valid trace of its own.
//
// Kept are the tasks that every rank recorded to their end and whose every step reads as it was
//   written; the rest is named. The damaged files stay as they are.
// Non-goals: neurons of a lost shard, which nothing can bring back (Error).
// Thread-safety: one call at a time.
#pragma once

#include <string>
#include <vector>

#include "traces/trace.h"

namespace thermocline {

struct RepairResult {
  uint64_t step_count = 0, task_count = 0;  // of the new trace
  std::vector<std::string> lost;            // a line for each thing that is not in it
};

// progress: in steps, of reading twice. Errors: a shard is lost; no task is whole.
RepairResult repair_trace(const std::string& path, const std::string& out,
                          const CheckProgress& progress);

}  // namespace thermocline
