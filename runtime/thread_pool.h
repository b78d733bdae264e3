// ThreadPool: a rank's threads, which take the parts of one job after another.
//
// Goals: split a range into one contiguous part a thread, the same for the same range, so that a
//   thread reads the rows that it placed; results never depend on the split. A job follows the last
//   one within microseconds: threads look for it briefly before they sleep, since waking one costs
//   more. Where the threads of all ranks outnumber the cores, nobody looks: all sleep at once.
//   On a machine of several NUMA nodes each thread is bound to the cores of one (runtime/numa.h).
// Non-goals: queues, stealing, nesting.
// Thread-safety: a pool belongs to the thread that makes it: run(), of which it takes the first
//   part itself, and the destructor, which undoes its binding.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/numa.h"

namespace thermocline {

// A thread's waits by looking, each for microseconds at most. Looking stops for a while where it is
// of no use: another thread had this one's core, or several looks in a row were in vain.
class Lookout {
 public:
  // True once arrived() is; false if it is not yet.
  template <class Arrived>
  bool wait(const Arrived& arrived);

 private:
  void in_vain();

  int sleeps_left_ = 0;       // waits that do not look
  int vain_looks_ = 0;        // in a row
  long lost_core_count_ = 0;  // when it last looked in vain
};

// A count that threads wait for: asleep at once, and without a system call where nobody sleeps.
// std::atomic's own wait yields first, which costs a time slice where another thread has work.
class SharedCount {
 public:
  void set(uint32_t value) { value_ = value; }
  uint32_t increment() { return ++value_; }
  uint32_t decrement() { return --value_; }
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void sleep_while(uint32_t value);
  void wake_sleepers();  // after a change of the value

 private:
  std::atomic<uint32_t> value_ = 0;
  std::atomic<uint32_t> sleeper_count_ = 0;
};

class ThreadPool {
 public:
  // `rank`: which of the ranks on this machine, each with such a pool, this one belongs to.
  // `nodes`: the cores of each NUMA node.
  explicit ThreadPool(int thread_count, RankOnHost rank = {},
                      const std::vector<CoreList>& nodes = read_numa_nodes());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return thread_count_; }

  // Calls work(begin, end) for parts of [0, count) whose borders are multiples of `unit`, each on
  // its own thread; returns when all are done. An exception of a part is rethrown here.
  void run(int count, int unit, const std::function<void(int begin, int end)>& work);

 private:
  static constexpr size_t kCacheLine = 64;  // what threads wait for has a line of its own

  struct Job {
    const std::function<void(int, int)>* work = nullptr;
    int count = 0;
    int unit = 1;
  };

  // A pool of one never waits, and its caller may be another pool's too (a GPU's beside the
  // host's).
  int own_threads() const { return thread_count_ > 1 ? thread_count_ : 0; }
  void bind_caller(RankOnHost rank, const std::vector<CoreList>& nodes);
  void start_threads();
  void stop_threads();
  bool cores_suffice() const;
  void serve(int index);
  void run_part(int index);
  void join();

  alignas(kCacheLine) Job job_;
  const int thread_count_;
  int core_count_ = 1;           // that this process may use
  bool host_has_cores_ = false;  // for the threads of all its ranks
  bool closing_ = false;
  std::vector<CoreList> bound_;  // by thread; empty if none is
  CoreList caller_cores_;        // before it was bound; empty if it is not
  Lookout caller_lookout_;
  std::vector<std::thread> threads_;
  std::mutex error_mutex_;
  std::exception_ptr error_;  // the first one of a job

  alignas(kCacheLine) SharedCount generation_;  // jobs handed out
  alignas(kCacheLine) SharedCount running_;     // threads that work on the last one
};

}  // namespace thermocline
