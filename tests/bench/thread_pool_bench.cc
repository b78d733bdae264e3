// What a thread pool's run() costs, alone and beside a second pool that wants the same cores, and
// what it reads of memory beside the limit that read_bandwidth measures.
//
//   thread_pool_bench [THREADS [CSV]]     1 to THREADS (all cores); appends its rows to CSV
//
// back to back: the next run() follows at once, as within a sublayer. after 100 us: the caller is
// busy in between, as while ranks exchange their sums; threads that spin have gone to sleep.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "runtime/kernels/bandwidth.h"
#include "runtime/kernels/kernels.h"
#include "runtime/thread_pool.h"

using namespace thermocline;

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kBufferBytes = uint64_t{256} << 20;
constexpr int kUnit = 1024;  // floats
constexpr double kSecondsPerRow = 0.5;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void busy(double seconds) {
  for (const Clock::time_point begin = Clock::now(); seconds_since(begin) < seconds;) {
  }
}

struct Cost {
  double median_us, p99_us;
};

// Of runs that have nothing to do, which begin `gap` seconds after the last one ended.
Cost cost_of_run(ThreadPool& pool, double gap) {
  std::vector<double> took;
  for (const Clock::time_point begin = Clock::now();
       seconds_since(begin) < kSecondsPerRow && took.size() < 200'000;) {
    if (gap > 0) busy(gap);
    const Clock::time_point start = Clock::now();
    pool.run(pool.size(), 1, [](int, int) {});
    took.push_back(seconds_since(start) * 1e6);
  }
  std::sort(took.begin(), took.end());
  return {took[took.size() / 2], took[took.size() * 99 / 100]};
}

// A second pool of the same size, kept busy by a thread of its own until the end of the scope.
class Competitor {
 public:
  explicit Competitor(int thread_count) : thread_([this, thread_count] { work(thread_count); }) {
    while (!working_) std::this_thread::yield();
  }
  ~Competitor() {
    closing_ = true;
    thread_.join();
  }
  Competitor(const Competitor&) = delete;
  Competitor& operator=(const Competitor&) = delete;

 private:
  void work(int thread_count) {
    ThreadPool pool(thread_count);
    for (working_ = true; !closing_;) {
      pool.run(thread_count, 1, [](int, int) { busy(50e-6); });
    }
  }

  std::atomic<bool> closing_ = false, working_ = false;
  std::thread thread_;
};

class Bench {
 public:
  explicit Bench(std::FILE* csv) : csv_(csv) {}

  void costs(int thread_count) {
    ThreadPool pool(thread_count);
    print(thread_count, "alone, back to back", cost_of_run(pool, 0));
    print(thread_count, "alone, after 100 us", cost_of_run(pool, 100e-6));
    const Competitor competitor(thread_count);
    print(thread_count, "two pools, back to back", cost_of_run(pool, 0));
    print(thread_count, "two pools, after 100 us", cost_of_run(pool, 100e-6));
  }

  void reads(int thread_count) {
    const std::unique_ptr<std::byte[]> buffer(new std::byte[kBufferBytes]);
    ThreadPool pool(thread_count);
    const float* values = reinterpret_cast<const float*>(buffer.get());
    constexpr int kCount = kBufferBytes / sizeof(float);
    pool.run(kCount, kUnit, [&](int begin, int end) {  // places the pages
      std::fill(buffer.get() + begin * sizeof(float), buffer.get() + end * sizeof(float),
                std::byte{1});
    });
    std::atomic<float> sink = 0;
    double best = 1e9;
    const Clock::time_point start = Clock::now();
    while (seconds_since(start) < kSecondsPerRow) {
      const Clock::time_point begin = Clock::now();
      pool.run(kCount, kUnit, [&](int first, int last) {
        sink = cpu_kernels().largest(values + first, last - first);
      });
      best = std::min(best, seconds_since(begin));
    }
    const double limit = read_bandwidth(buffer.get(), kBufferBytes, thread_count, kSecondsPerRow);
    const double rate = kBufferBytes / best;
    std::printf("%3d threads  reads %7.1f GB/s, limit %7.1f GB/s: %.0f %%\n", thread_count,
                rate * 1e-9, limit * 1e-9, 100 * rate / limit);
    row(thread_count, "read GB/s and limit", rate * 1e-9, limit * 1e-9);
  }

 private:
  void print(int thread_count, const std::string& name, Cost cost) {
    std::printf("%3d threads  %-24s median %8.2f us  p99 %8.2f us\n", thread_count, name.c_str(),
                cost.median_us, cost.p99_us);
    row(thread_count, name + " us median and p99", cost.median_us, cost.p99_us);
  }

  void row(int thread_count, const std::string& name, double first, double second) {
    if (csv_ == nullptr) return;
    std::fprintf(csv_, "%d,\"%s\",%.3f,%.3f\n", thread_count, name.c_str(), first, second);
  }

  std::FILE* csv_;
};

}  // namespace

int main(int argc, char** argv) {
  const int threads =
      argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: thread_pool_bench [THREADS [CSV]]\n");
    return 2;
  }
  std::FILE* csv = argc > 2 ? std::fopen(argv[2], "a") : nullptr;
  if (argc > 2 && csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", argv[2]);
    return 1;
  }
  if (csv != nullptr && std::ftell(csv) == 0) std::fprintf(csv, "threads,name,first,second\n");
  Bench bench(csv);
  for (int count = 1; count <= threads; ++count) bench.costs(count);
  for (int count = 1; count <= threads; ++count) bench.reads(count);
  return csv != nullptr && std::fclose(csv) != 0 ? 1 : 0;
}
