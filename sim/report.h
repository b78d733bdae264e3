// Report: results as one self-contained HTML file that a busy engineer reads in a minute.
//
// Order: the answer; what it cannot say; a table of policies and budgets and two plots for each
// model; what was measured, modelled and synthetic; how it was made.
// Goals: made from the rows alone; no script, no request; every string from data escaped; the same
//   rows give the same bytes; plots through gnuplot, and a clear note where it is missing.
// Non-goals: computing results (sim/replay.h), comparing tasks.
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
