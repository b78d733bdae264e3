// What the device tier of a run did, as facts for --json and as a table for people.
//
// Times are of the FFN, ms per step of the run, prefill among them: the hot parts on the device,
// the cold parts on the host (what it waits for a disk among them), layer by layer the larger of
// the two, the merge, and both at once. That the parts ran side by side shows where
// both_over_larger, both / (larger + merge), is near 1.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

#include "runtime/run_report.h"

namespace thermocline {

// Of a rank's row of kind "tier".
nlohmann::ordered_json side_by_side_facts(const RunPlan& plan, const RunOutcome& outcome,
                                          uint32_t rank);
// Nothing where the run has no device tier.
void print_side_by_side(const RunPlan& plan, const RunOutcome& outcome);

}  // namespace thermocline
