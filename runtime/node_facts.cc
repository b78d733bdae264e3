#include "runtime/node_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "models/cli.h"
#include "runtime/kernels/bandwidth.h"

namespace thermocline {
namespace {

constexpr uint64_t kMeasuredBytes = uint64_t{256} << 20;  // on the whole machine
constexpr uint64_t kMeasuredBytesMin = uint64_t{32} << 20;

}  // namespace

double measure_read_bandwidth(uint32_t thread_count, uint32_t process_count, double seconds) {
  const uint64_t bytes = std::max(kMeasuredBytes / std::max(process_count, 1u), kMeasuredBytesMin);
  // Written to: untouched pages would all be one page of zeros.
  const std::vector<std::byte> buffer(bytes, std::byte{1});
  // What a process gets over the whole time, not in its best pass: where processes share cores, a
  // pass that was not interrupted says more than any of them can have.
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  double elapsed = 0;
  uint64_t read = 0;
  do {
    read_bandwidth(buffer.data(), buffer.size(), static_cast<int>(thread_count), 0);
    read += 2 * buffer.size();  // two passes
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (elapsed < seconds);
  return static_cast<double>(read) / elapsed;
}

uint32_t cores_of_process(uint32_t process_count) {
  const uint32_t all = std::max(1u, std::thread::hardware_concurrency());
  // A launcher may have bound this process to fewer cores.
  return std::max(1u, std::min(available_cores(), all / std::max(process_count, 1u)));
}

// A cache that cores share is listed by each of them, as "32768K".
uint64_t last_level_cache_bytes() {
  std::map<std::string, uint64_t> bytes_of_cores;
  const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
  for (uint32_t core = 0; core < cores; ++core) {
    for (int level = 3; level >= 2; --level) {
      const std::string folder =
          fmt::format("/sys/devices/system/cpu/cpu{}/cache/index{}/", core, level);
      std::ifstream sharing(folder + "shared_cpu_list"), size(folder + "size");
      std::string list;
      uint64_t kibibytes = 0;
      if (!(sharing >> list) || !(size >> kibibytes)) continue;
      bytes_of_cores[list] = kibibytes << 10;
      break;
    }
  }
  uint64_t total = 0;
  for (const auto& [list, bytes] : bytes_of_cores) total += bytes;
  return total;
}

uint64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    unsigned long long kibibytes = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %llu kB", &kibibytes) == 1) return kibibytes << 10;
  }
  return 0;
}

// proc(5): 5 resets the peak. Where the kernel does not let us, the peak includes the buffer.
void reset_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace thermocline
