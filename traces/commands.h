// The subcommands that this folder owns: trace info | check | stat.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_trace_commands(CLI::App& app);

}  // namespace thermocline
