// The matrix kernels on NVIDIA GPUs, and the little memory management that they need.
//
// Goals: the contracts of Kernels::matmul, matmul_masked and weighted_rows (runtime/kernels/
//   kernels.h) with every pointer in device memory and an explicit stream; no CUDA header needed to
//   call them. Results are the same for every run, row split, column split and token count on a
//   device, and equal to the CPU's within rounding (sums are taken in another order).
// Non-goals: choosing devices or placing weights (the runtime); a decoder's other kernels.
// Errors: functions that can fail return null for success, else CUDA's message.
// Thread-safety: as CUDA's runtime; calls act on the calling thread's current device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/dtype.h"

struct CUstream_st;

namespace thermocline {

using CudaStream = CUstream_st*;  // cudaStream_t
using CudaError = const char*;    // null: success

struct CudaDevice {
  char name[256];
  uint64_t memory_bytes;
  int compute_major, compute_minor;  // 8, 0: sm_80
  int multiprocessor_count;
};

// How many devices can be used. Where there are none, *reason says why; else it is null.
int cuda_device_count(const char** reason);
CudaError cuda_device(int index, CudaDevice* device);
CudaError cuda_use_device(int index);

CudaError cuda_stream_create(CudaStream* stream);
CudaError cuda_stream_destroy(CudaStream stream);
CudaError cuda_stream_wait(CudaStream stream);  // until all work given to it is done

CudaError cuda_allocate(uint64_t bytes, void** memory);
CudaError cuda_free(void* memory);
// Between host and device or within either, in the stream's order.
CudaError cuda_copy(void* to, const void* from, uint64_t bytes, CudaStream stream);

CudaError cuda_matmul(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                      const float* x, int x_stride, int token_count, float* y, int y_stride,
                      CudaStream stream);
CudaError cuda_matmul_masked(DType dtype, const std::byte* w, int cols, int row_begin, int row_end,
                             const uint64_t* mask, int mask_stride, const float* x, int x_stride,
                             int token_count, float* y, int y_stride, CudaStream stream);
// Every column is summed over kRowGroups (cuda_body.h) interleaved groups of rows, each ascending,
// and the groups are added in order.
CudaError cuda_weighted_rows(DType dtype, const std::byte* w, int rows, int cols, int col_begin,
                             int col_end, const uint64_t* mask, int mask_stride, const float* a,
                             int a_stride, int token_count, float* y, int y_stride,
                             CudaStream stream);

}  // namespace thermocline
