// The plots of `trace stat`, one SVG file each.
//
// Goals: every point is in the JSON rows or follows from them; without gnuplot there is a sentence,
//   and nothing else is lost.
// Non-goals: tables (traces/stat_tables.h).
// Thread-safety: runs child processes and belongs to the main thread.
#pragma once

#include <string>
#include <vector>

#include "models/plot.h"
#include "traces/statistics.h"

namespace thermocline {

struct StatPlot {
  std::string name;  // of the file, without .svg
  Plot plot;
};

// Those that the trace has points for.
std::vector<StatPlot> stat_plots(const TraceStatistics& statistics);

struct WrittenPlots {
  std::vector<std::string> paths;
  std::string problem;  // why the rest could not be drawn; else empty
};

// Writes FOLDER/NAME.svg, and FOLDER where it is not there. Errors: FOLDER cannot be written.
WrittenPlots write_stat_plots(const TraceStatistics& statistics, const std::string& folder);

}  // namespace thermocline
