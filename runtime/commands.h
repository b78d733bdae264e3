// The subcommands that this folder owns: run, calibrate.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_runtime_commands(CLI::App& app);

}  // namespace thermocline
