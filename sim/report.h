// Report: results as one self-contained HTML file that a busy engineer reads in a minute.
//
// Order: the answer; what it cannot say; for each model plots over budgets, a table of policies at
//   the middle budget (at all of them folded away), layers and batches; what was measured, modelled
//   and synthetic; how it was made.
// Goals: made from the rows alone; no request, and no script but the one that sorts tables; every
//   string from data escaped; the same rows give the same bytes; plots through gnuplot, and a clear
//   note where it is missing.
// Non-goals: computing results (sim/replay.h) or intervals over tasks (sim/bootstrap.h).
// Thread-safety: belongs to the main thread (draws with a child process).
#pragma once

#include <string>
#include <vector>

#include "sim/results.h"

namespace thermocline {

struct Report {
  std::string html;
  std::vector<std::string> problems;  // what is missing from it, a sentence each
};
Report make_report(const Results& results);

}  // namespace thermocline
