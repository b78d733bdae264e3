// Study plan: the commands that a study stands for, in order, as a user would type them.
//
// For each model: profile (run on the profile split, recorded), tune (the tune split, where the
// study tunes), test (run on the test split, recorded, with the policies live in the same pass; of
// a drawn model, `trace synth` instead of `run`, with another text each), replay (of the test
// trace, same policies and the oracles), stat (what the test trace offers a dynamic threshold to
// follow). The study's own steps (merge, report) follow in sim/study_run.h. Goals: nothing here
// runs, reads or writes; the same study gives the same plan. Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sim/study.h"

namespace thermocline {

struct PlanOptions {
  std::string program;         // path of thermocline
  std::string out;             // folder of results
  bool launcher_found = true;  // false: ranks become threads of one process
};

struct Stage {
  std::string label;                 // the model's
  std::string name;                  // "profile" | "tune" | "test" | "replay" | "calibrate" |
                                     // "predict TIERS" | "stat" | "execute TIERS POLICY BYTES",
                                     // and the host's bytes behind it with three tiers
  std::vector<std::string> command;  // what to execute, launcher included
  std::vector<std::string> inputs;   // files of the user's and of earlier stages that it reads
  std::string output;                // written last, so that it is there when the stage is done
  std::string log;
  std::string done;  // marker of a finished stage
};

// Of a model: where its disk tier lies. It has to be there before its stages run.
inline constexpr std::string_view kTierFolder = "tier";

std::vector<Stage> plan_stages(const Study& study, const PlanOptions& options);

// The program that starts the ranks; empty where they are threads of one process.
std::string launcher_program(const Study& study);
// Words of a launcher, {ranks} replaced; 'single' and "double" quotes group.
std::vector<std::string> split_command(std::string_view text, int64_t ranks);
// One line that a shell reads back as these words.
std::string shell_line(const std::vector<std::string>& words);
// As the report shows it: `thermocline` instead of the program's path.
std::string display_line(const Stage& stage, const std::string& program);

}  // namespace thermocline
