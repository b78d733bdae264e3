#include "sim/study_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/checkpoint.h"
#include "models/embedded.h"
#include "models/error.h"
#include "models/model_spec.h"
#include "models/text.h"

namespace thermocline {
namespace {

using Words = std::vector<std::string>;

std::string join(const Words& words, char separator) {
  std::string text;
  for (const std::string& word : words)
    text += (text.empty() ? "" : std::string(1, separator)) + word;
  return text;
}

void append(Words& words, std::initializer_list<std::string> more) {
  words.insert(words.end(), more);
}

// --name VALUE, left out where the study leaves the default.
void option(Words& words, const std::string& name, const std::string& value) {
  if (!value.empty()) append(words, {name, value});
}
void option(Words& words, const std::string& name, int64_t value) {
  if (value > 0) append(words, {name, std::to_string(value)});
}

int64_t limit_of(int64_t of_model, int64_t of_study) { return of_model >= 0 ? of_model : of_study; }

struct Planner {
  const Study& study;
  const StudyModel& model;
  const PlanOptions& options;
  std::string folder;

  std::string file(const std::string& name) const { return folder + "/" + name; }

  Stage stage(const std::string& name, const std::string& output) const {
    return {model.label, name, {}, {}, file(output), file(name + ".log"), file(name + ".done")};
  }

  Words launch() const {
    Words words;
    if (options.launcher_found && !launcher_program(study).empty()) {
      words = split_command(study.launcher, study.ranks);
      append(words, {options.program, "run"});
    } else {
      append(words, {options.program, "run", "--local-ranks", std::to_string(study.ranks)});
    }
    return words;
  }

  // What `profile` and `test` share.
  Words run_command(const std::string& split, int64_t limit) const {
    Words words = launch();
    append(words, {"--model", model.model});
    option(words, "--tokenizer", model.tokenizer);
    option(words, "--prompts", study.prompts.path);
    append(words, {"--split", split, "--shots", std::to_string(study.prompts.shots)});
    option(words, "--limit", limit);
    if (study.teacher_forced) words.push_back("--teacher-forced");
    option(words, "--max-new-tokens", study.max_new_tokens);
    option(words, "--layout", study.layout);
    append(words,
           {"--threads", std::to_string(study.threads), "--seed", std::to_string(study.seed)});
    return words;
  }

  Words user_files() const {
    Words files;
    const ModelSpec spec = parse_model_spec(model.model);
    if (!spec.synthetic() && spec.path != kDemoModel) {
      const auto checkpoint = open_checkpoint(spec.path);
      for (const CheckpointFile& file : checkpoint->files()) files.push_back(file.path);
    }
    if (!model.tokenizer.empty() && model.tokenizer != "byte") files.push_back(model.tokenizer);
    if (!study.prompts.path.empty()) files.push_back(study.prompts.path);
    return files;
  }

  // A recorded split: executed, or drawn as a text of its own.
  Stage recorded(const std::string& name, const std::string& split, int64_t limit,
                 int64_t drawn_steps, int text_seed, const std::string& output) const {
    Stage stage = this->stage(name, output);
    if (model.drawn()) {
      append(stage.command, {options.program, "trace", "synth", "--out", file(name + ".h5")});
      append(stage.command, {"--preset", model.model.substr(std::string("preset:").size())});
      append(stage.command, {"--steps", std::to_string(drawn_steps), "--text-seed",
                             std::to_string(text_seed), "--json", stage.output});
      return stage;
    }
    stage.command = run_command(split, limit);
    append(stage.command, {"--record", file(name + ".h5"), "--resume", "--overwrite"});
    stage.inputs = user_files();
    return stage;
  }

  int64_t drawn(int64_t given) const {
    return given > 0 ? given : std::max<int64_t>(1, model.drawn_steps / 5);
  }

  Stage profile() const {
    const StudyPrompts& prompts = study.prompts;
    Stage stage = recorded("profile", prompts.profile_split,
                           limit_of(model.profile_limit, prompts.profile_limit),
                           drawn(model.drawn_profile_steps), 1, "profile.json");
    if (!model.drawn()) append(stage.command, {"--json", stage.output});
    return stage;
  }

