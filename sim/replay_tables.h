// What `thermocline replay` prints.
//
// Thread-safety: pure functions.
#pragma once

#include <string>

#include "sim/replay_job.h"

namespace thermocline {

// The policies and their parameters, as --list prints them.
std::string policy_table();
// What tuning found; empty where nothing was tuned.
std::string tuned_table(const ReplayJob& job);
std::string replay_table(const ReplayJob& job);
// What the rows say about dynamic against fixed, as the report says it; empty where nothing is
// compared.
std::string answer_lines(const nlohmann::ordered_json& rows);
// Where times come from, and how the model stands beside the recording machine.
std::string replay_notes(const ReplayJob& job);

}  // namespace thermocline
