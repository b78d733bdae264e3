// All CUDA sources in one host translation unit, in a namespace of their own. The folder
// tests/emulated/on_host comes first where headers are looked for: its cuda_runtime.h is used.
#include "tests/emulated/cuda.h"

#include <cuda_runtime.h>

#define TC_CUDA_NAMESPACE thermocline::emulated
#include "runtime/kernels/cuda_launch.h"

namespace thermocline::emulated {
thread_local float4 block_memory[on_host::kSharedBytesMax / sizeof(float4)];
}
void* on_host::shared_memory() { return thermocline::emulated::block_memory; }

#include "runtime/kernels/cuda_attention.cu"
#include "runtime/kernels/cuda_device.cu"
#include "runtime/kernels/cuda_elementwise.cu"
#include "runtime/kernels/cuda_gate_up.cu"
#include "runtime/kernels/cuda_multiply.cu"
#include "runtime/kernels/cuda_predict.cu"
#include "runtime/kernels/cuda_sum_rows.cu"
#include "runtime/kernels/cuda_tiers.cu"

// Not registered: nobody but tests should find it.
#undef THERMOCLINE_BACKEND
#define THERMOCLINE_BACKEND(name, summary, unusable, make) \
  const BackendEntry name##_entry { #name, summary, unusable, make }
#include "runtime/backends/cuda.cc"

namespace thermocline::test {

std::unique_ptr<Backend> make_emulated_cuda_backend() { return make_emulated_cuda_backend_on(0); }
std::unique_ptr<Backend> make_emulated_cuda_backend_on(int device) {
  return emulated::cuda_entry.make({1, {}, device});
}

LostGpu::LostGpu(int device, int64_t calls) : device_(device) { on_host::lose(device, calls); }
LostGpu::~LostGpu() { on_host::lose(device_, kNever); }
void LostGpu::lose_after(int64_t calls) const { on_host::lose(device_, calls); }
int64_t LostGpu::calls_left() const { return on_host::calls_left[device_]; }

}  // namespace thermocline::test
