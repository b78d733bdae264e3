// thermocline trace synth: writes a trace of drawn activity, and prints what was asked beside what
// was counted.
//
// Thread-safety: one call at a time.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

// Adds `synth` to the `trace` command.
void add_synth_trace_command(CLI::App& trace);

}  // namespace thermocline
