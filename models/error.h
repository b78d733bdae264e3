// The two ways in which thermocline fails.
//
// Goals: bad input (a file, a flag, a peer) throws Error with what was expected and what was found;
//   a bug fails TC_CHECK in every build type. Kernels do neither.
// Non-goals: error codes, recovery, logging.
// Thread-safety: everything here may be used from any thread.
#pragma once

#include <stdexcept>
#include <string>

namespace thermocline {

// The process exit codes of the command line (design: 0 done, 1 failed, 2 usage, 3 input).
enum class ErrorKind : int {
  failed = 1,  // the work failed: no space left, a lost peer, an unwritable folder
  usage = 2,   // an option, a name or a number on the command line or in a study file
  input = 3,   // a file that is not what it should be
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

inline Error bad_usage(const std::string& message) { return {ErrorKind::usage, message}; }
inline Error work_failed(const std::string& message) { return {ErrorKind::failed, message}; }

// A file that is not what it should be: "PATH: expected X, found Y".
inline Error bad_input(const std::string& path, const std::string& expected,
                       const std::string& found) {
  return {ErrorKind::input, path + ": expected " + expected + ", found " + found};
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& message);

// An invariant of the program itself. Always on: a wrong answer costs more than the comparison.
#define TC_CHECK(condition, message)                                                \
  do {                                                                              \
    if (!(condition)) ::thermocline::check_failed(#condition, __FILE__, __LINE__, message); \
  } while (false)

}  // namespace thermocline
