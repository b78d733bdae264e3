// Process: one child program, its output in a log file, its interruption handled.
//
// Goals: the child lives in a process group of its own, so that a terminal's Ctrl-C reaches it
//   once, through here, and it can close its files; it dies with its parent; a terminal sees the
//   time and the log's last line, a batch log one line a minute.
// Non-goals: pipes, shells, several children at once.
// Thread-safety: belongs to the main thread.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace thermocline {

struct ChildOptions {
  std::string what;                                // shown while it runs
  std::string log_path;                            // stdout and stderr
  std::map<std::string, std::string> environment;  // set where not set yet
};

struct ChildResult {
  int exit_code = 0;  // 128 + signal where one ended it
  bool interrupted = false;
  double seconds = 0;
};

// The path of a program as a shell would find it; empty where there is none.
std::string find_program(const std::string& name);
// The path of the running executable.
std::string own_path();
// Waits for it to end. Errors: the log cannot be written, no process can be made. A program that
// does not start ends with 127 and says so in its log.
ChildResult run_child(const std::vector<std::string>& command, const ChildOptions& options);
// The last `count` lines of a file; nothing where it cannot be read.
std::string tail_of(const std::string& path, int count);

}  // namespace thermocline
