#include "sim/study_run.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>

#include "models/cli.h"
#include "models/error.h"
#include "models/hash.h"
#include "models/process.h"
#include "sim/execution.h"
#include "sim/results.h"
#include "sim/study.h"
#include "sim/study_plan.h"

namespace thermocline {
namespace {

constexpr int kTailLines = 20;

// Open MPI refuses root and more ranks than cores unless told otherwise, and polls at full speed,
// which on few cores costs far more than it gains. Grace: ranks close their traces after SIGTERM.
const std::map<std::string, std::string> kEnvironment = {
    {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
    {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
    {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
    {"OMPI_MCA_mpi_yield_when_idle", "1"},
    {"OMPI_MCA_odls_base_sigkill_timeout", "30"},
};

void say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

void make_folder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw work_failed(path + ": cannot create: " + error.message());
}

// Size and time of a file that a stage reads: a changed one makes the stage run again.
Json fingerprint(const std::string& path) {
  if (std::filesystem::is_directory(path)) {  // a tokenizer's folder
    std::map<std::string, Json> files;
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (entry.is_regular_file()) files[entry.path().filename()] = fingerprint(entry.path());
    }
    return files;
  }
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return nullptr;
  return {{"bytes", info.st_size},
          {"modified_ns", info.st_mtim.tv_sec * 1000000000ll + info.st_mtim.tv_nsec}};
}

Json marker_of(const Stage& stage) {
  Fnv1a hash;
  for (const std::string& word : stage.command) hash.add(word + '\0');
  Json inputs = Json::object();
  for (const std::string& input : stage.inputs) inputs[input] = fingerprint(input);
  return {{"version", kVersion}, {"command_hash", hash.hex()}, {"inputs", inputs}};
}

// The marker of a stage that was done before; null where there is none that can be read.
Json read_marker(const Stage& stage) {
  if (!std::filesystem::exists(stage.done)) return nullptr;
  const Json marker = Json::parse(read_file(stage.done), nullptr, false);
  return marker.is_object() ? marker : Json(nullptr);
}

bool is_done(const Stage& stage, const Json& marker) {
  if (marker.is_null() || !std::filesystem::exists(stage.output)) return false;
  const Json wanted = marker_of(stage);
  for (const auto& [name, value] : wanted.items()) {
    if (marker.value(name, Json()) != value) return false;
  }
  return marker.contains("seconds") && marker["seconds"].is_number();
}

// A path as short as it can be typed here: printed commands are there to be pasted.
std::string short_path(const std::string& path) {
  const std::string near = std::filesystem::proximate(path).string();
  if (near.starts_with("..") || near.empty()) return path;
  return near.find('/') == std::string::npos ? "./" + near : near;
}

class StudyRun {
 public:
  StudyRun(const StudyOptions& options, Study study)
      : options_(options), study_(std::move(study)), out_(options.out) {
    if (out_.empty()) out_ = "results/" + study_.name;
    program_ = options.program.empty() ? short_path(own_path()) : options.program;
    const std::string launcher = launcher_program(study_);
    const bool found = launcher.empty() || !find_program(launcher).empty();
    if (!found) {
      say(fmt::format("note: no {} here: the {} ranks are threads of one process", launcher,
                      study_.ranks));
    }
    stages_ = plan_stages(study_, {program_, out_, found});
  }

  void print_commands() const {
    for (const Stage& stage : stages_) say("$ " + shell_line(stage.command));
    say("$ " + shell_line(report_command()));
  }

  void run() {
    claim_folder();
    std::string running_label;  // of the model whose stages run again
    for (const Stage& stage : stages_) {
      const bool again = stage.label == running_label;
      if (run_stage(stage, again)) running_label = stage.label;
    }
    merge();
    report();
    finish();
  }

 private:
  std::string file(const std::string& name) const { return out_ + "/" + name; }
  std::vector<std::string> report_command() const { return {program_, "report", out_}; }

  std::string resume_line() const {
    std::vector<std::string> words = {program_, "study", options_.path, "--out", out_};
    const auto add = [&](const std::string& name, const std::string& value) {
      if (!value.empty()) words.insert(words.end(), {name, value});
    };
    add("--model", options_.extras.model);
    add("--tokenizer", options_.extras.tokenizer);
    add("--prompts", options_.extras.prompts);
    words.push_back("--resume");
    return shell_line(words);
  }

  // Nothing that took hours is overwritten by a forgotten option.
  void claim_folder() const {
    if (!options_.resume && std::filesystem::exists(file("study.toml"))) {
      throw bad_usage(out_ +
                      ": expected a folder without results, found those of a study; go on "
                      "with: " +
                      resume_line() + ", or give another --out");
    }
    make_folder(out_);
    write_file(file("study.toml"), study_text(options_.path));
    for (const StudyModel& model : study_.models) {
      make_folder(file(model.label));
      if (study_.execute.tiers.empty() || model.drawn()) continue;
      make_folder(file(model.label + "/" + std::string(kTierFolder)));
    }
  }

  // True if the stage ran, false if it was done before.
  bool run_stage(const Stage& stage, bool again) {
    const std::string title = stage.label + " " + stage.name;
    const Json marker = read_marker(stage);
    if (!again && is_done(stage, marker)) {
      say(fmt::format("{}: done before, in {:.1f} s", title, marker["seconds"].get<double>()));
      note_stage(stage, marker["seconds"].get<double>());
      return false;
    }
    std::filesystem::remove(stage.done);
    const double seconds = run_command(title, stage.command, stage.log);
    if (!std::filesystem::exists(stage.output)) {
      throw work_failed(fmt::format("{}: expected {}, found no such file; see {}", title,
                                    stage.output, stage.log));
    }
    Json done = marker_of(stage);
    done["seconds"] = seconds;
    write_file(stage.done, done.dump(2) + "\n");
    note_stage(stage, seconds);
    return true;
  }

  double run_command(const std::string& title, const std::vector<std::string>& command,
                     const std::string& log) const {
    say("$ " + shell_line(command));
    const ChildResult result = run_child(command, {title, log, kEnvironment});
    if (result.interrupted) {
      throw work_failed(fmt::format("interrupted in {}; go on with: {}", title, resume_line()));
    }
    if (result.exit_code != 0) {
      throw work_failed(
          fmt::format("{}: exit code {}; the end of {}:\n{}\nafter mending, go on "
                      "with: {}",
                      title, result.exit_code, log, tail_of(log, kTailLines), resume_line()));
    }
    say(fmt::format("  {}: {:.1f} s, log {}", title, result.seconds, log));
    return result.seconds;
  }

  void note_stage(const Stage& stage, double seconds) {
    stage_rows_.push_back({{"label", stage.label},
                           {"kind", "stage"},
                           {"stage", stage.name},
                           {"command", display_line(stage, program_)},
                           {"seconds", seconds}});
  }

  Json study_row() const {
    return {{"kind", "study"},
            {"name", study_.name},
            {"ranks", study_.ranks},
            {"seed", study_.seed},
            {"policies", study_.policies},
            {"budgets", study_.budgets},
            {"migration", study_.migration},
            {"prompts", study_.prompts.path.empty() ? "embedded" : study_.prompts.path},
            {"profile_split", study_.prompts.profile_split},
            {"test_split", study_.prompts.test_split}};
  }

  void merge() const {
    std::vector<ResultFile> files;
    for (const Stage& stage : stages_) files.push_back({stage.output, stage.label, stage.name});
    const Json rows = merge_rows(files);
    Json all = Json::array({study_row()});
    all.insert(all.end(), rows.begin(), rows.end());
    for (const Json& row : execution_rows(rows)) all.push_back(row);
    for (const Json& row : stage_rows_) all.push_back(row);
    write_json(file("results.json"), "study", all);
    write_file(file("results.csv"), csv_of(rows));
  }

  void report() const { run_command("report", report_command(), file("report.log")); }

  // The report is written first: it shows the rows that differ.
  void finish() const {
    const Results results = open_results({file("results.json")});
    const Agreement agreement = agreement_of(results);
    std::string differences;
    for (const std::string& line : agreement.differences) differences += "\n  " + line;
    for (const ModelResults& model : results.models) {
      const bool was_drawn = std::any_of(
          study_.models.begin(), study_.models.end(),
          [&](const StudyModel& one) { return one.label == model.label && one.drawn(); });
      if (model.live.empty() && !was_drawn) {
        differences += "\n  " + model.label + ": no live counters";
      }
    }
    const Agreement executed = agreement_of(results, executions_agree);
    for (const std::string& line : executed.differences) differences += "\n  " + line;
    std::string verdict =
        fmt::format("live = replay: {} of {} equal", agreement.equal, agreement.total);
    if (executed.total > 0) {
      verdict +=
          fmt::format("; executed in tiers = replay: {} of {}", executed.equal, executed.total);
    }
    if (!differences.empty()) throw work_failed(verdict + differences);
    if (executed.total > 0) say(executions_table(results));
    say(verdict);
    say("results: " + file("results.json") + ", " + file("results.csv"));
    say("report: " + file("report.html"));
  }

  const StudyOptions& options_;
  Study study_;
  std::string out_, program_;
  std::vector<Stage> stages_;
  std::vector<Json> stage_rows_;
};

}  // namespace

void run_study(const StudyOptions& options) {
  StudyRun run(options, open_study(options.path, options.extras));
  if (options.dry_run) {
    run.print_commands();
  } else {
    run.run();
  }
}

}  // namespace thermocline
