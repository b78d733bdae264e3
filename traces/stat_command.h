// thermocline trace stat: what a trace's activity offers a hot threshold to follow, beside what was
// published.
//
// Thread-safety: one call at a time.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

// Adds `stat` to the `trace` command.
void add_stat_command(CLI::App& trace);

}  // namespace thermocline
