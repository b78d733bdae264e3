// What tiers on a GPU need beside the arithmetic: bundles to their places, and which candidates lie
// there.
#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {
namespace {

// A block takes a word of a token for each of its threads.
__global__ void __launch_bounds__(kThreads)
    intersect_kernel(CudaMask mask, const uint64_t* words, int word_count, uint64_t* out) {
  const int w = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const uint64_t token = blockIdx.y;
  if (w < word_count) out[token * word_count + w] = mask.words[token * mask.stride + w] & words[w];
}

// A block takes a row, a thread units of U of it, side by side with its neighbours'.
template <class U>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const U* from, uint64_t units, const uint32_t* places, U* to) {
  const U* row = from + blockIdx.x * units;
  U* place = to + places[blockIdx.x] * units;
  for (uint64_t u = threadIdx.x; u < units; u += kThreads) place[u] = row[u];
}

template <class U>
CudaError scatter(const void* from, uint64_t bytes, const uint32_t* places, int count, void* to,
                  CudaStream stream) {
  return launch(scatter_kernel<U>, dim3(static_cast<unsigned>(count)), kThreads, 0, stream,
                static_cast<const U*>(from), bytes / sizeof(U), places, static_cast<U*>(to));
}

bool in_quads(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % 16 == 0; }

}  // namespace

CudaError cuda_intersect(const CudaMask& mask, const uint64_t* words, int word_count,
                         int token_count, uint64_t* out, CudaStream stream) {
  if (token_count <= 0 || word_count <= 0) return nullptr;
  const dim3 grid(static_cast<unsigned>(ceil_div(word_count, kThreads)),
                  static_cast<unsigned>(token_count));
  return launch(intersect_kernel, grid, kThreads, 0, stream, mask, words, word_count, out);
}

CudaError cuda_scatter_rows(const void* from, uint64_t bytes, const uint32_t* places, int count,
                            void* to, CudaStream stream) {
  if (count <= 0 || bytes == 0) return nullptr;
  if (bytes % sizeof(float4) == 0 && in_quads(from) && in_quads(to))
    return scatter<float4>(from, bytes, places, count, to, stream);
  return scatter<uint16_t>(from, bytes, places, count, to, stream);
}

}  // namespace TC_CUDA_NAMESPACE
