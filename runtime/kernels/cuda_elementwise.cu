// embed, rms_norm and add.
#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {
namespace {

// A block takes a token; a thread takes units of its row, which may begin anywhere even.
template <DType D>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(Rows table, uint32_t first_token, const CudaTokenRow* tokens, float* x) {
  // A token before the first wraps around, to a row that there is not.
  const uint32_t row = static_cast<uint32_t>(tokens[blockIdx.x].token) - first_token;
  const bool here = row < static_cast<uint32_t>(table.rows);
  float* out = x + static_cast<size_t>(blockIdx.x) * table.cols;
  for (int u = threadIdx.x; u < unit_count<D>(table.cols); u += kThreads) {
    Unit<D> unit = {};
    if (here) unit = load_unit<D, false>(table.row(static_cast<int>(row)), table.cols, u);
    const Scales<D> scales = scales_of<D>(unit, u);
#pragma unroll
    for (int quad = 0; quad < kQuads<D>; ++quad) {
      float w[kQuad];
      decode_quad<D>(unit, scales, u, quad, w);
#pragma unroll
      for (int e = 0; e < kQuad; ++e)
        if (const int c = column_of<D>(u, quad) + e; c < table.cols) out[c] = here ? w[e] : 0;
    }
  }
}

__device__ inline double warp_sum_f64(double value) {
  for (int half = kWarp / 2; half > 0; half /= 2) value += __shfl_down_sync(~0u, value, half);
  return value;
}

// A block takes a token.
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(const float* x, const float* weight, int dim, float epsilon, float* y) {
  __shared__ double sums[kWarps];
  __shared__ float scale;
  x += static_cast<size_t>(blockIdx.x) * dim;
  y += static_cast<size_t>(blockIdx.x) * dim;
  double sum = 0;
  for (int i = threadIdx.x; i < dim; i += kThreads) sum += static_cast<double>(x[i]) * x[i];
  sum = warp_sum_f64(sum);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    for (int warp = 0; warp < kWarps; ++warp) total += sums[warp];
    scale = static_cast<float>(1.0 / sqrt(total / dim + epsilon));
  }
  __syncthreads();
  for (int i = threadIdx.x; i < dim; i += kThreads) y[i] = x[i] * scale * weight[i];
}

__global__ void __launch_bounds__(kThreads) add_kernel(float* x, const float* y, uint64_t count) {
  const uint64_t i = static_cast<uint64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) x[i] += y[i];
}

}  // namespace

CudaError cuda_embed(const WeightView& table, uint32_t first_token, const CudaTokenRow* rows,
                     int token_count, float* x, CudaStream stream) {
  if (token_count <= 0 || table.cols <= 0) return nullptr;
  return for_type(table.dtype, [&]<DType D>() {
    return launch(embed_kernel<D>, dim3(static_cast<unsigned>(token_count)), kThreads, 0, stream,
                  rows_of(table), first_token, rows, x);
  });
}

CudaError cuda_rms_norm(const float* x, const float* weight, int dim, float epsilon,
                        int token_count, float* y, CudaStream stream) {
  if (token_count <= 0 || dim <= 0) return nullptr;
  return launch(rms_norm_kernel, dim3(static_cast<unsigned>(token_count)), kThreads, 0, stream, x,
                weight, dim, epsilon, y);
}

CudaError cuda_add(float* x, const float* y, uint64_t count, CudaStream stream) {
  if (count == 0) return nullptr;
  return launch(add_kernel, dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)),
                kThreads, 0, stream, x, y, count);
}

}  // namespace TC_CUDA_NAMESPACE
