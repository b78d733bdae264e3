#include "models/cli.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <thread>

#include "models/error.h"

namespace thermocline {
namespace {

constexpr double kSecondsBeforeBar = 2;
constexpr double kSecondsPerRedraw = 0.2;
constexpr double kSecondsPerLogLine = 60;
constexpr int kBarWidth = 24;

// Signals this close are one request: timeout(1) and batch systems signal a process and its group.
constexpr int64_t kOneRequestNs = 300'000'000;

static_assert(std::atomic<int64_t>::is_always_lock_free, "a signal handler sets it");
std::atomic<int64_t> interrupt_ns = 0;  // of the first signal; 0: none yet

void on_signal(int signal) {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t now_ns = now.tv_sec * 1'000'000'000 + now.tv_nsec + 1;
  int64_t first_ns = 0;
  if (interrupt_ns.compare_exchange_strong(first_ns, now_ns)) return;
  if (now_ns - first_ns < kOneRequestNs) return;
  ::signal(signal, SIG_DFL);  // the user asks again: end now
  ::raise(signal);
}

std::string cpu_model(const utsname& system) {
  std::ifstream facts("/proc/cpuinfo");
  for (std::string line; std::getline(facts, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return system.machine;  // ARM kernels name no model
}

Error unwritable(const std::string& path) {
  return work_failed(path + ": cannot write: " + std::strerror(errno));
}

// Owns a descriptor that is being written.
class OutputFile {
 public:
  OutputFile(const std::string& path, int flags, const std::string& shown)
      : shown_(shown), fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666)) {
    if (fd_ < 0) throw unwritable(shown_);
  }
  ~OutputFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) throw unwritable(shown_);
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }
  void sync() {
    if (::fsync(fd_) != 0) throw unwritable(shown_);
  }
  // Network file systems report a full disk here.
  void close() {
    const int status = ::close(fd_);
    fd_ = -1;
    if (status != 0) throw unwritable(shown_);
  }

 private:
  std::string shown_;  // the final name, which messages give
  int fd_;
};

bool is_device(const std::string& path) {
  struct stat facts;
  return ::stat(path.c_str(), &facts) == 0 && !S_ISREG(facts.st_mode) && !S_ISDIR(facts.st_mode);
}

std::string duration_text(double seconds) {
  const auto whole = std::llround(seconds);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

double seconds_between(std::chrono::steady_clock::time_point from,
                       std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

uint32_t available_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (::sched_getaffinity(0, sizeof cores, &cores) == 0) {
    return std::max(1u, static_cast<uint32_t>(CPU_COUNT(&cores)));
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

nlohmann::ordered_json machine_facts() {
  utsname system = {};
  ::uname(&system);
  const auto pages = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES));
  const auto page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGE_SIZE));
  return {{"host", system.nodename},
          {"cpu", cpu_model(system)},
          {"cores", available_cores()},
          {"memory_bytes", pages * page_bytes}};
}

void write_json(const std::string& path, const std::string& command,
                const nlohmann::ordered_json& rows) {
  const nlohmann::ordered_json whole = {
      {"command", command}, {"version", kVersion}, {"machine", machine_facts()}, {"rows", rows}};
  // A prompt's text may hold any bytes; JSON may not.
  const auto lenient = nlohmann::ordered_json::error_handler_t::replace;
  const std::string text = whole.dump(2, ' ', false, lenient) + "\n";
  if (path != "-") return write_file(path, text);
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (std::fflush(stdout) != 0) throw unwritable("standard output");
}

void write_file(const std::string& path, std::string_view bytes) {
  if (is_device(path)) {  // /dev/stdout, a pipe: nothing to rename
    OutputFile device(path, 0, path);
    device.write(bytes);
    return device.close();
  }
  const std::string temporary = path + ".tmp";
  try {
    OutputFile file(temporary, O_CREAT | O_TRUNC, path);
    file.write(bytes);
    file.sync();
    file.close();
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw unwritable(path);
  } catch (const Error&) {
    ::unlink(temporary.c_str());
    throw;
  }
}

std::string read_file(const std::string& path) {
  errno = 0;
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  std::string text;
  if (file != nullptr) {
    char buffer[1 << 16];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, n);
  }
  const bool failed = file == nullptr || std::ferror(file) != 0;
  const int reason = errno;
  if (file != nullptr) std::fclose(file);
  if (failed) throw bad_input(path, "a readable file", std::strerror(reason));
  return text;
}

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // a write in progress is finished, not torn
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return interrupt_ns.load(std::memory_order_relaxed) != 0; }

std::string progress_text(const std::string& what, uint64_t done, uint64_t total,
                          const std::string& unit, double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string text = fmt::format("{}: {}", what, done);
  if (total > 0) text += fmt::format(" of {}", total);
  text += fmt::format(" {}, {:.3g} {}/s", unit, rate, unit);
  if (total > done && rate > 0) {
    text += ", " + duration_text(static_cast<double>(total - done) / rate) + " left";
  }
  return text;
}

Progress::Progress(std::string what, uint64_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      start_(std::chrono::steady_clock::now()),
      printed_(start_),
      terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (terminal_ && shown_) std::fputc('\n', stderr);
}

void Progress::update(uint64_t done) {
  const auto now = std::chrono::steady_clock::now();
  const double pause =
      terminal_ ? (shown_ ? kSecondsPerRedraw : kSecondsBeforeBar) : kSecondsPerLogLine;
  const bool last = shown_ && total_ > 0 && done >= total_;
  if (seconds_between(printed_, now) < pause && !last) return;
  printed_ = now;
  shown_ = true;
  const std::string text = progress_text(what_, done, total_, unit_, seconds_between(start_, now));
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", text.c_str());
    return;
  }
  const double share = total_ > 0 ? std::min(1.0, static_cast<double>(done) / total_) : 0;
  const auto filled = static_cast<size_t>(share * kBarWidth);
  const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
  // "\x1b[K" clears what a longer line left behind.
  std::fprintf(stderr, "\r[%s] %s\x1b[K", bar.c_str(), text.c_str());
  std::fflush(stderr);
}

}  // namespace thermocline
