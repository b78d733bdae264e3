// What activation predictors compute: rows whose signs agree with an input's, relu, and scores that
// reach a threshold.
#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {
namespace {

constexpr int kByteRows = 8;                    // rows of a warp: a byte of bits
constexpr int kBlockRows = kWarps * kByteRows;  // rows of a block: a word of bits

// A block takes a token, a warp 32 columns at a time: half a word of signs.
__global__ void __launch_bounds__(kThreads)
    signs_kernel(const float* x, int cols, int halves, uint32_t* signs) {
  const float* row = x + static_cast<size_t>(blockIdx.x) * cols;
  const int lane = threadIdx.x % kWarp;
  for (int half = threadIdx.x / kWarp; half < halves; half += kWarps) {
    const int c = half * kWarp + lane;
    const unsigned negative = __ballot_sync(~0u, c < cols && row[c] < 0);
    if (lane == 0) signs[static_cast<size_t>(blockIdx.x) * halves + half] = negative;
  }
}

// A block takes 64 rows for a token, a warp eight of them, whose bits are a byte.
__global__ void __launch_bounds__(kThreads)
    match_kernel(const uint32_t* signs, int rows, int halves, const uint32_t* x, int differing_max,
                 uint8_t* bits, uint64_t stride_bytes) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int byte = static_cast<int>(blockIdx.x) * kWarps + warp;
  const uint32_t* token = x + static_cast<size_t>(blockIdx.y) * halves;
  unsigned found = 0;
  for (int i = 0; i < kByteRows; ++i) {
    const int r = byte * kByteRows + i;
    if (r >= rows) break;  // the whole warp
    const uint32_t* row = signs + static_cast<size_t>(r) * halves;
    int differing = 0;
    for (int h = lane; h < halves; h += kWarp) differing += __popc(row[h] ^ token[h]);
#pragma unroll
    for (int with = kWarp / 2; with > 0; with /= 2)
      differing += __shfl_xor_sync(~0u, differing, with);
    if (differing <= differing_max) found |= 1u << i;
  }
  if (lane == 0) bits[blockIdx.y * stride_bytes + byte] = static_cast<uint8_t>(found);
}

__global__ void __launch_bounds__(kThreads) relu_kernel(float* x, uint64_t count) {
  const uint64_t i = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] = x[i] > 0 ? x[i] : 0;
}

// A warp takes 32 scores of a token: half a word of bits.
__global__ void __launch_bounds__(kThreads)
    reach_kernel(const float* scores, int width, int halves, float threshold, uint32_t* bits,
                 uint64_t stride_halves) {
  const int lane = threadIdx.x % kWarp;
  const int half = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int i = half * kWarp + lane;
  const float* row = scores + static_cast<size_t>(blockIdx.y) * width;
  const unsigned reached = __ballot_sync(~0u, i < width && row[i] >= threshold);
  if (lane == 0 && half < halves) bits[blockIdx.y * stride_halves + half] = reached;
}

}  // namespace

CudaError cuda_match_signs(const CudaSigns& call, int token_count, float* scratch,
                           uint64_t scratch_floats, CudaStream stream) {
  if (token_count <= 0 || call.rows <= 0) return nullptr;
  const int halves = ceil_div(call.cols, 2 * kWarp) * 2;
  auto* x_signs = reinterpret_cast<uint32_t*>(scratch);
  const uint64_t fitting = scratch_floats / static_cast<uint64_t>(halves);
  const int at_once = static_cast<int>(
      fitting < static_cast<uint64_t>(token_count) ? fitting : static_cast<uint64_t>(token_count));
  for (int first = 0; first < token_count; first += at_once) {
    const int left = token_count - first;
    const auto count = static_cast<unsigned>(left < at_once ? left : at_once);
    const CudaError error =
        launch(signs_kernel, dim3(count), kThreads, 0, stream,
               call.x + static_cast<size_t>(first) * call.cols, call.cols, halves, x_signs);
    if (error != nullptr) return error;
    auto* bits = reinterpret_cast<uint8_t*>(call.bits + first * call.stride);
    const CudaError matched =
        launch(match_kernel, dim3(static_cast<unsigned>(ceil_div(call.rows, kBlockRows)), count),
               kThreads, 0, stream, reinterpret_cast<const uint32_t*>(call.signs), call.rows,
               halves, x_signs, call.differing_max, bits, 8 * call.stride);
    if (matched != nullptr) return matched;
  }
  return nullptr;
}

CudaError cuda_relu(float* x, uint64_t count, CudaStream stream) {
  if (count == 0) return nullptr;
  return launch(relu_kernel, dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)),
                kThreads, 0, stream, x, count);
}

CudaError cuda_mark_reached(const float* scores, int width, float threshold, int token_count,
                            uint64_t* bits, uint64_t stride, CudaStream stream) {
  if (token_count <= 0 || width <= 0) return nullptr;
  const int halves = ceil_div(width, 2 * kWarp) * 2;
  const dim3 grid(static_cast<unsigned>(ceil_div(halves, kWarps)),
                  static_cast<unsigned>(token_count));
  return launch(reach_kernel, grid, kThreads, 0, stream, scores, width, halves, threshold,
                reinterpret_cast<uint32_t*>(bits), 2 * stride);
}

}  // namespace TC_CUDA_NAMESPACE
