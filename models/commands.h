// The subcommands that this folder owns: model info | convert | tokenize.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_model_commands(CLI::App& app);

}  // namespace thermocline
