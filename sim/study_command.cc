// thermocline study: record, replay, compare and report, from one TOML file.
#include <CLI/CLI.hpp>
#include <memory>

#include "models/cli.h"
#include "sim/commands.h"
#include "sim/study.h"
#include "sim/study_run.h"

namespace thermocline {
namespace {

std::string keys_text() {
  std::string text = "Keys of STUDY.toml (expected; default):\n";
  for (const StudyKey& key : study_keys()) {
    const std::string name = key.table.empty() ? key.name : key.table + "." + key.name;
    text += "  " + name + ": " + key.meaning + " (" + key.expected + "; " + key.fallback + ")\n";
  }
  return text;
}

}  // namespace

void add_study_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "study", "Record, replay, compare and report, from one TOML file; can be resumed");
  const auto options = std::make_shared<StudyOptions>();
  command
      ->add_option("STUDY", options->path,
                   "the study, a TOML file; default: the one that is built in")
      ->capture_default_str();
  command->add_option("--out", options->out, "folder of results (default: results/NAME)");
  command->add_option("--model", options->extras.model,
                      "a checkpoint of yours, compared beside the study's models");
  command->add_option("--tokenizer", options->extras.tokenizer, "of that checkpoint");
  command->add_option("--prompts", options->extras.prompts,
                      "a .jsonl in MBPP's format, instead of the study's prompts.path");
  command->add_flag("--resume", options->resume,
                    "go on in a folder that holds results: what is done is not run again");
  command->add_flag("--dry-run", options->dry_run, "check all, print the commands, run nothing");
  command->footer("Example: thermocline study sim/studies/demo.toml --out results/demo\n\n" +
                  keys_text());
  command->callback([options] {
    install_interrupt_handler();
    run_study(*options);
  });
}

}  // namespace thermocline
