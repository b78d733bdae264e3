// thermocline: one program, the subcommands of every room.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "models/cli.h"
#include "models/commands.h"
#include "models/error.h"
#include "models/registry.h"
#include "runtime/comm.h"
#include "runtime/commands.h"
#include "runtime/work_group.h"
#include "sim/commands.h"
#include "traces/commands.h"

namespace thermocline {
namespace {

std::vector<CLI::App*> subcommands_of(CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> subcommand_names(CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : subcommands_of(app)) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// The first word of the command line that names nothing, with the nearest name that does; empty if
// all are known.
std::string explain_unknown(CLI::App& root, const std::vector<std::string>& words) {
  CLI::App* app = &root;
  for (const std::string& word : words) {
    if (word.starts_with("--")) {
      const std::string name = word.substr(0, word.find('='));
      if (app->get_option_no_throw(name) == nullptr) {
        return unknown_name("option", name, option_names(*app)).what();
      }
      continue;
    }
    if (subcommands_of(*app).empty()) continue;  // a value or a positional argument
    const std::vector<std::string> names = subcommand_names(*app);
    if (std::find(names.begin(), names.end(), word) == names.end()) {
      return unknown_name("command", word, names).what();
    }
    app = app->get_subcommand(word);
  }
  return "";
}

std::string explain(CLI::App& app, const CLI::ParseError& error,
                    const std::vector<std::string>& words) {
  const std::string unknown = explain_unknown(app, words);
  if (!unknown.empty()) return unknown;
  if (words.empty()) {
    std::string text = "expected a command:";
    for (const std::string& name : subcommand_names(app)) text += " " + name;
    return text + "; --help says more";
  }
  return std::string(error.what()) + "; --help says more";
}

void add_commands(CLI::App& app) {
  app.set_version_flag("--version", std::string(kVersion));
  app.require_subcommand(1);
  app.footer("Example: thermocline run --model preset:tiny --prompt 'def add(a, b):'");
  add_model_commands(app);
  add_runtime_commands(app);
  add_trace_commands(app);
  add_replay_command(app, run_in_launched_group);
  add_study_command(app);
  add_report_command(app);
}

// Help and version go to standard output, once a job; wrong usage ends on every rank alike.
int end_parse(CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& words) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
    return launched_rank().rank == 0 ? app.exit(error) : 0;
  }
  throw bad_usage(explain(app, error, words));
}

int run_program(int argc, char** argv) {
  CLI::App app("Which neurons of a large model must live in fast memory, and which need not.",
               "thermocline");
  add_commands(app);
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return end_parse(app, error, words);
  }
  return 0;
}

void print_error(const char* message) {
  if (*message != '\0') std::fprintf(stderr, "thermocline: %s\n", message);
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) {
  using namespace thermocline;
  try {
    return run_program(argc, argv);
  } catch (const AgreedError& error) {
    print_error(error.what());  // empty where another rank has said it
    return error.exit_code();
  } catch (const Error& error) {
    // Found before the ranks met, so by all of them: one says it for all.
    report_before_start(error);
    return error.exit_code();
  } catch (const std::exception& error) {
    print_error(error.what());
    return static_cast<int>(ErrorKind::failed);
  }
}
