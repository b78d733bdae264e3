// The subcommands that this folder owns, each in its own file: replay, study, report.
#pragma once

#include "models/work_group.h"

namespace CLI {
class App;
}

namespace thermocline {

// `in_group`: how processes that were started together share a replay.
void add_replay_command(CLI::App& app, const GroupRunner& in_group = run_alone);
void add_study_command(CLI::App& app);
void add_report_command(CLI::App& app);

}  // namespace thermocline
