#include "runtime/kernels/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <thread>
#include <vector>

#include "runtime/kernels/kernels.h"

namespace thermocline {
double read_bandwidth(const std::byte* buffer, uint64_t bytes, int thread_count, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr uint64_t kUnit = 128;  // floats
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
        const Clock::time_point end = Clock::now();
        const double took = std::chrono::duration<double>(end - begin).count();
        const double read = static_cast<double>(share) * thread_count * sizeof(float);
        if (pass > 0) best = std::max(best, read / took);
        more = pass == 0 || std::chrono::duration<double>(end - start).count() < seconds;
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

}  // namespace thermocline
