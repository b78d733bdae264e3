// Bits of f32, f16 and bf16, and whole values at any address.
//
// Goals: inline and free of branches, so that loops over rows vectorise; the same bits on every
//   machine. Non-goals: rows (models/quantize.h). Thread-safety: pure functions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thermocline {

template <class T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

template <class T>
void store(std::byte* bytes, T value) {
  std::memcpy(bytes, &value, sizeof(T));
}

// `yes` or `no` without a branch.
inline uint32_t choose(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = 0u - uint32_t{condition};
  return (yes & mask) | (no & ~mask);
}

inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

// IEEE 754 binary16 has 5 exponent bits (bias 15) and 10 of mantissa; binary32 has 8 (bias 127) and
// 23.
inline constexpr uint32_t kBiasShift = (127 - 15) << 23;
inline constexpr uint32_t kInfinity32 = 0x7f800000;
inline constexpr uint32_t kSmallestNormal16 = 0x38800000;  // 2^-14
inline constexpr uint32_t kOverflow16 = 0x477ff000;  // 65520, half a place above the largest half

inline float of_f16(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + kBiasShift;
  // Below 2^-14 the mantissa counts units of 2^-24.
  const uint32_t subnormal =
      bits_of(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t special = (magnitude << 13) | kInfinity32;
  const uint32_t finite = choose(magnitude < 0x0400, subnormal, normal);
  const uint32_t result = choose(magnitude < 0x7c00, finite, special);
  return float_of(result | (half & 0x8000u) << 16);
}

inline uint16_t f16_of(float value) {
  const uint32_t magnitude = bits_of(value) & 0x7fffffff;
  // Nearest even: add just under half of the last place, and one more where that place is odd.
  const uint32_t normal = (magnitude - kBiasShift + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // In [0.5, 1) a float's last place is 2^-24, that of subnormal halves: the addition rounds.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  const uint32_t finite = choose(magnitude < kSmallestNormal16, subnormal, normal);
  const uint32_t bounded = choose(magnitude < kOverflow16, finite, 0x7c00);
  const uint32_t nan = 0x7e00 | (magnitude >> 13 & 0x1ff);
  const uint32_t result = choose(magnitude > kInfinity32, nan, bounded);
  return static_cast<uint16_t>(result | (bits_of(value) >> 16 & 0x8000));
}

inline float of_bf16(uint16_t half) { return float_of(uint32_t{half} << 16); }

inline uint16_t bf16_of(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet_nan = bits >> 16 | 0x40;  // rounding could carry a NaN into infinity
  const bool is_nan = (bits & 0x7fffffff) > kInfinity32;
  return static_cast<uint16_t>(choose(is_nan, quiet_nan, nearest));
}

// Keeps the conversion to int defined whatever the value; NaN becomes `low`.
inline float clamped(float value, float low, float high) {
  const float raised = float_of(choose(value > low, bits_of(value), bits_of(low)));
  return float_of(choose(raised < high, bits_of(raised), bits_of(high)));
}

inline float inverse_of(float scale) { return scale != 0.0f ? 1.0f / scale : 0.0f; }

}  // namespace thermocline
