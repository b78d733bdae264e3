// Whether a dynamic hot threshold has anything to follow in a trace, in sentences.
//
// Goals: every sentence is computed from the row of kind "activity" (`thermocline trace stat`);
//   what its weights cannot tell is said in the same breath.
// Non-goals: which policy wins (sim/answer.h); HTML.
// Thread-safety: pure functions.
#pragma once

#include <string>

#include "sim/results.h"

namespace thermocline {

// All are empty where the row is missing or has not what they need.

// How much of a task's hot fifth the next task has, against what sampling leaves within one task.
std::string overlap_sentence(const ModelResults& model);
// What a set chosen anew for each task could hit at most, against a fixed one.
std::string gain_sentence(const ModelResults& model);
// The same in short, for the answer.
std::string gain_in_short(const ModelResults& model);

}  // namespace thermocline
