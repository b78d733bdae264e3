// The subcommand `model convert`.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_convert_command(CLI::App& model);

}  // namespace thermocline
