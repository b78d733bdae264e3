// One block of 256 elements of Q4_K, Q5_K and Q6_K (models/dtype.h has the layouts).
//
// Goals: decode to the values of ggml's reference; encode with a search of our own for the scales
//   that make the squared error of a block small, the same bytes on every machine.
// Non-goals: ggml's bytes (its search is not part of the format); importance of elements; rows and
//   dispatch (models/quantize.h). Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thermocline {

inline constexpr int kSuperBlock = 256;

void encode_q4_k(const float* values, std::byte* out);
void encode_q5_k(const float* values, std::byte* out);
void encode_q6_k(const float* values, std::byte* out);

void decode_q4_k(const std::byte* bytes, float* out);
void decode_q5_k(const std::byte* bytes, float* out);
void decode_q6_k(const std::byte* bytes, float* out);

}  // namespace thermocline
