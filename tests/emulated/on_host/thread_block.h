// A thread block of a GPU on the host, for tests without a GPU.
//
// A block's threads are fibers, which run in turn and change at barriers and shuffles. A barrier
//   that not all threads reach ends the program. Shared memory that a block did not ask for is
//   poisoned for the address sanitizer; what it did ask for begins as NaNs.
// Goals: every index and every barrier as on a GPU. Non-goals: speed.
// Thread-safety: each thread runs blocks of its own.
#pragma once

#include <sanitizer/asan_interface.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
inline thread_local dim3 threadIdx, blockIdx, blockDim;

namespace on_host {

constexpr unsigned kWarpThreads = 32;
constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kSharedBytesMax = 163 << 10;  // of a block, on sm_80

struct Barrier {
  unsigned size = 0, arrived = 0, generation = 0;
};

#ifdef __x86_64__
// swapcontext asks the kernel for the signal mask, and the address sanitizer clears the shadow of
// the whole stack with it. A function saves no more than this, too.
using Context = void*;  // what the stack's pointer was when another went on
[[gnu::naked, gnu::noinline]] inline void change(Context& /*from, rdi*/, Context& /*to, rsi*/) {
  asm("push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
      "mov %rsp, (%rdi); mov (%rsi), %rsp\n"
      "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret");
}
// change() to it calls `run`, which never returns.
inline void begin(Context& context, std::byte* stack, void (*run)()) {
  const uintptr_t end = reinterpret_cast<uintptr_t>(stack + kStackBytes) / 16 * 16;
  const uintptr_t first[] = {0, 0, 0, 0, 0, 0, reinterpret_cast<uintptr_t>(run), 0};
  context = std::memcpy(reinterpret_cast<void*>(end - sizeof first), first, sizeof first);
}
#else
using Context = ucontext_t;
inline void change(Context& from, Context& to) { swapcontext(&from, &to); }
inline void begin(Context& context, std::byte* stack, void (*run)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  makecontext(&context, run, 0);
}
#endif

struct Fiber {
  Context context;
  std::unique_ptr<std::byte[]> stack = std::make_unique<std::byte[]>(kStackBytes);
  bool done = false;
  unsigned exchanges = 0;
};

// The block that runs now.
struct Block {
  Context scheduler;
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  Barrier all;
  std::vector<uint64_t> values[2];  // that warps exchange, by thread; two, used in turn
  std::function<void()> kernel;
  uint64_t progress = 0;  // counts barriers passed and threads ended
};
inline thread_local Block block;

inline void wait_at(Barrier& barrier) {
  const unsigned mine = barrier.generation;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    ++block.progress;
  }
  Fiber& fiber = block.fibers[threadIdx.x];
  while (barrier.generation == mine) change(fiber.context, block.scheduler);
}

// What each lane of this thread's warp gave.
inline const uint64_t* exchange(uint64_t value) {
  const unsigned thread = threadIdx.x, warp = thread / kWarpThreads;
  std::vector<uint64_t>& values = block.values[block.fibers[thread].exchanges++ % 2];
  values[thread] = value;
  wait_at(block.warps[warp]);
  return values.data() + warp * kWarpThreads;
}

// The value of another lane; a lane that there is not gives one's own.
template <class T>
T value_of_lane(T value, unsigned lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const uint64_t* values = exchange(bits);
  if (lane < kWarpThreads) std::memcpy(&value, values + lane, sizeof value);
  return value;
}

// Of one block after another, until the thread ends that runs them.
[[noreturn]] inline void run_fiber() {
  for (;;) {
    block.kernel();
    Fiber& fiber = block.fibers[threadIdx.x];
    fiber.done = true;
    ++block.progress;
    change(fiber.context, block.scheduler);
  }
}

inline void start_fibers(unsigned threads) {
  Block& b = block;
  if (b.fibers.size() < threads) {
    b.fibers = std::vector<Fiber>(threads);
    for (Fiber& fiber : b.fibers) begin(fiber.context, fiber.stack.get(), run_fiber);
  }
  b.all = {threads};
  b.warps.assign(threads / kWarpThreads, {kWarpThreads});
  for (auto& values : b.values) values.assign(threads, 0);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = b.fibers[i];
    fiber.done = false;
    fiber.exchanges = 0;
  }
}

inline void run_block(unsigned threads) {
  start_fibers(threads);
  for (unsigned left = threads; left > 0;) {
    const uint64_t before = block.progress;
    left = 0;
    for (unsigned i = 0; i < threads; ++i) {
      if (block.fibers[i].done) continue;
      threadIdx = dim3(i, 0, 0);
      change(block.scheduler, block.fibers[i].context);
      left += block.fibers[i].done ? 0 : 1;
    }
    if (left == 0 || block.progress != before) continue;
    std::fprintf(stderr, "threads wait at a barrier that others never reach\n");
    std::abort();
  }
}

// Calls kernel() as every thread of every block. shared: kSharedBytesMax bytes.
inline void run_grid(dim3 grid, unsigned threads, void* shared, size_t shared_bytes,
                     const std::function<void()>& kernel) {
  block.kernel = kernel;
  blockDim = dim3(threads);
  ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(shared) + shared_bytes,
                            kSharedBytesMax - shared_bytes);
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        std::memset(shared, 0xff, shared_bytes);
        run_block(threads);
      }
  ASAN_UNPOISON_MEMORY_REGION(shared, kSharedBytesMax);
}

}  // namespace on_host
