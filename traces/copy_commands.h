// thermocline trace cut and merge: some of a trace, several traces, as a trace of their own.
//
// Goals: what is written is whole: tasks counted anew, a header that says what it is, a hash.
// Thread-safety: called once, before the command line is parsed.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

// Adds `cut` to the `trace` command: tasks, steps, layers; another activation threshold.
void add_cut_command(CLI::App& trace);
// Adds `merge`: traces of one model, one after the other.
void add_merge_command(CLI::App& trace);

}  // namespace thermocline
