// Executions: what ran with its hot set in the faster tier, each beside what the replay predicted.
//
// A row of kind "execution" is one run of one policy at one budget in one layout of tiers: what it
// took (measured), what was counted, what a replay on the same machine said of it (modelled), and
// the ratio of the two. With three tiers keys that begin with `host_` (`predicted_host_`) are of
// the hot set in host memory, the others of the device's.
// Goals: rows of several commands joined by policy, parameters and budget; counters compared as
//   integers. Non-goals: running anything (sim/study_plan.h), printing.
// Thread-safety: pure functions.
#pragma once

#include <string>

#include "sim/results.h"

namespace thermocline {

// Of `rows` (merge_rows), those recorded by stages "execute ..." joined with those of "predict
// ...". Errors: an execution without a run, a policy or a tier row, or without a prediction.
Json execution_rows(const Json& rows);

// Whether counters and traces of all executions equal the replay's.
Agreement executions_agree(const ModelResults& model);

// The policy; with its parameters where another row has it with others.
std::string execution_name(const std::vector<ExecutionRow>& rows, const ExecutionRow& row);

// A line each, with three tiers one more for the host, for the terminal; empty where nothing was
// executed in tiers.
std::string executions_table(const Results& results);

}  // namespace thermocline
