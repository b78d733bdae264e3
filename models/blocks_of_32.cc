#include "models/blocks_of_32.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "models/dtype.h"
#include "models/half.h"
#include "models/lanes.h"

namespace thermocline {
namespace {

constexpr int kBlock = 32;
constexpr int kHalf = kBlock / 2;

Extremes range_of(const float* values) {
  constexpr float kMax = std::numeric_limits<float>::max();
  return extremes<kBlock>(values, {kMax, -kMax});
}

// The value with the largest magnitude, with its sign; of two equal magnitudes the first.
float signed_peak(const float* values) {
  const auto [low, high] = extremes<kBlock>(values, {0, 0});
  if (high > -low) return high;
  if (high < -low) return low;
  const auto is_peak = [peak = high](float value) { return std::fabs(value) == peak; };
  return high == 0.0f ? 0.0f : *std::find_if(values, values + kBlock, is_peak);
}

// Half away from zero, as roundf does. Adding the float below one half keeps what is just below a
// half down, and a half itself rounds up in the sum. For magnitudes below 2^22.
inline int rounded(float value) {
  const uint32_t sign = bits_of(value) & 0x80000000;
  return static_cast<int>(value + float_of(sign | bits_of(0x1.fffffep-2f)));
}

// Codes of `kBits` bits: the low four of elements j and j + 16 share byte j, the fifth bits follow
// one another in a word before them.
template <int kBits>
void pack_codes(const int* codes, std::byte* out) {
  if constexpr (kBits == 5) {
    uint32_t fifths = 0;
    for (int i = 0; i < kBlock; ++i) fifths |= static_cast<uint32_t>(codes[i] >> 4) << i;
    store(out, fifths);
    out += sizeof fifths;
  }
  uint8_t packed[kHalf];
  for (int i = 0; i < kHalf; ++i) {
    packed[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + kHalf] & 15) << 4);
  }
  std::memcpy(out, packed, sizeof packed);
}

template <int kBits>
void unpack_codes(const std::byte* bytes, int* codes) {
  uint32_t fifths = 0;
  if constexpr (kBits == 5) {
    fifths = load<uint32_t>(bytes);
    bytes += sizeof fifths;
  }
  uint8_t packed[kHalf];
  std::memcpy(packed, bytes, sizeof packed);
  for (int i = 0; i < kHalf; ++i) {
    codes[i] = packed[i] & 15;
    codes[i + kHalf] = packed[i] >> 4;
  }
  for (int i = 0; kBits == 5 && i < kBlock; ++i) codes[i] |= (fifths >> i & 1) << 4;
}

// Q4_0, Q5_0: the value of the largest magnitude becomes the lowest code, zero the middle one.
template <int kBits>
void encode_around_zero(const float* values, std::byte* out) {
  constexpr int kZero = 1 << (kBits - 1);
  const float scale = signed_peak(values) / -kZero;
  const float inverse = inverse_of(scale);
  store(out, f16_of(scale));
  int codes[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    codes[i] = static_cast<int>(clamped(values[i] * inverse + (kZero + 0.5f), 0, 2 * kZero - 1));
  }
  pack_codes<kBits>(codes, out + 2);
}

template <int kBits>
void decode_around_zero(const std::byte* bytes, float* out) {
  const float scale = of_f16(load<uint16_t>(bytes));
  int codes[kBlock];
  unpack_codes<kBits>(bytes + 2, codes);
  for (int i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(codes[i] - (1 << (kBits - 1)));
  }
}

// Q4_1, Q5_1: codes count steps from the smallest value.
template <int kBits>
void encode_from_minimum(const float* values, std::byte* out) {
  constexpr float kCodeMax = (1 << kBits) - 1;
  const auto [low, high] = range_of(values);
  const float scale = (high - low) / kCodeMax;
  const float inverse = inverse_of(scale);
  store(out, f16_of(scale));
  store(out + 2, f16_of(low));
  int codes[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    codes[i] = static_cast<int>(clamped((values[i] - low) * inverse + 0.5f, 0, kCodeMax));
  }
  pack_codes<kBits>(codes, out + 4);
}

template <int kBits>
void decode_from_minimum(const std::byte* bytes, float* out) {
  const float scale = of_f16(load<uint16_t>(bytes)), low = of_f16(load<uint16_t>(bytes + 2));
  int codes[kBlock];
  unpack_codes<kBits>(bytes + 4, codes);
  for (int i = 0; i < kBlock; ++i) out[i] = scale * static_cast<float>(codes[i]) + low;
}

}  // namespace

void encode_q8_0(const float* values, std::byte* out) {
  const auto [low, high] = extremes<kBlock>(values, {0, 0});
  const float scale = std::max(high, -low) / 127.0f;
  const float inverse = inverse_of(scale);
  store(out, f16_of(scale));
  int wide[kBlock];  // its own loop, so that both loops vectorise
  for (int i = 0; i < kBlock; ++i) wide[i] = rounded(clamped(values[i] * inverse, -127, 127));
  int8_t codes[kBlock];
  for (int i = 0; i < kBlock; ++i) codes[i] = static_cast<int8_t>(wide[i]);
  std::memcpy(out + 2, codes, kBlock);
}

void decode_q8_0(const std::byte* bytes, float* out) {
  const float scale = of_f16(load<uint16_t>(bytes));
  int8_t codes[kBlock];
  std::memcpy(codes, bytes + 2, kBlock);
  for (int i = 0; i < kBlock; ++i) out[i] = static_cast<float>(codes[i]) * scale;
}

void encode_q4_0(const float* values, std::byte* out) { encode_around_zero<4>(values, out); }
void encode_q4_1(const float* values, std::byte* out) { encode_from_minimum<4>(values, out); }
void encode_q5_0(const float* values, std::byte* out) { encode_around_zero<5>(values, out); }
void encode_q5_1(const float* values, std::byte* out) { encode_from_minimum<5>(values, out); }

void decode_q4_0(const std::byte* bytes, float* out) { decode_around_zero<4>(bytes, out); }
void decode_q4_1(const std::byte* bytes, float* out) { decode_from_minimum<4>(bytes, out); }
void decode_q5_0(const std::byte* bytes, float* out) { decode_around_zero<5>(bytes, out); }
void decode_q5_1(const std::byte* bytes, float* out) { decode_from_minimum<5>(bytes, out); }

}  // namespace thermocline
