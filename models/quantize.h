// Rows of f32 to and from the element types of models/dtype.h.
//
// Goals: the reference of every format, exact to the format documents (ggml-common.h); quantised
//   types round as ggml's reference does. Non-goals: fast arithmetic (runtime/kernels).
// `count` is a multiple of the type's block. Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/dtype.h"

namespace thermocline {

float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value);  // round to nearest even
float bf16_to_f32(uint16_t bits);
uint16_t f32_to_bf16(float value);  // round to nearest even

void quantize(DType dtype, const float* values, uint64_t count, std::byte* out);
void dequantize(DType dtype, const std::byte* bytes, uint64_t count, float* out);

}  // namespace thermocline
