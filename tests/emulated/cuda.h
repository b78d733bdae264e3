// The CUDA backend and its kernels, compiled for the host: what tests run where there is no GPU.
//
// Every thread of every block runs (tests/emulated/on_host/thread_block.h), thousands of times
// slower
//   than on a GPU: for small shapes.
// Thread-safety: as Backend's; several may work at once.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/backend.h"

namespace thermocline::test {

// Its threads are fibers, which sanitizers follow only in part: there, tests do without it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kEmulatesCuda = false;
#else
inline constexpr bool kEmulatesCuda = true;
#endif

std::unique_ptr<Backend> make_emulated_cuda_backend();
std::unique_ptr<Backend> make_emulated_cuda_backend_on(int device);  // there are two: 0, 1

// While it lives, emulated GPU `device` answers so many calls of CUDA's runtime and fails from then
// on, as one that fell off the bus does.
class LostGpu {
 public:
  static constexpr int64_t kNever = INT64_MAX;

  LostGpu(int device, int64_t calls);
  ~LostGpu();
  LostGpu(const LostGpu&) = delete;
  LostGpu& operator=(const LostGpu&) = delete;
  void lose_after(int64_t calls) const;
  int64_t calls_left() const;  // below zero: so many have failed

 private:
  int device_;
};

}  // namespace thermocline::test
