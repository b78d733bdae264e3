// Launches, reductions and memory; what each thread computes is in cuda_body.h.
#include "runtime/kernels/cuda.h"

#include <cuda_runtime.h>

#define TC_DEVICE __host__ __device__
#include "runtime/kernels/cuda_body.h"

namespace thermocline {
namespace {

constexpr int kRowsPerBlock = 8;  // one warp each
constexpr int kTokensPerWarp = 4;

CudaError message(cudaError_t status) {
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

// The sum over a warp's lanes, in lane 0: 16 + 16, 8 + 8, ..., always in this order.
__device__ float warp_sum(float value) {
  for (int half = kWarp / 2; half > 0; half /= 2) value += __shfl_down_sync(~0u, value, half);
  return value;
}

// A warp takes one row and T tokens. Without a mask every token is wanted.
template <DType D, int T>
__global__ void __launch_bounds__(kWarp* kRowsPerBlock)
    matmul_kernel(const std::byte* w, size_t row_stride, int cols, int row_begin, int row_end,
                  const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                  int token_count, float* y, int y_stride) {
  const int row = row_begin + blockIdx.x * kRowsPerBlock + threadIdx.y;
  if (row >= row_end) return;
  const size_t first = static_cast<size_t>(blockIdx.y) * T;
  unsigned wanted = 0;
  for (int t = 0; t < T && first + t < token_count; ++t)
    if (mask == nullptr || bit_is_set(mask + (first + t) * mask_stride, row)) wanted |= 1u << t;
  if (wanted == 0) return;
  float sums[T];
  lane_sums<D, T>(w + row * row_stride, cols, threadIdx.x, x + first * x_stride, x_stride, wanted,
                  sums);
  for (int t = 0; t < T; ++t) {
    const float sum = warp_sum(sums[t]);
    if (threadIdx.x == 0 && (wanted >> t & 1) != 0) y[(first + t) * y_stride + row] = sum;
  }
}

// A thread block takes kUnitsPerTile units of one token; its groups of rows meet in shared memory.
template <DType D>
__global__ void __launch_bounds__(kUnitsPerTile* kRowGroups)
    weighted_rows_kernel(const std::byte* w, size_t row_stride, int rows, int cols,
                         const uint64_t* mask, int mask_stride, const float* a, int a_stride,
                         float* y, int y_stride) {
  __shared__ float partial[kRowGroups][kUnitsPerTile * kUnit];
  const size_t token = blockIdx.y;
  const int first_unit = blockIdx.x * kUnitsPerTile;
  float sums[kUnit];
  group_sums<D>(w, row_stride, rows, cols, first_unit + threadIdx.x, threadIdx.y,
                mask + token * mask_stride, a + token * a_stride, sums);
  for (int i = 0; i < kUnit; ++i) partial[threadIdx.y][threadIdx.x * kUnit + i] = sums[i];
  __syncthreads();
  const int id = threadIdx.y * kUnitsPerTile + threadIdx.x;
  if (id >= kUnitsPerTile * kUnit) return;
  const int c = unit_column<D>(first_unit + id / kUnit, id % kUnit);
  if (c >= cols) return;
  float sum = 0;
  for (int group = 0; group < kRowGroups; ++group) sum += partial[group][id];
  y[token * y_stride + c] += sum;
}

template <DType D>
CudaError launch_matmul(const std::byte* w, int cols, int row_begin, int row_end,
                        const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                        int token_count, float* y, int y_stride, CudaStream stream) {
  if (row_begin >= row_end || token_count <= 0) return nullptr;
  const int tokens = token_count == 1 ? 1 : kTokensPerWarp;
  const dim3 grid((row_end - row_begin + kRowsPerBlock - 1) / kRowsPerBlock,
                  (token_count + tokens - 1) / tokens);
  const auto kernel = tokens == 1 ? matmul_kernel<D, 1> : matmul_kernel<D, kTokensPerWarp>;
  kernel<<<grid, dim3(kWarp, kRowsPerBlock), 0, stream>>>(w, bytes_of(D, cols), cols, row_begin,
                                                          row_end, mask, mask_stride, x, x_stride,
                                                          token_count, y, y_stride);
  return message(cudaGetLastError());
}

template <DType D>
CudaError launch_weighted_rows(const std::byte* w, int rows, int cols, int col_begin, int col_end,
                               const uint64_t* mask, int mask_stride, const float* a, int a_stride,
                               int token_count, float* y, int y_stride, CudaStream stream) {
  const int width = col_end - col_begin;
  if (width <= 0 || rows <= 0 || token_count <= 0) return nullptr;
  const dim3 grid((unit_count(width) + kUnitsPerTile - 1) / kUnitsPerTile, token_count);
  weighted_rows_kernel<D><<<grid, dim3(kUnitsPerTile, kRowGroups), 0, stream>>>(
      w + bytes_of(D, col_begin), bytes_of(D, cols), rows, width, mask, mask_stride, a, a_stride,
      y + col_begin, y_stride);
  return message(cudaGetLastError());
}

// One entry per element type, in the order of DType.
constexpr decltype(&launch_matmul<DType::f32>) kMatmulOf[] = {
    launch_matmul<DType::f32>,  launch_matmul<DType::f16>,  launch_matmul<DType::bf16>,
    launch_matmul<DType::q8_0>, launch_matmul<DType::q4_0>, launch_matmul<DType::q4_1>,
    launch_matmul<DType::q5_0>, launch_matmul<DType::q5_1>, launch_matmul<DType::q4_k>,
    launch_matmul<DType::q5_k>, launch_matmul<DType::q6_k>};
static_assert(sizeof kMatmulOf / sizeof kMatmulOf[0] == kDTypeCount);
constexpr decltype(&launch_weighted_rows<DType::f32>) kWeightedRowsOf[] = {
    launch_weighted_rows<DType::f32>,  launch_weighted_rows<DType::f16>,
    launch_weighted_rows<DType::bf16>, launch_weighted_rows<DType::q8_0>,
    launch_weighted_rows<DType::q4_0>, launch_weighted_rows<DType::q4_1>,
    launch_weighted_rows<DType::q5_0>, launch_weighted_rows<DType::q5_1>,
    launch_weighted_rows<DType::q4_k>, launch_weighted_rows<DType::q5_k>,
    launch_weighted_rows<DType::q6_k>};
static_assert(sizeof kWeightedRowsOf / sizeof kWeightedRowsOf[0] == kDTypeCount);

}  // namespace

int cuda_device_count(const char** reason) {
  int count = 0, driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  *reason = nullptr;
  if (status == cudaSuccess && count > 0) return count;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    *reason = "no NVIDIA driver is installed";
  else
    *reason = status == cudaSuccess ? "the driver lists no device" : cudaGetErrorString(status);
  return 0;
}

CudaError cuda_device(int index, CudaDevice* device) {
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, index);
  if (status != cudaSuccess) return message(status);
  static_assert(sizeof device->name == sizeof properties.name);
  memcpy(device->name, properties.name, sizeof device->name);
  device->memory_bytes = properties.totalGlobalMem;
  device->compute_major = properties.major;
  device->compute_minor = properties.minor;
  device->multiprocessor_count = properties.multiProcessorCount;
  return nullptr;
}

CudaError cuda_use_device(int index) { return message(cudaSetDevice(index)); }
CudaError cuda_stream_create(CudaStream* stream) { return message(cudaStreamCreate(stream)); }
CudaError cuda_stream_destroy(CudaStream stream) { return message(cudaStreamDestroy(stream)); }
CudaError cuda_stream_wait(CudaStream stream) { return message(cudaStreamSynchronize(stream)); }
CudaError cuda_allocate(uint64_t bytes, void** memory) {
  return message(cudaMalloc(memory, bytes));
}
CudaError cuda_free(void* memory) { return message(cudaFree(memory)); }
CudaError cuda_copy(void* to, const void* from, uint64_t bytes, CudaStream stream) {
  return message(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
}

CudaError cuda_matmul(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                      const float* x, int x_stride, int token_count, float* y, int y_stride,
                      CudaStream stream) {
  return kMatmulOf[static_cast<int>(dtype)](w, cols, row_begin, row_end, nullptr, 0, x, x_stride,
                                            token_count, y, y_stride, stream);
}

CudaError cuda_matmul_masked(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                             const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                             int token_count, float* y, int y_stride, CudaStream stream) {
  return kMatmulOf[static_cast<int>(dtype)](w, cols, row_begin, row_end, mask, mask_stride, x,
                                            x_stride, token_count, y, y_stride, stream);
}

CudaError cuda_weighted_rows(DType dtype, const std::byte* w, int rows, int cols, int col_begin,
                             int col_end, const uint64_t* mask, int mask_stride, const float* a,
                             int a_stride, int token_count, float* y, int y_stride,
                             CudaStream stream) {
  return kWeightedRowsOf[static_cast<int>(dtype)](w, rows, cols, col_begin, col_end, mask,
                                                  mask_stride, a, a_stride, token_count, y,
                                                  y_stride, stream);
}

}  // namespace thermocline
