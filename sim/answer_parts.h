// Parts of the answer's sentences, shared by its two forms: with intervals over tasks, and without.
//
// Thread-safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sim/answer.h"

namespace thermocline {

// "1.2 to 3.4 %", or "1.2 %" where both are shown alike.
std::string range_of(double low, double high, const std::string& unit, int digits);
// "4.2 %", and "58 %": a tenth of a percent says nothing about tens of them.
std::string shares(double low, double high);
// "10, 20 and 40 %"; neighbours of three or more become "10 to 40 %". `at` says which.
std::string budgets_text(const std::vector<double>& percents, const std::vector<bool>& at);

// The answer from the rows of kind "comparison"; nothing where they compare no dynamic policy with
// the baseline at the middle budget. Without memory, following and the caveats of provenance.
std::optional<Answer> answer_over_tasks(const ModelResults& model);

}  // namespace thermocline
