// What a test asks about failures: the Error that a call throws, the signal that ends a process.
//
// Thread-safety: none needed; each test runs in its own process.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <string>

#include "models/error.h"

namespace thermocline::test {

struct Failure {
  ErrorKind kind;
  std::string message;
};

// The Error that `call` throws; the test fails where it throws none.
template <class Call>
Failure failure_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  FAIL("no Error was thrown");
  return {ErrorKind::failed, ""};
}

// Runs `call` in a child process: its exit code, or 128 and the signal that ended it. The child
// is silent and leaves no core file.
template <class Call>
int outcome_in_child(Call call) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit no_core = {0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    for (const int fatal : {SIGABRT, SIGINT, SIGTERM}) ::signal(fatal, SIG_DFL);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(99);
    ::_exit(call());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace thermocline::test
