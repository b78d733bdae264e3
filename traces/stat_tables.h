// The tables of `trace stat`, as a terminal shows them.
//
// Goals: shares in percent, to a tenth; "-" where the trace has no such pair, window or firing.
// Non-goals: rows for other programs (traces/stat_command.cc); plots (traces/stat_plots.h).
// Thread-safety: pure functions.
#pragma once

#include <string>

#include "traces/statistics.h"

namespace thermocline {

// The model as a whole beside what was published, then by distance, window, task distance, and
// layer. Of statistics that were counted with figure_options().
std::string stat_tables(const TraceStatistics& statistics);

}  // namespace thermocline
