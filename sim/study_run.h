// Running a study: each stage as a child process, what is done skipped, all results merged.
//
// The folder: study.toml (a copy), LABEL/{profile,test}.h5 with their shards, LABEL/*.json,
// LABEL/*.log, LABEL/*.done, results.json, results.csv, report.html.
// Goals: a stage is done when its marker names the very command, the same input files and an
//   output that is there; one that ran again makes the model's later stages run again. A failure
//   ends with the tail of its log; an interruption says how to go on.
// Non-goals: stages in parallel; cleaning up.
// Thread-safety: belongs to the main thread.
#pragma once

#include <cstdint>
#include <string>

#include "models/embedded.h"
#include "sim/study.h"

namespace thermocline {

struct StudyOptions {
  std::string path = std::string(kDemoStudy);  // STUDY.toml
  std::string out;                             // empty: results/NAME
  bool resume = false;                         // go on in a folder that holds results
  bool dry_run = false;                        // print the commands, write nothing
  std::string program;                         // empty: the running executable
  StudyExtras extras = {};                     // a checkpoint and prompts of the user's
};

// Prints as it goes. Errors: a bad study, a failed stage, live counters that differ from the
// replay's, an interruption.
void run_study(const StudyOptions& options);

}  // namespace thermocline
