// The subcommand `model info`.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_info_command(CLI::App& model);

}  // namespace thermocline
