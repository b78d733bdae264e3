// The answer: what the rows of one model say about dynamic against fixed, in sentences.
//
// Goals: every sentence is computed from the rows, says which side wins, by how much and where;
//   what the data cannot support is said beside it.
//   Where tasks were compared, a difference counts if its interval leaves out zero.
// Non-goals: HTML; computing statistics over tasks (sim/bootstrap.h).
// Thread-safety: plain data and pure functions.
#pragma once

#include <string>
#include <vector>

#include "sim/curves.h"
#include "sim/results.h"

namespace thermocline {

inline constexpr double kTieRatio = 0.0005;  // hit ratios nearer than this are called equal

struct Answer {
  std::string headline;              // one or two sentences
  std::string dynamic;               // the policy that it is about; empty where there is none
  std::vector<std::string> details;  // by budget, and who hits most; where tasks were compared
  std::string memory;                // memory for the same hit ratio
  std::string following;             // what following tasks can gain; empty where not counted
  std::vector<std::string> caveats;  // provenance, and what cannot be concluded
};
Answer answer_of(const ModelResults& model);

// "0.123" as "12.3 %"; and a difference of two as "+1.2 points".
std::string percent(double ratio, int digits = 1);
std::string points(double difference);

}  // namespace thermocline
