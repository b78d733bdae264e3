// What a trace says of the run that records it: its header, with the configuration as JSON.
//
// Goals: everything that a result depends on, and what replay's cost model wants to know of the
//   machine. Non-goals: steps (recorder.h), result rows (run_report.h).
// Thread-safety: a pure function.
#pragma once

#include "runtime/activation_rule.h"
#include "runtime/run_plan.h"
#include "runtime/run_report.h"

namespace thermocline {

// `outcome` as far as it is known before the first step: threads, backend, facts of the ranks.
TraceHeader run_header(const RunOptions& options, const RunPlan& plan, const RunOutcome& outcome,
                       const ActivationRule& rule);

}  // namespace thermocline
