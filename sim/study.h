// Study: one TOML file that says what to record, replay and compare.
//
// Goals: parse(bytes) apart from open(path); every key is in one table (study_keys) from which the
//   parser, the help and the documentation test read; an unknown key gets the nearest valid name;
//   a wrong type, unit or range is an input Error with file:line. What can be checked before
//   anything runs (policies, budgets, prompts, checkpoint) is checked by open_study.
// Non-goals: running it (sim/study_run.h), the commands it stands for (sim/study_plan.h).
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/node.h"

namespace thermocline {

struct StudyPrompts {
  std::string path;                       // empty: the embedded tasks
  std::string profile_split = "train";    // what policies may learn from
  std::string test_split = "test";        // what they are judged on
  std::string tune_split = "validation";  // what their parameters are searched on
  int64_t shots = 0;
  int64_t profile_limit = 0;  // first N tasks; 0 = all
  int64_t test_limit = 0;
  int64_t tune_limit = 0;
};

struct StudyModel {
  std::string label;  // names its folder and its section in the report
  std::string model;  // as --model takes it
  std::string tokenizer;
  int64_t profile_limit = -1;  // -1: as in [prompts]
  int64_t test_limit = -1;
  int64_t tune_limit = -1;
  int64_t drawn_steps = 0;          // > 0: the test trace is drawn, not executed
  int64_t drawn_profile_steps = 0;  // 0: a fifth of them
  int64_t drawn_tune_steps = 0;     // 0: a fifth of them

  bool drawn() const { return drawn_steps > 0; }
};

// What runs once more for each policy and budget, with the hot set really in the fast tier.
struct StudyExecute {
  std::vector<std::string> tiers;  // "host,disk"; none: nothing is executed so
  std::vector<std::string> policies = {"fixed-topk", "ewma", "oracle-static"};
  std::string budgets = "10%..40%/10%";
  std::string host_budgets;  // of host memory, with all three tiers: one, or one for each budget
  std::string backend;       // as --backend takes it; empty: the default of `run`
  std::string cluster;       // file of the cluster that predicts it; empty: this machine, measured
};

struct Study {
  std::string name;
  int64_t ranks = 1;
  int64_t threads = 1;
  std::string layout;    // empty: the default layout for that many ranks
  std::string launcher;  // what goes before `thermocline run`; {ranks} is replaced
  std::vector<std::string> policies = {"fixed", "ewma", "oracle-static"};
  std::string budgets = "10%..50%/10%";
  std::string live_budgets;  // of policies that run live; empty: all
  std::string migration = "32MiB";
  std::string cluster;  // file of the cluster that times are modelled on; empty: replay's default
  std::string batch = "1";  // requests that decode together in replays
  int64_t warmup = 0;       // steps that replays run but do not count
  bool tune = false;        // search parameters on the tune split first
  int64_t seed = 1;
  bool teacher_forced = true;
  int64_t max_new_tokens = 0;  // 0: the default of `run`
  StudyPrompts prompts;
  StudyExecute execute;
  std::vector<StudyModel> models;
  std::map<std::string, std::string> places;  // key -> "file:line", for errors
};

inline constexpr std::string_view kDefaultLauncher = "mpirun -n {ranks}";

// One key of a study file, as the documentation lists it.
struct StudyKey {
  std::string table;  // "", "prompts", "execute" or "model"
  std::string name;
  std::string expected;  // "an integer from 1 to 4096"
  std::string fallback;  // the default, or "required"
  std::string meaning;
};
std::vector<StudyKey> study_keys();
// The table of keys as Markdown, the one that sim/studies/README.md shows.
std::string study_keys_markdown();

// Syntax, keys, types and ranges. `origin` names the file in errors.
Study parse_study(std::string_view bytes, const std::string& origin);
// Policies, budgets and prompts too. No model is made, nothing runs.
// `path`: a file, or kDemoStudy (models/embedded.h).
Study open_study(const std::string& path);
// What a command line adds to a study file.
struct StudyExtras {
  std::string model, tokenizer;  // a checkpoint of the user's, compared first; empty: none
  std::string prompts;           // instead of prompts.path; empty: as the file says
};
inline constexpr std::string_view kOwnModelLabel = "checkpoint";
Study open_study(const std::string& path, const StudyExtras& extras);

// Its bytes.
std::string study_text(const std::string& path);

// The policies that `run` can evaluate live; those that need the future are for replay only.
std::vector<std::string> live_policies(const Study& study);

// What executions of a model come to: each budget in bytes, with that of the host beside it where
// there are three tiers; what a tier reads of one neuron.
struct ExecuteSizes {
  std::vector<uint64_t> budgets;       // ascending
  std::vector<uint64_t> host_budgets;  // likewise, one for each; empty: two tiers
  uint64_t read_bytes = 0;             // an up and a down row
};
ExecuteSizes execute_sizes(const Study& study, const StudyModel& model);

}  // namespace thermocline
