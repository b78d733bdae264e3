// How kernels are launched, and what thread blocks share.
//
// Goals: launches in ordinary C++, so that a stand-in for CUDA's runtime can take them as well.
// Non-goals: what kernels compute. Thread-safety: as CUDA's runtime.
#pragma once

#include <cuda_runtime.h>

#include "runtime/kernels/cuda_body.h"

namespace TC_CUDA_NAMESPACE {

inline constexpr int kWarps = 8;  // of a thread block
inline constexpr int kThreads = kWarps * kWarp;

// The shared memory that a launch asks for.
extern __shared__ float4 block_memory[];

inline CudaError message(cudaError_t status) {
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

template <class... Parameters, class... Arguments>
CudaError launch(void (*kernel)(Parameters...), dim3 grid, int block, uint64_t shared_bytes,
                 CudaStream stream, const Arguments&... arguments) {
  constexpr uint64_t kSharedBytesUnasked = 48 << 10;
  if (shared_bytes > kSharedBytesUnasked) {
    const cudaError_t status = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (status != cudaSuccess) return message(status);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(block));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return message(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

// Calls with_type.operator()<D>() for the type.
template <class WithType>
CudaError for_type(DType dtype, WithType with_type) {
  switch (dtype) {
    case DType::f32:
      return with_type.template operator()<DType::f32>();
    case DType::f16:
      return with_type.template operator()<DType::f16>();
    case DType::bf16:
      return with_type.template operator()<DType::bf16>();
    case DType::q8_0:
      return with_type.template operator()<DType::q8_0>();
    case DType::q4_0:
      return with_type.template operator()<DType::q4_0>();
    case DType::q4_1:
      return with_type.template operator()<DType::q4_1>();
    case DType::q5_0:
      return with_type.template operator()<DType::q5_0>();
    case DType::q5_1:
      return with_type.template operator()<DType::q5_1>();
    case DType::q4_k:
      return with_type.template operator()<DType::q4_k>();
    case DType::q5_k:
      return with_type.template operator()<DType::q5_k>();
    case DType::q6_k:
      return with_type.template operator()<DType::q6_k>();
  }
  return "an element type that there is not";
}

// What kernels know of a WeightView.
struct Rows {
  const std::byte* data;
  uint64_t stride;
  int rows, cols;

  __device__ const std::byte* row(int r) const { return data + static_cast<uint64_t>(r) * stride; }
};

inline Rows rows_of(const WeightView& w) { return {w.data, w.stride, w.rows, w.cols}; }

// The same where rows may lie in any order of places: those of tiers.
struct PlacedRows {
  Rows in_order;
  const uint32_t* places;  // (rows); null: in order
  int rows, cols;

  __device__ const std::byte* row(int r) const {
    return in_order.row(places != nullptr ? static_cast<int>(places[r]) : r);
  }
};

inline PlacedRows placed_rows_of(const WeightView& w) {
  return {rows_of(w), w.places, w.rows, w.cols};
}

// Whether every row begins at a multiple of 16 bytes and is made of whole units.
template <DType D>
bool is_aligned(const WeightView& w) {
  return reinterpret_cast<uintptr_t>(w.data) % 16 == 0 && w.stride % 16 == 0 &&
         w.cols % kUnitColumns<D> == 0;
}

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// The sum over a warp's lanes, in lane 0: 16 + 16, 8 + 8, ..., always in this order.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) value += __shfl_down_sync(~0u, value, half);
  return value;
}

}  // namespace TC_CUDA_NAMESPACE
