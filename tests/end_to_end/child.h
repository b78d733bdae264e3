// A command that runs beside the test, whose output can be read and which can be asked to end.
//
// Thread-safety: one object, one thread.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>

#include "tests/support.h"

namespace thermocline::test {

class Child {
 public:
  // Its output, both streams, goes to the file `output`.
  Child(const std::string& command, std::string output) : output_(std::move(output)) {
    const std::string line = "exec " + command + " > " + output_ + " 2>&1";
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ > 0) return;
    ::execl("/bin/sh", "sh", "-c", line.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ~Child() {
    if (exit_code_.has_value()) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void terminate() const { ::kill(pid_, SIGTERM); }

  // Of the command, once it has ended; nothing where it has not within `seconds`.
  std::optional<int> wait(double seconds) {
    poll(seconds, [this] {
      int status = 0;
      if (exit_code_.has_value() || ::waitpid(pid_, &status, WNOHANG) == 0) return false;
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      return true;
    });
    return exit_code_;
  }

  std::string output() const {
    std::ifstream in(output_);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  // What stands behind `before` in a line of the output, once there is such a line; else empty.
  std::string wait_for_line(const std::string& before, double seconds) {
    std::string rest;
    poll(seconds, [&] {
      const std::string text = "\n" + output();
      const size_t begin = text.find("\n" + before);
      const size_t end = text.find('\n', begin == std::string::npos ? begin : begin + 1);
      if (end == std::string::npos) return wait(0).has_value();
      rest = text.substr(begin + 1 + before.size(), end - begin - 1 - before.size());
      return true;
    });
    return rest;
  }

 private:
  template <class Done>
  static void poll(double seconds, Done done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!done() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  std::string output_;
  pid_t pid_ = -1;
  std::optional<int> exit_code_;
};

}  // namespace thermocline::test
