#include "models/gaussian_blocks.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "models/error.h"
#include "models/firing_rates.h"
#include "models/quantize.h"

namespace thermocline {
namespace {

constexpr int kCodes = 256;
constexpr int kHalf = kCodes / 2;

// Normal quantiles at (k + 1/2) / 256, rounded to 1/4096 so that no library's last bit shows.
std::array<double, kCodes> make_quantiles() {
  std::array<double, kCodes> quantiles{};
  for (int k = 0; k < kHalf; ++k) {
    double low = 0, high = 4;
    for (int i = 0; i < 60; ++i) {
      const double middle = (low + high) / 2;
      (normal_cdf(middle) < (kHalf + k + 0.5) / kCodes ? low : high) = middle;
    }
    quantiles[kHalf + k] = std::round(low * 4096) / 4096;
    quantiles[kHalf - 1 - k] = -quantiles[kHalf + k];  // symmetric: the mean is exactly 0
  }
  return quantiles;
}

const std::array<double, kCodes>& quantiles() {
  static const std::array<double, kCodes> table = make_quantiles();
  return table;
}

// The quantile's multiple of the block's scale, at most `code_max` either way.
double code_of(int byte, double code_max) {
  const double largest = quantiles()[kCodes - 1];
  return std::round(quantiles()[byte] * (code_max + 0.49) / largest);
}

// The largest code either way of the middle; 0: a type without codes.
double code_max_of(DType dtype) {
  switch (dtype) {
    case DType::q8_0:
      return 127;
    case DType::q4_0:
    case DType::q4_1:
      return 7;
    case DType::q5_0:
    case DType::q5_1:
      return 15;
    default:
      return 0;
  }
}

double unscaled(DType dtype, int byte) {
  const double code_max = code_max_of(dtype);
  return code_max == 0 ? quantiles()[byte] : code_of(byte, code_max);
}

double unscaled_std_dev(DType dtype) {
  double sum = 0;
  for (int byte = 0; byte < kCodes; ++byte) sum += unscaled(dtype, byte) * unscaled(dtype, byte);
  return std::sqrt(sum / kCodes);
}

uint32_t code_bits(DType dtype, int byte, float scale) {
  const auto value = static_cast<float>(scale * quantiles()[byte]);
  switch (dtype) {
    case DType::f32:
      return std::bit_cast<uint32_t>(value);
    case DType::f16:
      return f32_to_f16(value);
    case DType::bf16:
      return f32_to_bf16(value);
    case DType::q8_0:
      return static_cast<uint8_t>(static_cast<int>(code_of(byte, 127)));
    default:
      return static_cast<uint32_t>(code_of(byte, code_max_of(dtype)) + code_max_of(dtype) + 1);
  }
}

template <class Item>
void encode_items(const uint32_t* code, const uint8_t* random, uint64_t count, std::byte* out) {
  for (uint64_t i = 0; i < count; ++i) {
    const auto item = static_cast<Item>(code[random[i]]);
    std::memcpy(out + i * sizeof item, &item, sizeof item);
  }
}

void encode_q8_0(const uint32_t* code, uint16_t scale, const uint8_t* random, uint64_t blocks,
                 std::byte* out) {
  for (uint64_t block = 0; block < blocks; ++block) {
    std::memcpy(out, &scale, sizeof scale);
    for (int i = 0; i < kGaussianBlockItems; ++i) {
      out[sizeof scale + i] = static_cast<std::byte>(code[random[i]]);
    }
    random += kGaussianBlockItems;
    out += facts(DType::q8_0).bytes_per_block;
  }
}

// Four or five bits to a code. With a minimum (Q4_1, Q5_1), that is the middle code below zero.
template <int kBits, bool kWithMinimum>
void encode_halves(const uint32_t* code, uint16_t scale, const uint8_t* random, uint64_t blocks,
                   std::byte* out) {
  const uint16_t minimum = f32_to_f16(f16_to_f32(scale) * -(1 << (kBits - 1)));
  const auto put = [&out](const auto& value) {
    std::memcpy(out, &value, sizeof value);
    out += sizeof value;
  };
  for (uint64_t block = 0; block < blocks; ++block) {
    put(scale);
    if constexpr (kWithMinimum) put(minimum);
    if constexpr (kBits == 5) {
      uint32_t fifths = 0;
      for (int i = 0; i < kGaussianBlockItems; ++i) fifths |= code[random[i]] >> 4 << i;
      put(fifths);
    }
    for (int i = 0; i < kGaussianBlockItems / 2; ++i) {
      const uint32_t low = code[random[i]], high = code[random[i + kGaussianBlockItems / 2]];
      *out++ = static_cast<std::byte>((low & 15) | (high & 15) << 4);
    }
    random += kGaussianBlockItems;
  }
}

}  // namespace

GaussianBlocks::GaussianBlocks(DType dtype, double std_dev)
    : dtype_(dtype), scale_(f32_to_f16(static_cast<float>(std_dev / unscaled_std_dev(dtype)))) {
  const float scale = f16_to_f32(scale_);
  TC_CHECK(std::abs(scale * unscaled_std_dev(dtype) - std_dev) < 0.02 * std_dev,
           "standard deviation " + std::to_string(std_dev) + " is outside f16");
  for (int byte = 0; byte < kCodes; ++byte) code_[byte] = code_bits(dtype, byte, scale);
}

void GaussianBlocks::encode(const uint8_t* random, uint64_t block_count, std::byte* out) const {
  const uint64_t items = block_count * kGaussianBlockItems;
  switch (dtype_) {
    case DType::f32:
      return encode_items<uint32_t>(code_.data(), random, items, out);
    case DType::f16:
    case DType::bf16:
      return encode_items<uint16_t>(code_.data(), random, items, out);
    case DType::q8_0:
      return encode_q8_0(code_.data(), scale_, random, block_count, out);
    case DType::q4_0:
      return encode_halves<4, false>(code_.data(), scale_, random, block_count, out);
    case DType::q4_1:
      return encode_halves<4, true>(code_.data(), scale_, random, block_count, out);
    case DType::q5_0:
      return encode_halves<5, false>(code_.data(), scale_, random, block_count, out);
    case DType::q5_1:
      return encode_halves<5, true>(code_.data(), scale_, random, block_count, out);
    case DType::q4_k:
    case DType::q5_k:
    case DType::q6_k:
      TC_CHECK(false, "blocks of 32 in a type with blocks of 256");
  }
}

void encode_equal_block(DType dtype, float value, std::byte* out) {
  float items[kGaussianBlockItems];
  for (float& item : items) item = value;
  quantize(dtype, items, kGaussianBlockItems, out);
}

}  // namespace thermocline
