// Work that splits into independent parts: on several threads, or on this one.
//
// Goals: parts are handed out one by one, so that uneven ones balance; the first exception comes
//   back to the caller. Non-goals: a pool that lives on (runtime/thread_pool.h), an order of parts.
// Thread-safety: `work` is called from several threads at once.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace thermocline {

// Calls work(i) for i in [0, count) on up to `thread_count` threads, this one among them.
template <class Work>
void for_each_parallel(size_t count, uint32_t thread_count, Work work) {
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto run = [&] {
    try {
      for (size_t i; (i = next.fetch_add(1)) < count;) work(i);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (failure == nullptr) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min<size_t>(thread_count, count); ++i) threads.emplace_back(run);
    run();
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace thermocline
