#include "models/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint64_t kBlock = 32;  // elements of a Q8_0 or Q4_0 block
static_assert(facts(DType::q8_0).items_per_block == kBlock);
static_assert(facts(DType::q4_0).items_per_block == kBlock);

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

// IEEE 754 binary16 has 5 exponent bits (bias 15) and 10 of mantissa; binary32 has 8 (bias 127) and
// 23. Both directions choose among values instead of branching, so that loops over them vectorise.
constexpr uint32_t kBiasShift = (127 - 15) << 23;
constexpr uint32_t kInfinity32 = 0x7f800000;

inline float of_f16(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + kBiasShift;
  // Below 2^-14 the mantissa counts units of 2^-24.
  const auto subnormal =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t special = (magnitude << 13) | kInfinity32;
  const uint32_t finite = magnitude < 0x0400 ? subnormal : normal;
  const uint32_t result = magnitude < 0x7c00 ? finite : special;
  return std::bit_cast<float>(result | (half & 0x8000u) << 16);
}

inline uint16_t f16_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffff;
  // Nearest even: add just under half of the last place, and one more where that place is odd.
  const uint32_t normal = (magnitude - kBiasShift + 0xfff + (magnitude >> 13 & 1)) >> 13;
  // In [0.5, 1) a float's last place is 2^-24, that of subnormal halves: the addition rounds.
  const float small = magnitude < 0x38800000 ? std::bit_cast<float>(magnitude) : 0.0f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(small + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  // From 65520 on, half a place above the largest half, the nearest is infinity.
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  const uint32_t bounded = magnitude < 0x477ff000 ? finite : 0x7c00;
  const uint32_t nan = 0x7e00 | (magnitude >> 13 & 0x1ff);
  const uint32_t result = magnitude > kInfinity32 ? nan : bounded;
  return static_cast<uint16_t>(result | (bits >> 16 & 0x8000));
}

inline float of_bf16(uint16_t half) { return std::bit_cast<float>(uint32_t{half} << 16); }

inline uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet_nan = bits >> 16 | 0x40;  // rounding could carry a NaN into infinity
  return static_cast<uint16_t>((bits & 0x7fffffff) > kInfinity32 ? quiet_nan : nearest);
}

// The smallest and the largest of 32 values and 0, eight lanes at a time so that the compiler
// uses vector minimum and maximum. NaN is passed over.
struct Extremes {
  float low, high;
};

Extremes extremes(const float* values) {
  float low[8] = {}, high[8] = {};
  for (uint64_t i = 0; i < kBlock; i += 8) {
    for (uint64_t lane = 0; lane < 8; ++lane) {
      const float value = values[i + lane];
      low[lane] = value < low[lane] ? value : low[lane];
      high[lane] = value > high[lane] ? value : high[lane];
    }
  }
  return {*std::min_element(low, low + 8), *std::max_element(high, high + 8)};
}

// The value with the largest magnitude, with its sign; of two equal magnitudes the first.
float signed_peak(const float* values) {
  const auto [low, high] = extremes(values);
  if (high > -low) return high;
  if (high < -low) return low;
  const auto is_peak = [peak = high](float value) { return std::fabs(value) == peak; };
  return high == 0.0f ? 0.0f : *std::find_if(values, values + kBlock, is_peak);
}

float inverse_of(float scale) { return scale != 0.0f ? 1.0f / scale : 0.0f; }

// Keeps the conversion to int defined whatever the value; NaN becomes `low`.
float clamped(float value, float low, float high) {
  value = value > low ? value : low;
  return value < high ? value : high;
}

// Half away from zero, as roundf does, in steps that vectorise on any machine.
int rounded(float value) {
  const int whole = static_cast<int>(value);
  const float rest = value - static_cast<float>(whole);
  return whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
}

void quantize_q8_0_block(const float* values, std::byte* out) {
  const auto [low, high] = extremes(values);
  const float scale = std::max(high, -low) / 127.0f;
  const float inverse = inverse_of(scale);
  store(out, f16_of(scale));
  int8_t quants[kBlock];
  for (uint64_t i = 0; i < kBlock; ++i) {
    quants[i] = static_cast<int8_t>(rounded(clamped(values[i] * inverse, -127.0f, 127.0f)));
  }
  std::memcpy(out + 2, quants, kBlock);
}