  Stage tune() const {
    const StudyPrompts& prompts = study.prompts;
    Stage stage =
        recorded("tune", prompts.tune_split, limit_of(model.tune_limit, prompts.tune_limit),
                 drawn(model.drawn_tune_steps), 2, "tune.json");
    if (!model.drawn()) append(stage.command, {"--json", stage.output});
    return stage;
  }

  Stage test() const {
    const StudyPrompts& prompts = study.prompts;
    Stage stage =
        recorded("test", prompts.test_split, limit_of(model.test_limit, prompts.test_limit),
                 model.drawn_steps, 3, "run.json");
    if (model.drawn()) return stage;
    append(stage.command, {"--profile", file("profile.h5")});
    append(stage.command, {"--policy", join(live_policies(study), ',')});
    append(stage.command,
           {"--budget", study.live_budgets.empty() ? study.budgets : study.live_budgets,
            "--migration", study.migration});
    option(stage.command, "--cluster", study.cluster);
    append(stage.command, {"--json", stage.output});
    stage.inputs.push_back(file("profile.h5"));
    if (!study.cluster.empty()) stage.inputs.push_back(study.cluster);
    return stage;
  }

  Stage replay() const {
    Stage stage = this->stage("replay", "replay.json");
    append(stage.command, {options.program, "replay", file("test.h5")});
    append(stage.command, {"--profile", file("profile.h5")});
    append(stage.command, {"--policy", join(study.policies, ',')});
    append(stage.command, {"--budget", study.budgets, "--migration", study.migration});
    option(stage.command, "--cluster", study.cluster);
    if (study.batch != "1") append(stage.command, {"--batch", study.batch});
    option(stage.command, "--warmup", study.warmup);
    if (study.tune) append(stage.command, {"--tune", file("tune.h5")});
    append(stage.command, {"--resume", "--json", stage.output});
    stage.inputs = {file("test.h5"), file("profile.h5")};
    if (study.tune) stage.inputs.push_back(file("tune.h5"));
    if (!study.cluster.empty()) stage.inputs.push_back(study.cluster);
    return stage;
  }

  // Last, so that its running again makes no other stage run again.
  Stage stat() const {
    Stage stage = this->stage("stat", "stat.json");
    append(stage.command, {options.program, "trace", "stat", file("test.h5")});
    append(stage.command, {"--json", stage.output});
    stage.inputs = {file("test.h5")};
    return stage;
  }
};

bool plain_word(const std::string& word) {
  return !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("-_./=:,+%@").find(c) != std::string::npos;
  });
}

}  // namespace

std::vector<Stage> plan_stages(const Study& study, const PlanOptions& options) {
  std::vector<Stage> stages;
  for (const StudyModel& model : study.models) {
    const Planner planner{study, model, options, options.out + "/" + model.label};
    stages.push_back(planner.profile());
    if (study.tune) stages.push_back(planner.tune());
    stages.push_back(planner.test());
    stages.push_back(planner.replay());
    stages.push_back(planner.stat());
  }
  return stages;
}

std::string launcher_program(const Study& study) {
  if (study.ranks == 1 || study.launcher == "none") return "";
  return split_command(study.launcher, study.ranks).front();
}

std::vector<std::string> split_command(std::string_view text, int64_t ranks) {
  Words words;
  bool inside = false;
  char quote = 0;
  for (const char c : text) {
    if (quote != 0 && c == quote) {
      quote = 0;
    } else if (quote == 0 && (c == '\'' || c == '"')) {
      quote = c;
      if (!inside) words.emplace_back();
      inside = true;
    } else if (quote == 0 && c == ' ') {
      inside = false;
    } else {
      if (!inside) words.emplace_back();
      inside = true;
      words.back() += c;
    }
  }
  if (quote != 0) throw bad_usage("launcher: expected a closing quote, found none");
  if (words.empty()) throw bad_usage("launcher: expected a command or \"none\", found nothing");
  for (std::string& word : words) word = replaced(word, "{ranks}", std::to_string(ranks));
  return words;
}

std::string shell_line(const Words& words) {
  std::string line;
  for (std::string word : words) {
    if (!plain_word(word)) word = "'" + replaced(word, "'", "'\\''") + "'";
    line += (line.empty() ? "" : " ") + word;
  }
  return line;
}

std::string display_line(const Stage& stage, const std::string& program) {
  Words words = stage.command;
  std::replace(words.begin(), words.end(), program, std::string("thermocline"));
  return shell_line(words);
}

}  // namespace thermocline
