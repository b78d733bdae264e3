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

// `yes` or `no` without a branch, so that loops over it vectorise.
inline uint32_t choose(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = 0u - uint32_t{condition};
  return (yes & mask) | (no & ~mask);
}

inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

// IEEE 754 binary16 has 5 exponent bits (bias 15) and 10 of mantissa; binary32 has 8 (bias 127) and
// 23.
constexpr uint32_t kBiasShift = (127 - 15) << 23;
constexpr uint32_t kInfinity32 = 0x7f800000;
constexpr uint32_t kSmallestNormal16 = 0x38800000;  // 2^-14
constexpr uint32_t kOverflow16 = 0x477ff000;        // 65520, half a place above the largest half

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

// The smallest and the largest of 32 values and 0. NaN is passed over.
struct Extremes {
  float low, high;
};

using Lanes [[gnu::vector_size(16)]] = float;
constexpr uint64_t kLaneCount = sizeof(Lanes) / sizeof(float);

Extremes extremes(const float* values) {
  Lanes low = {}, high = {};
  for (uint64_t i = 0; i < kBlock; i += kLaneCount) {
    Lanes value;
    std::memcpy(&value, values + i, sizeof value);
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  Extremes all{low[0], high[0]};
  for (uint64_t lane = 1; lane < kLaneCount; ++lane) {
    all.low = std::min(all.low, low[lane]);
    all.high = std::max(all.high, high[lane]);
  }
  return all;
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
inline float clamped(float value, float low, float high) {
  const float raised = float_of(choose(value > low, bits_of(value), bits_of(low)));
  return float_of(choose(raised < high, bits_of(raised), bits_of(high)));
}

// Half away from zero, as roundf does. Adding the float below one half keeps what is just below a
// half down, and a half itself rounds up in the sum. For magnitudes below 2^22.
inline int rounded(float value) {
  const uint32_t sign = bits_of(value) & 0x80000000;
  return static_cast<int>(value + float_of(sign | bits_of(0x1.fffffep-2f)));
}

void quantize_q8_0_block(const float* values, std::byte* out) {
  const auto [low, high] = extremes(values);
  const float scale = std::max(high, -low) / 127.0f;
  const float inverse = inverse_of(scale);
  store(out, f16_of(scale));
  int wide[kBlock];  // its own loop, so that both loops vectorise
  for (uint64_t i = 0; i < kBlock; ++i) {
    wide[i] = rounded(clamped(values[i] * inverse, -127.0f, 127.0f));
  }
  int8_t quants[kBlock];
  for (uint64_t i = 0; i < kBlock; ++i) quants[i] = static_cast<int8_t>(wide[i]);
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
