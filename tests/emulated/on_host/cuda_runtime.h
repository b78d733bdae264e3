// CUDA's runtime on the host, as far as runtime/kernels/cuda_*.cu use it, for tests without a GPU.
//
// Work is done when it is queued, or recorded while a stream is captured. "Device" memory is a heap
//   block of its own for each allocation, full of NaNs, so that an address sanitizer sees what lies
//   outside. Who includes it defines on_host_shared_memory, kSharedBytesMax bytes.
// There are two devices. One may be lost (on_host::lose): then every call on it fails.
// Goals: the same results as on a GPU, but for the rounding of exp, sin and cos.
// Thread-safety: any thread may use it; what one captures is its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/emulated/on_host/thread_block.h"

#define __global__
#define __device__
#define __host__
#define __shared__ thread_local
#define __launch_bounds__(...)

struct alignas(16) float4 {
  float x, y, z, w;
};

inline void __syncthreads() { on_host::wait_at(on_host::block.all); }
template <class T>
T __shfl_down_sync(unsigned, T value, int by) {
  return on_host::value_of_lane(value, threadIdx.x % on_host::kWarpThreads + by);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int with) {
  return on_host::value_of_lane(value, threadIdx.x % on_host::kWarpThreads ^ with);
}
inline unsigned __ballot_sync(unsigned, bool yes) {
  const uint64_t* values = on_host::exchange(yes);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < on_host::kWarpThreads; ++lane)
    bits |= static_cast<unsigned>(values[lane]) << lane;
  return bits;
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i)
    chosen |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
  return chosen;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

enum cudaError_t {
  cudaSuccess,
  cudaErrorMemoryAllocation,
  cudaErrorInvalidDevice,
  cudaErrorNotReady,
  cudaErrorLaunchFailure
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaStreamNonBlocking };
enum { cudaStreamCaptureModeThreadLocal, cudaHostAllocDefault };
enum { cudaMemcpyDefault, cudaMemcpyHostToDevice };

namespace on_host {
using Work = std::vector<std::function<void()>>;
inline thread_local Work* recorded = nullptr;  // of the graph that is captured; null: none is
void* shared_memory();

constexpr int kDevices = 2;
inline thread_local int device = 0;  // that this thread's calls are about
inline std::atomic<int64_t> calls_left[kDevices] = {INT64_MAX, INT64_MAX};  // until it is lost

// From its call number `calls` on, every call on the device fails.
inline void lose(int which, int64_t calls) { calls_left[which] = calls; }

// Every call of the runtime asks once whether its device still answers.
inline cudaError_t answer() {
  return calls_left[device].fetch_sub(1) > 0 ? cudaSuccess : cudaErrorLaunchFailure;
}
template <class Do>
cudaError_t call(Do perform) {
  const cudaError_t status = answer();
  return status == cudaSuccess ? perform() : status;
}

inline cudaError_t queue(std::function<void()> work) {
  if (const cudaError_t status = answer(); status != cudaSuccess) return status;
  if (recorded != nullptr)
    recorded->push_back(std::move(work));
  else
    work();
  return cudaSuccess;
}

constexpr size_t kDeviceBytes = size_t{1} << 30;
constexpr size_t kAlignment = 64;

inline cudaError_t allocate(void** memory, size_t bytes) {
  if (const cudaError_t status = answer(); status != cudaSuccess) return status;
  if (bytes > kDeviceBytes) return cudaErrorMemoryAllocation;
  *memory = ::operator new (bytes, std::align_val_t{kAlignment});
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t release(void* memory) {  // also what a lost device had: it is the host's here
  ::operator delete (memory, std::align_val_t{kAlignment});
  return answer();
}
}  // namespace on_host

using cudaStream_t = struct CUstream_st*;
struct CUgraphExec_st {
  on_host::Work work;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point reached;
};
using cudaEvent_t = CUevent_st*;
using cudaGraph_t = on_host::Work*;
using cudaGraphExec_t = CUgraphExec_st*;
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

inline const char* cudaGetErrorString(cudaError_t status) {
  if (status == cudaErrorLaunchFailure) return "unspecified launch failure";
  return status == cudaErrorMemoryAllocation ? "out of memory" : "invalid device";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  return *count = on_host::kDevices, cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 1, cudaSuccess; }
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  if (index >= on_host::kDevices) return cudaErrorInvalidDevice;
  *properties = {"emulated GPU", on_host::kDeviceBytes, 9, 0, 1};
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int index) {
  if (index >= on_host::kDevices) return cudaErrorInvalidDevice;
  on_host::device = index;
  return on_host::answer();
}
inline cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = on_host::kDeviceBytes;
  return on_host::answer();
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, int) {
  *stream = nullptr;
  return on_host::answer();
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return on_host::answer(); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return on_host::answer(); }
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return on_host::call([&] { return *event = new CUevent_st, cudaSuccess; });
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, on_host::answer(); }
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  return on_host::queue([=] { event->reached = std::chrono::steady_clock::now(); });
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return on_host::answer(); }
inline cudaError_t cudaEventQuery(cudaEvent_t) { return on_host::answer(); }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t first, cudaEvent_t second) {
  *ms = std::chrono::duration<float, std::milli>(second->reached - first->reached).count();
  return on_host::answer();
}
inline cudaError_t cudaMalloc(void** memory, size_t n) { return on_host::allocate(memory, n); }
inline cudaError_t cudaFree(void* memory) { return on_host::release(memory); }
inline cudaError_t cudaHostAlloc(void** memory, size_t n, int) {
  return on_host::allocate(memory, n);
}
inline cudaError_t cudaFreeHost(void* memory) { return on_host::release(memory); }
inline cudaError_t cudaMemsetAsync(void* memory, int byte, size_t n, cudaStream_t) {
  return on_host::queue([=] { std::memset(memory, byte, n); });
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, int, cudaStream_t) {
  return on_host::queue([=] { std::memcpy(to, from, n); });
}
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_stride, const void* from,
                                     size_t from_stride, size_t n, size_t rows, int, cudaStream_t) {
  return on_host::queue([=] {
    for (size_t r = 0; r < rows; ++r)
      std::memcpy(static_cast<std::byte*>(to) + r * to_stride,
                  static_cast<const std::byte*>(from) + r * from_stride, n);
  });
}

inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
  return on_host::call([] { return on_host::recorded = new on_host::Work, cudaSuccess; });
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = std::exchange(on_host::recorded, nullptr);
  return on_host::answer();
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, int) {
  return on_host::call([&] { return *exec = new CUgraphExec_st{*graph}, cudaSuccess; });
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  return on_host::call([&] {
    for (const auto& work : exec->work) work();
    return cudaSuccess;
  });
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int bytes) {
  return bytes <= static_cast<int>(on_host::kSharedBytesMax) ? cudaSuccess : cudaErrorInvalidDevice;
}
template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               std::type_identity_t<Parameters>... arguments) {
  return on_host::queue([=, config = *config] {
    on_host::run_grid(config.gridDim, config.blockDim.x, on_host::shared_memory(),
                      config.dynamicSmemBytes, [&] { kernel(arguments...); });
  });
}
