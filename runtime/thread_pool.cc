#include "runtime/thread_pool.h"

#include <algorithm>

namespace thermocline {

ThreadPool::ThreadPool(int thread_count) : thread_count_(std::max(thread_count, 1)) {
  for (int i = 1; i < thread_count_; ++i) threads_.emplace_back([this, i] { serve(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  started_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(int count, int unit, const std::function<void(int, int)>& work) {
  if (thread_count_ == 1) {
    if (count > 0) work(0, count);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    count_ = count;
    unit_ = unit;
    running_ = thread_count_ - 1;
    error_ = nullptr;
    ++generation_;
  }
  started_.notify_all();
  run_part(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return running_ == 0; });
  if (error_ != nullptr) std::rethrow_exception(error_);
}

void ThreadPool::serve(int index) {
  uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      started_.wait(lock, [&] { return closing_ || generation_ != seen; });
      if (closing_) return;
      seen = generation_;
    }
    run_part(index);
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) done_.notify_one();
  }
}

void ThreadPool::run_part(int index) {
  const int64_t units = (count_ + unit_ - 1) / unit_;
  const auto border = [&](int64_t i) {
    return std::min(count_, static_cast<int>(units * i / thread_count_) * unit_);
  };
  const int begin = border(index);
  const int end = border(index + 1);
  if (begin == end) return;
  try {
    (*work_)(begin, end);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (error_ == nullptr) error_ = std::current_exception();
  }
}

}  // namespace thermocline
