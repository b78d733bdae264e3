#include "runtime/kernels/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <thread>
#include <vector>

#include "runtime/kernels/kernels.h"

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

constexpr uint64_t kUnit = 128;  // floats, of which kernels.largest takes a multiple

}  // namespace

double read_bandwidth(const std::byte* buffer, uint64_t bytes, int thread_count, double seconds) {
  const Kernels& kernels = cpu_kernels();
  const float* values = reinterpret_cast<const float*>(buffer);
  const uint64_t share = bytes / sizeof(float) / thread_count / kUnit * kUnit;
  std::barrier barrier(thread_count);
  std::atomic<float> sink = 0;  // keeps the reads from being optimised away
  std::atomic<bool> more = true;
  double best = 0;

  const auto work = [&](int thread) {
    const Clock::time_point start = Clock::now();
    for (int pass = 0; more; ++pass) {
      barrier.arrive_and_wait();
      const Clock::time_point begin = Clock::now();
      sink = kernels.largest(values + thread * share, share);
      barrier.arrive_and_wait();
      if (thread == 0) {
        const double took = seconds_since(begin);
        const double read = static_cast<double>(share) * thread_count * sizeof(float);
        if (pass > 0) best = std::max(best, read / took);
        more = pass == 0 || seconds_since(start) < seconds;
      }
      barrier.arrive_and_wait();
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 1; thread < thread_count; ++thread) threads.emplace_back(work, thread);
  work(0);
  for (std::thread& thread : threads) thread.join();
  return best;
}

void read_once(const std::byte* buffer, uint64_t bytes, const RunParts& run) {
  const Kernels& kernels = cpu_kernels();
  const float* values = reinterpret_cast<const float*>(buffer);
  std::atomic<float> sink = 0;
  run(static_cast<int>(bytes / sizeof(float) / kUnit), [&](int begin, int end) {
    const auto first = static_cast<uint64_t>(begin), last = static_cast<uint64_t>(end);
    sink = kernels.largest(values + first * kUnit, (last - first) * kUnit);
  });
}

double compute_peak(const RunParts& run, double seconds) {
  constexpr int kParts = 1 << 14;       // shared evenly by any number of threads
  constexpr double kPassesAtLeast = 8;  // of the time there is, once they are long enough
  const Kernels& kernels = cpu_kernels();
  const Clock::time_point start = Clock::now();
  double best = 0;
  uint64_t rounds = 16;
  do {
    std::atomic<uint64_t> multiplied = 0;
    const Clock::time_point begin = Clock::now();
    run(kParts, [&](int first, int last) {
      multiplied += kernels.multiply_only(rounds * static_cast<uint64_t>(last - first));
    });
    const double took = seconds_since(begin);
    best = std::max(best, 2 * static_cast<double>(multiplied) / took);
    if (took * kPassesAtLeast * 2 < seconds) rounds *= 2;
  } while (seconds_since(start) < seconds);
  return best;
}

}  // namespace thermocline
