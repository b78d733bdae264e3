// The table of steps beside an array of bits: which token, position, task and phase each one is.
//
// step,task,task_id,position,phase,token,pass
// 0,0,11,0,prefill,1,0
// Tasks count from 0 in the order of their first steps. `pass` may be left out: each step its own.
// Goals: what numpy cannot keep beside the bits survives the way out and back.
// Non-goals: times. Thread-safety: pure functions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "traces/selection.h"
#include "traces/trace.h"

namespace thermocline {

struct StepTable {
  std::vector<StepInfo> steps;
  std::vector<TaskRecord> tasks;  // `generated` is empty: the table does not hold the last token
};

std::string step_table_path(const std::string& npy);  // "x.npy" -> "x.steps.csv"

void write_step_table(const Selection& selection, const std::string& path);

// Error{input}: anything that write_step_table would not write, with the line.
StepTable parse_step_table(std::span<const std::byte> bytes, const std::string& path);

}  // namespace thermocline
