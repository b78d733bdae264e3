#include "sim/study_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "models/checkpoint.h"
#include "models/embedded.h"
#include "models/error.h"
#include "models/model_spec.h"
#include "models/text.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

using Words = std::vector<std::string>;

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

// As part of a file's name.
std::string plain(std::string text) {
  for (char& c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.') c = '-';
  }
  return text;
}

struct Planner {
  const Study& study;
  const StudyModel& model;
  const PlanOptions& options;
  std::string folder;

  std::string file(const std::string& name) const { return folder + "/" + name; }

  Stage stage(const std::string& name, const std::string& output) const {
    return {model.label,
            name,
            {},
            {},
            file(output),
            file(plain(name) + ".log"),
            file(plain(name) + ".done")};
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
    append(stage.command, {"--policy", joined(live_policies(study), ',')});
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
    append(stage.command, {"--policy", joined(study.policies, ',')});
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

  std::string machine_file() const {
    return study.execute.cluster.empty() ? file("machine.toml") : study.execute.cluster;
  }

  // What this machine reads from memory and from the folder of the disk tier.
  Stage calibrate(uint64_t read_bytes) const {
    Stage stage = this->stage("calibrate", "calibrate.json");
    append(stage.command, {options.program, "calibrate", "--threads",
                           std::to_string(study.ranks * study.threads)});
    append(stage.command, {"--disk", file(std::string(kTierFolder)), "--read-bytes",
                           fmt::format("{}B", read_bytes), "--out", machine_file()});
    append(stage.command, {"--json", stage.output});
    return stage;
  }

  static std::string in_bytes(const std::vector<uint64_t>& budgets) {
    Words bytes;
    for (const uint64_t budget : budgets) bytes.push_back(fmt::format("{}B", budget));
    return joined(bytes, ',');
  }

  Stage predict(const std::string& tiers, const ExecuteSizes& sizes) const {
    Stage stage = this->stage("predict " + tiers, plain("predict " + tiers) + ".json");
    append(stage.command, {options.program, "replay", file("test.h5")});
    append(stage.command, {"--profile", file("profile.h5")});
    append(stage.command, {"--policy", joined(study.execute.policies, ',')});
    append(stage.command, {"--budget", in_bytes(sizes.budgets), "--migration", study.migration});
    append(stage.command, {"--cluster", machine_file()});
    if (tiers == kDeviceHostDisk) {
      append(stage.command, {"--tiers", tiers, "--host-budget", in_bytes(sizes.host_budgets)});
    } else {
      append(stage.command, {"--tier", tiers.substr(0, tiers.find(','))});
    }
    append(stage.command, {"--gate", "exact", "--json", stage.output});
    stage.inputs = {file("test.h5"), file("profile.h5"), machine_file()};
    return stage;
  }

  // One policy at the i-th budget, its hot set in the faster tier. Recording it shows that it is
  // the run that the replay is about.
  Stage execute(const std::string& tiers, const PolicySpec& policy, const ExecuteSizes& sizes,
                size_t i) const {
    const bool three = tiers == kDeviceHostDisk;
    const std::string below = three ? fmt::format(" {}", sizes.host_budgets[i]) : "";
    const std::string name =
        fmt::format("execute {} {} {}{}", tiers, policy.label(), sizes.budgets[i], below);
    Stage stage = this->stage(name, plain(name) + ".json");
    const int64_t limit = limit_of(model.test_limit, study.prompts.test_limit);
    stage.command = run_command(study.prompts.test_split, limit);
    append(stage.command, {"--profile", file("profile.h5"), "--policy", policy.label()});
    if (policy.entry->needs_future) append(stage.command, {"--future", file("test.h5")});
    append(stage.command, {"--budget", fmt::format("{}B", sizes.budgets[i])});
    if (three) append(stage.command, {"--host-budget", fmt::format("{}B", sizes.host_budgets[i])});
    append(stage.command, {"--migration", study.migration});
    if (tiers != kHostDisk) append(stage.command, {"--tiers", tiers});
    if (tiers != kDeviceHost) {
      append(stage.command, {"--disk-tier", file(std::string(kTierFolder))});
    }
    option(stage.command, "--backend", study.execute.backend);
    append(stage.command, {"--cluster", machine_file()});
    append(stage.command, {"--record", file("executed.h5"), "--overwrite"});
    append(stage.command, {"--json", stage.output});
    stage.inputs = user_files();
    append(stage.inputs, {file("profile.h5"), file("test.h5"), machine_file()});
    return stage;
  }

  // Everything that is executed once more, and what predicts it.
  std::vector<Stage> executions() const {
    std::vector<Stage> stages;
    if (study.execute.tiers.empty() || model.drawn()) return stages;
    const ExecuteSizes sizes = execute_sizes(study, model);
    if (study.execute.cluster.empty()) stages.push_back(calibrate(sizes.read_bytes));
    for (const std::string& tiers : study.execute.tiers) {
      stages.push_back(predict(tiers, sizes));
      for (const PolicySpec& policy : parse_policies(joined(study.execute.policies, ','))) {
        for (size_t i = 0; i < sizes.budgets.size(); ++i) {
          stages.push_back(execute(tiers, policy, sizes, i));
        }
      }
    }
    return stages;
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
    for (Stage& stage : planner.executions()) stages.push_back(std::move(stage));
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
