// Magnitudes of gates, in fewer bits than a float.
//
// log8: a byte on a logarithmic scale, ten codes an octave. 0 is zero; code c > 0 stands for
//   2^((c - 1) / 10 - 17), so that a magnitude in [7.6e-6, 341] comes back within 3.6 %. Smaller
//   ones come back as 0, larger ones as the largest. Llama-2-70B's magnitudes lie between 3e-5
//   (first layer, 25th percentile) and 0.4 (last layer, 90th): activations.md section 3.3.
// f16: IEEE 754 binary16.
// A code decoded and encoded again is the same code.
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "traces/trace.h"

namespace thermocline {

// Magnitudes are finite and not negative; NaN becomes 0.
uint8_t log8_of(float magnitude);
float magnitude_of_log8(uint8_t code);
// What no magnitude of this code is above, and all of the next code are.
float end_of_log8(uint8_t code);

// Bytes that a magnitude takes in this format; format is not none.
constexpr uint64_t bytes_of(MagnitudeFormat format) {
  return format == MagnitudeFormat::f16 ? 2 : 1;
}
// `count` magnitudes to bytes_of(format) each, and back.
void encode(const float* magnitudes, uint64_t count, MagnitudeFormat format, std::byte* stored);
void decode(const std::byte* stored, uint64_t count, MagnitudeFormat format, float* magnitudes);

// "none", "log8", "f16".
std::string_view name_of(MagnitudeFormat format);
// Usage Error with the valid names.
MagnitudeFormat magnitude_format_by_name(std::string_view name);

}  // namespace thermocline
