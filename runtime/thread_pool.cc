#include "runtime/thread_pool.h"

#include <linux/futex.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <utility>

namespace thermocline {
namespace {

using Clock = std::chrono::steady_clock;

// As long as waking a thread takes (24 to 43 us on a virtual machine with a Zen 5): whoever looks
// in vain loses as much as a sleeper would.
constexpr auto kLookTime = std::chrono::microseconds(40);
constexpr int kLooksPerClock = 16;
constexpr int kVainLooksMax = 4;
constexpr int kSleepsAfterVainLooks = 100;

// Of all pools of this process: ranks may be its threads.
std::atomic<int> live_threads = 0;

// Tells the core that nothing is to be done here, for the sake of its other thread.
void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How often the kernel gave this thread's core to another one while this one wanted it.
long lost_core_count() {
  rusage usage = {};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nivcsw;
}

}  // namespace

template <class Arrived>
bool Lookout::wait(const Arrived& arrived) {
  if (sleeps_left_ > 0) {
    --sleeps_left_;
    return arrived();
  }
  const Clock::time_point end = Clock::now() + kLookTime;
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (arrived()) {
        vain_looks_ = 0;
        return true;
      }
      pause_core();
    }
  } while (Clock::now() < end);
  in_vain();
  return arrived();
}

void Lookout::in_vain() {
  const long lost = lost_core_count();
  if (++vain_looks_ == kVainLooksMax || lost != lost_core_count_) {
    sleeps_left_ = kSleepsAfterVainLooks;
    vain_looks_ = 0;
  }
  lost_core_count_ = lost;
}

// A sleeper counts itself before it reads the value once more; whoever changes the value reads that
// count afterwards. All four are in one order (seq_cst), so one of the two sees the other.
void SharedCount::sleep_while(uint32_t value) {
  static_assert(sizeof value_ == sizeof(uint32_t), "the kernel looks at it, too");
  ++sleeper_count_;
  while (value_ == value) {
    ::syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
  }
  --sleeper_count_;
}

void SharedCount::wake_sleepers() {
  if (sleeper_count_ == 0) return;
  ::syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

ThreadPool::ThreadPool(int thread_count, RankOnHost rank, const std::vector<CoreList>& nodes)
    : thread_count_(std::max(thread_count, 1)) {
  const int threads_on_host = thread_count_ * rank.count;
  host_has_cores_ = threads_on_host <= static_cast<int>(std::thread::hardware_concurrency());
  bind_caller(rank, nodes);
  live_threads += own_threads();
  try {
    start_threads();
  } catch (...) {  // the system has no more threads
    stop_threads();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop_threads(); }

void ThreadPool::bind_caller(RankOnHost rank, const std::vector<CoreList>& nodes) {
  CoreList cores = cores_of_this_thread();
  core_count_ = static_cast<int>(cores.size());
  bound_ = cores_of_threads(nodes_within(nodes, cores), thread_count_, rank);
  if (bound_.empty()) return;
  caller_cores_ = std::move(cores);
  bind_this_thread(bound_[0]);
}

void ThreadPool::start_threads() {
  for (int i = 1; i < thread_count_; ++i) threads_.emplace_back([this, i] { serve(i); });
}

void ThreadPool::stop_threads() {
  closing_ = true;
  generation_.increment();
  generation_.wake_sleepers();
  for (std::thread& thread : threads_) thread.join();
  live_threads -= own_threads();
  if (!caller_cores_.empty()) bind_this_thread(caller_cores_);
}

// While it holds, whoever looks takes no core from a thread that works.
bool ThreadPool::cores_suffice() const {
  return host_has_cores_ && live_threads.load(std::memory_order_relaxed) <= core_count_;
}

void ThreadPool::run(int count, int unit, const std::function<void(int, int)>& work) {
  if (count <= 0) return;
  if (thread_count_ == 1) return work(0, count);
  job_ = {&work, count, unit};
  running_.set(static_cast<uint32_t>(thread_count_ - 1));
  generation_.increment();  // publishes the job
  generation_.wake_sleepers();
  run_part(0);
  join();
  if (error_ != nullptr) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::join() {
  const auto done = [this] { return running_.value() == 0; };
  if (cores_suffice() && caller_lookout_.wait(done)) return;
  for (uint32_t left; (left = running_.value()) != 0;) running_.sleep_while(left);
}

void ThreadPool::serve(int index) {
  if (!bound_.empty()) bind_this_thread(bound_[static_cast<size_t>(index)]);
  Lookout lookout;
  for (uint32_t seen = 0;; ++seen) {  // a job is handed out when all are done with the last one
    const auto next = [&] { return generation_.value() != seen; };
    if (!cores_suffice() || !lookout.wait(next)) generation_.sleep_while(seen);
    if (closing_) return;
    run_part(index);
    if (running_.decrement() == 0) running_.wake_sleepers();
  }
}

void ThreadPool::run_part(int index) {
  const int64_t units = (int64_t{job_.count} + job_.unit - 1) / job_.unit;
  const auto border = [&](int64_t i) {
    const int64_t at = units * i / thread_count_ * job_.unit;
    return static_cast<int>(std::min<int64_t>(at, job_.count));
  };
  const int begin = border(index);
  const int end = border(index + 1);
  if (begin == end) return;
  try {
    (*job_.work)(begin, end);
  } catch (...) {
    const std::lock_guard lock(error_mutex_);
    if (error_ == nullptr) error_ = std::current_exception();
  }
}

}  // namespace thermocline
