// The subcommands that this folder owns, each in its own file: replay, study, report.
#pragma once

namespace CLI {
class App;
}

namespace thermocline {

void add_replay_command(CLI::App& app);
void add_study_command(CLI::App& app);
void add_report_command(CLI::App& app);

}  // namespace thermocline
