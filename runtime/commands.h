// The subcommands that this folder owns: run, calibrate, and model synth, which runs what it makes:
// the model command (models/commands.h) is added before.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_runtime_commands(CLI::App& app);

}  // namespace thermocline
