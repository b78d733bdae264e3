#include "models/process.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "models/cli.h"
#include "models/error.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPollInterval = std::chrono::milliseconds(50);
constexpr auto kGracePeriod = std::chrono::seconds(60);  // to close a trace after SIGTERM
constexpr auto kLinePeriod = std::chrono::minutes(1);    // of a batch log
constexpr auto kRedrawPeriod = std::chrono::seconds(1);  // of a terminal

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Only async-signal-safe calls: between fork and exec.
[[noreturn]] void become(char* const* argv, int log, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(127);
  const int null = ::open("/dev/null", O_RDONLY);
  if (null >= 0) ::dup2(null, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(signal, SIG_DFL);
  ::execvp(argv[0], argv);
  const char* reason = ::strerror(errno);
  (void)!::write(log, argv[0], ::strlen(argv[0]));
  (void)!::write(log, ": ", 2);
  (void)!::write(log, reason, ::strlen(reason));
  (void)!::write(log, "\n", 1);
  ::_exit(127);
}

class ChildDisplay {
 public:
  explicit ChildDisplay(const ChildOptions& options)
      : options_(options), terminal_(::isatty(STDERR_FILENO) != 0), drawn_(Clock::now()) {}
  ~ChildDisplay() {
    if (terminal_) ::fprintf(stderr, "\r\033[K");
  }
  void update(Clock::time_point start) {
    if (Clock::now() - drawn_ < (terminal_ ? Clock::duration(kRedrawPeriod) : kLinePeriod)) return;
    drawn_ = Clock::now();
    std::string last = tail_of(options_.log_path, 1);
    last = last.substr(last.rfind('\r') + 1).substr(0, 60);
    const std::string line =
        fmt::format("  {} {:.0f} s  {}", options_.what, seconds_since(start), last);
    ::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
    ::fflush(stderr);
  }

 private:
  const ChildOptions& options_;
  bool terminal_;
  Clock::time_point drawn_;
};

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Forwards an interruption once, waits for the child to close its files, then insists.
ChildResult wait_for(pid_t child, const ChildOptions& options) {
  const auto start = Clock::now();
  ChildDisplay display(options);
  ChildResult result;
  Clock::time_point forwarded;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (interrupted() && !result.interrupted) {
      result.interrupted = true;
      forwarded = Clock::now();
      ::kill(child, SIGTERM);
    }
    if (result.interrupted && Clock::now() - forwarded > kGracePeriod) ::kill(-child, SIGKILL);
    display.update(start);
    std::this_thread::sleep_for(kPollInterval);
  }
  result.interrupted |= interrupted();
  result.exit_code = exit_code_of(status);
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = ::getenv("PATH");
  std::string rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string candidate = rest.substr(0, colon) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  return "";
}

std::string own_path() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) throw work_failed("/proc/self/exe: " + error.message());
  return path.string();
}

ChildResult run_child(const std::vector<std::string>& command, const ChildOptions& options) {
  TC_CHECK(!command.empty(), "a child needs a program");
  const int log = ::open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (log < 0) throw work_failed(options.log_path + ": cannot write: " + ::strerror(errno));
  for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 0);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) become(argv.data(), log, parent);
  ::close(log);
  if (child < 0) throw work_failed(command[0] + ": cannot start: " + ::strerror(errno));
  ::setpgid(child, child);
  return wait_for(child, options);
}

std::string tail_of(const std::string& path, int count) {
  constexpr std::streamoff kTailBytes = 16 << 10;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const std::streamoff size = file.tellg();
  file.seekg(size > kTailBytes ? size - kTailBytes : 0);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  while (!text.empty() && text.back() == '\n') text.pop_back();
  size_t at = text.size();
  for (int line = 0; line < count && at != std::string::npos && at > 0; ++line) {
    at = text.rfind('\n', at - 1);
  }
  return at == std::string::npos || at == 0 ? text : text.substr(at + 1);
}

}  // namespace thermocline
