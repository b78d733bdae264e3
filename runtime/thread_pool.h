// ThreadPool: a rank's threads, which sleep between jobs (ranks share cores: nobody spins).
//
// Goals: split a range into one contiguous part a thread; results never depend on the split.
// Non-goals: queues, stealing, nesting.
// Thread-safety: run() belongs to one thread, which takes the first part itself.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace thermocline {

class ThreadPool {
 public:
  explicit ThreadPool(int thread_count);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return thread_count_; }

  // Calls work(begin, end) for parts of [0, count) whose borders are multiples of `unit`, each on
  // its own thread; returns when all are done. An exception of a part is rethrown here.
  void run(int count, int unit, const std::function<void(int begin, int end)>& work);

 private:
  void serve(int index);
  void run_part(int index);

  int thread_count_;
  std::mutex mutex_;
  std::condition_variable started_, done_;
  const std::function<void(int, int)>* work_ = nullptr;
  std::exception_ptr error_;
  int count_ = 0;
  int unit_ = 1;
  uint64_t generation_ = 0;
  int running_ = 0;
  bool closing_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace thermocline
