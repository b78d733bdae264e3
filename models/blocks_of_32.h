// One block of 32 elements of Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 (models/dtype.h has the layouts).
//
// Goals: encode to the bytes that ggml's reference makes of finite values, decode to its values.
// Non-goals: rows and dispatch (models/quantize.h). Thread-safety: pure functions.
#pragma once

#include <cstddef>

namespace thermocline {

void encode_q8_0(const float* values, std::byte* out);
void encode_q4_0(const float* values, std::byte* out);
void encode_q4_1(const float* values, std::byte* out);
void encode_q5_0(const float* values, std::byte* out);
void encode_q5_1(const float* values, std::byte* out);

void decode_q8_0(const std::byte* bytes, float* out);
void decode_q4_0(const std::byte* bytes, float* out);
void decode_q4_1(const std::byte* bytes, float* out);
void decode_q5_0(const std::byte* bytes, float* out);
void decode_q5_1(const std::byte* bytes, float* out);

}  // namespace thermocline
