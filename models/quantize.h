// Rows of f32 to and from the element types of models/dtype.h.
//
// Goals: the reference of every format. Dequantised values are those of ggml's reference, bit for
//   bit; Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 are quantised to its bytes, K-quants with less squared
//   error than plain rounding (models/k_quants.h). The same bytes on every machine.
// Non-goals: fast arithmetic (runtime/kernels); NaN and infinity: quantised types have no code for
//   them, and what their block becomes is defined but means nothing. Callers look first with
//   first_non_finite, which says where.
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

// The index of the first NaN or infinity, or `count` where there is none.
uint64_t first_non_finite(const float* values, uint64_t count);
// The same of encoded elements; where a scale is not finite, the first of its block.
uint64_t first_non_finite(DType dtype, const std::byte* bytes, uint64_t count);

}  // namespace thermocline
