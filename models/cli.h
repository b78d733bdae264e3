// What every subcommand shares: JSON output, machine facts, a progress line, interruption.
//
// Goals: options mean the same wherever they appear; one JSON object {command, version, machine,
//   rows} behind --json; a file appears under its final name only when whole.
// Thread-safety: interrupted() may be called anywhere; the rest belongs to the main thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace thermocline {

inline constexpr std::string_view kVersion = "0.1.0";

// Cores that this process may use, which a batch system or mpirun may have narrowed; at least 1.
uint32_t available_cores();

nlohmann::ordered_json machine_facts();  // host, cpu, cores, memory_bytes

// Writes {command, version, machine, rows} to `path` ("-" is standard output).
void write_json(const std::string& path, const std::string& command,
                const nlohmann::ordered_json& rows);

// Writes to PATH.tmp, then renames; a device or pipe is written as it is. Errors: work_failed with
// the system's reason (no space, read-only); nothing is left behind.
void write_file(const std::string& path, std::string_view bytes);
std::string read_file(const std::string& path);  // Error{input} if it cannot be read

// Ctrl-C and SIGTERM set a flag that loops look at; a second request ends the process.
void install_interrupt_handler();
bool interrupted();

// "recording: 12 of 40 steps, 3.1 steps/s, 9 s left"; a `total` of 0 is an unknown one.
std::string progress_text(const std::string& what, uint64_t done, uint64_t total,
                          const std::string& unit, double seconds);

// On standard error. A terminal gets a bar with rate and time left after two seconds; a log gets a
// line a minute.
class Progress {
 public:
  Progress(std::string what, uint64_t total, std::string unit);
  ~Progress();
  void update(uint64_t done);

 private:
  std::string what_, unit_;
  uint64_t total_;
  std::chrono::steady_clock::time_point start_, printed_;
  bool terminal_, shown_ = false;
};

}  // namespace thermocline
