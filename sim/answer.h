// The answer: what the rows of one model say about dynamic against fixed, in sentences.
//
// Goals: every sentence is computed from the rows, says which side wins, by how much and where;
//   what the data cannot support is said beside it.
// Non-goals: HTML; statistics over tasks.
// Thread-safety: plain data and pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sim/results.h"

namespace thermocline {

inline constexpr double kTieRatio = 0.0005;  // hit ratios nearer than this are called equal

// One policy over all budgets, ascending.
struct Curve {
  std::string name;  // the policy's; with the parameters in which another of that policy differs
  bool oracle = false;
  int style = 0;  // counts policies and oracles apart
  std::vector<const PolicyRow*> rows;
};

// Replayed rows as curves, in their order. They point into `model`.
std::vector<Curve> curves_of(const ModelResults& model);
// The row at a budget, or null.
const PolicyRow* row_at(const Curve& curve, uint64_t budget_bytes);
// All budgets, ascending.
std::vector<uint64_t> budgets_of(const std::vector<Curve>& curves);
// The least budget, in percent of the FFN, at which the curve reaches a hit ratio, interpolated
// between budgets; nothing where it does not within them.
std::optional<double> percent_for_hit_ratio(const Curve& curve, double hit_ratio);

struct Answer {
  std::string headline;              // one or two sentences
  std::string memory;                // memory for the same hit ratio
  std::string following;             // what following tasks can gain; empty where not counted
  std::vector<std::string> caveats;  // provenance, and what cannot be concluded
};
Answer answer_of(const ModelResults& model);

// "0.123" as "12.3 %"; and a difference of two as "+1.2 points".
std::string percent(double ratio, int digits = 1);
std::string points(double difference);

}  // namespace thermocline
