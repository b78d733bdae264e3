// CUDA's cuda_fp16.h on the host, as far as runtime/kernels/cuda_body.h uses it.
//
// Thread-safety: pure functions.
#pragma once

#include <cstring>

#include "models/half.h"

struct __half {
  unsigned short bits;
};

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline float __half2float(__half half) { return thermocline::of_f16(half.bits); }
