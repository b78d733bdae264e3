// thermocline trace info: what a trace is, from what, how big, how active, where its time went.
//
// Goals: everything that the header says, beside counts that are read in a moment.
// Non-goals: reading the bits (trace check, trace stat).
// Thread-safety: called once, before the command line is parsed.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

// Adds `info` to the `trace` command.
void add_trace_info_command(CLI::App& trace);

}  // namespace thermocline