void quantize_q4_0_block(const float* values, std::byte* out) {
  const float scale = signed_peak(values) / -8.0f;
  const float inverse = inverse_of(scale);
  store(out, f16_of(scale));
  int quants[kBlock];
  for (uint64_t i = 0; i < kBlock; ++i) {
    quants[i] = static_cast<int>(clamped(values[i] * inverse + 8.5f, 0.0f, 15.0f));
  }
  uint8_t packed[kBlock / 2];
  for (uint64_t i = 0; i < kBlock / 2; ++i) {
    packed[i] = static_cast<uint8_t>(quants[i] | quants[i + kBlock / 2] << 4);
  }
  std::memcpy(out + 2, packed, sizeof packed);
}

void dequantize_q8_0_block(const std::byte* bytes, float* out) {
  const float scale = of_f16(load<uint16_t>(bytes));
  int8_t quants[kBlock];
  std::memcpy(quants, bytes + 2, kBlock);
  for (uint64_t i = 0; i < kBlock; ++i) out[i] = static_cast<float>(quants[i]) * scale;
}

void dequantize_q4_0_block(const std::byte* bytes, float* out) {
  const float scale = of_f16(load<uint16_t>(bytes));
  uint8_t packed[kBlock / 2];
  std::memcpy(packed, bytes + 2, sizeof packed);
  for (uint64_t i = 0; i < kBlock / 2; ++i) {
    out[i] = static_cast<float>((packed[i] & 15) - 8) * scale;
    out[i + kBlock / 2] = static_cast<float>((packed[i] >> 4) - 8) * scale;
  }
}

template <void (*kEncode)(const float*, std::byte*)>
void encode_blocks(DType dtype, const float* values, uint64_t count, std::byte* out) {
  const uint32_t items = facts(dtype).items_per_block, bytes = facts(dtype).bytes_per_block;
  for (uint64_t i = 0; i < count / items; ++i) kEncode(values + i * items, out + i * bytes);
}

template <void (*kDecode)(const std::byte*, float*)>
void decode_blocks(DType dtype, const std::byte* bytes, uint64_t count, float* out) {
  const uint32_t items = facts(dtype).items_per_block, size = facts(dtype).bytes_per_block;
  for (uint64_t i = 0; i < count / items; ++i) kDecode(bytes + i * size, out + i * items);
}

void check_whole_blocks(DType dtype, uint64_t count) {
  TC_CHECK(count % facts(dtype).items_per_block == 0, std::to_string(count) +
                                                          " elements are not whole blocks of " +
                                                          std::string(facts(dtype).name));
}

}  // namespace

void quantize(DType dtype, const float* values, uint64_t count, std::byte* out) {
  check_whole_blocks(dtype, count);
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, values, count * sizeof(float));
      return;
    case DType::f16:
      for (uint64_t i = 0; i < count; ++i) store(out + 2 * i, f16_of(values[i]));
      return;
    case DType::bf16:
      for (uint64_t i = 0; i < count; ++i) store(out + 2 * i, bf16_of(values[i]));
      return;
    case DType::q8_0:
      return encode_blocks<quantize_q8_0_block>(dtype, values, count, out);
    case DType::q4_0:
      return encode_blocks<quantize_q4_0_block>(dtype, values, count, out);
  }
}

void dequantize(DType dtype, const std::byte* bytes, uint64_t count, float* out) {
  check_whole_blocks(dtype, count);
  switch (dtype) {
    case DType::f32:
      std::memcpy(out, bytes, count * sizeof(float));
      return;
    case DType::f16:
      for (uint64_t i = 0; i < count; ++i) out[i] = of_f16(load<uint16_t>(bytes + 2 * i));
      return;
    case DType::bf16:
      for (uint64_t i = 0; i < count; ++i) out[i] = of_bf16(load<uint16_t>(bytes + 2 * i));
      return;
    case DType::q8_0:
      return decode_blocks<dequantize_q8_0_block>(dtype, bytes, count, out);
    case DType::q4_0:
      return decode_blocks<dequantize_q4_0_block>(dtype, bytes, count, out);
  }
}

float f16_to_f32(uint16_t bits) { return of_f16(bits); }
uint16_t f32_to_f16(float value) { return f16_of(value); }
float bf16_to_f32(uint16_t bits) { return of_bf16(bits); }
uint16_t f32_to_bf16(float value) { return bf16_of(value); }

}  // namespace thermocline
