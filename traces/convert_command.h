// thermocline trace convert: traces to other tools' files, and such files to traces.
//
// Goals: the direction follows from which side is a trace, the format from how the other's path
//   ends; what is lost on the way is said.
// Non-goals: the formats (traces/formats). Thread-safety: the main thread's.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_trace_convert_command(CLI::App& trace);

}  // namespace thermocline
