// K-quants: their layouts by hand, and how near their search comes.
// tests/models/gguf_blocks_test.cc compares what they decode to with another program.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "models/hash.h"
#include "models/quantize.h"

namespace thermocline::test {
namespace {

constexpr DType kTypes[] = {DType::q4_k, DType::q5_k, DType::q6_k};
constexpr int kBlock = 256;

std::vector<uint8_t> quantized(DType dtype, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(bytes_of(dtype, values.size()));
  quantize(dtype, values.data(), values.size(), reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

std::vector<float> dequantized(DType dtype, const std::vector<uint8_t>& bytes) {
  const uint64_t blocks = bytes.size() / facts(dtype).bytes_per_block;
  std::vector<float> values(blocks * facts(dtype).items_per_block);
  dequantize(dtype, reinterpret_cast<const std::byte*>(bytes.data()), values.size(), values.data());
  return values;
}

std::vector<float> rounded_by(DType dtype, const std::vector<float>& values) {
  return dequantized(dtype, quantized(dtype, values));
}

std::vector<float> gaussian(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

double rms_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

void put_f16(uint8_t* to, float value) {
  const uint16_t bits = f32_to_f16(value);
  std::memcpy(to, &bits, sizeof bits);
}

TEST_CASE("Q4_K by hand: 6-bit scales and minimums, low halves then high halves") {
  std::vector<uint8_t> block(144);
  put_f16(&block[0], 0.5f);
  put_f16(&block[2], 0.25f);
  block[4] = 3;                  // scale of sub-block 0
  block[4 + 4] = 2;              // its minimum
  block[4 + 1] = 2 << 6;         // sub-block 5: the upper bits of scale 0b101001 = 41
  block[4 + 5] = 3 << 6;         // and of minimum 0b110100 = 52
  block[4 + 9] = 9 | 4 << 4;     // their lower bits
  block[16 + 7] = 11;            // element 7 of sub-block 0
  block[16 + 64 + 31] = 6 << 4;  // element 31 of sub-block 5
  const auto values = dequantized(DType::q4_k, block);
  CHECK(values[7] == 0.5f * 3 * 11 - 0.25f * 2);
  CHECK(values[0] == -0.25f * 2);
  CHECK(values[5 * 32 + 31] == 0.5f * 41 * 6 - 0.25f * 52);
  CHECK(values[32] == 0);
}

TEST_CASE("Q5_K by hand: bit k of a byte is the fifth bit of sub-block k") {
  std::vector<uint8_t> block(176);
  put_f16(&block[0], 0.5f);
  for (int j = 0; j < 4; ++j) block[4 + j] = 1, block[4 + 8 + j] = 1;  // every scale is 1
  block[16 + 9] = 1 << 6;
  block[48 + 96 + 9] = 5;  // low half: sub-block 6
  const auto values = dequantized(DType::q5_k, block);
  CHECK(values[6 * 32 + 9] == 0.5f * (16 + 5));
  for (int i = 0; i < kBlock; ++i) {
    if (i != 6 * 32 + 9) CHECK(values[i] == 0);
  }
}

TEST_CASE("Q6_K by hand: two upper bits of four groups share a byte, scales are signed") {
  std::vector<uint8_t> block(210);
  put_f16(&block[208], 0.5f);
  for (int j = 0; j < 16; ++j) block[192 + j] = static_cast<uint8_t>(-1 - j);
  block[64 + 32 + 20] = 13 << 4;  // second half, group 3, element 20: low bits
  block[128 + 32 + 20] = 3 << 6;  // and upper bits: code 61
  const auto values = dequantized(DType::q6_k, block);
  CHECK(values[128 + 3 * 32 + 20] == 0.5f * -16 * (61 - 32));
  CHECK(values[0] == 0.5f * -1 * -32);
  CHECK(values[128 + 2 * 32 + 20] == 0.5f * -14 * -32);
}

// What a K-quant with a minimum gives when each sub-block takes its own range and nothing is
// searched: scale and minimum rounded to six bits.
std::vector<float> plainly_rounded(const std::vector<float>& values, int code_max) {
  std::vector<float> back(values.size());
  for (size_t block = 0; block < values.size(); block += kBlock) {
    float scale[8], minimum[8], scale_max = 0, minimum_max = 0;
    for (int j = 0; j < 8; ++j) {
      const float* x = &values[block + j * 32];
      const float low = std::min(0.0f, *std::min_element(x, x + 32));
      scale[j] = (*std::max_element(x, x + 32) - low) / static_cast<float>(code_max);
      minimum[j] = -low;
      scale_max = std::max(scale_max, scale[j]);
      minimum_max = std::max(minimum_max, minimum[j]);
    }
    const float d = f16_to_f32(f32_to_f16(scale_max / 63));
    const float d_minimum = f16_to_f32(f32_to_f16(minimum_max / 63));
    for (int i = 0; i < kBlock; ++i) {
      const float step = d * std::round(scale[i / 32] / d);
      const float low = d_minimum * std::round(minimum[i / 32] / d_minimum);
      const float code = std::round((values[block + i] + low) / step);
      back[block + i] = step * std::min(std::max(code, 0.0f), float(code_max)) - low;
    }
  }
  return back;
}

TEST_CASE("the search leaves less error than plain rounding and than older types of equal bits") {
  const auto values = gaussian(kBlock * 2000, 3);
  const double q4_k = rms_difference(values, rounded_by(DType::q4_k, values));
  const double q5_k = rms_difference(values, rounded_by(DType::q5_k, values));
  const double q6_k = rms_difference(values, rounded_by(DType::q6_k, values));
  CAPTURE(q4_k, q5_k, q6_k);
  const double plain_4 = rms_difference(values, plainly_rounded(values, 15));
  const double plain_5 = rms_difference(values, plainly_rounded(values, 31));
  CAPTURE(plain_4, plain_5);
  CHECK(q4_k < 0.93 * plain_4);
  CHECK(q5_k < 0.95 * plain_5);
  CHECK(q4_k < 0.86 * rms_difference(values, rounded_by(DType::q4_0, values)));  // 4.5 bits each
  CHECK(q5_k < 0.87 * rms_difference(values, rounded_by(DType::q5_0, values)));  // 5.5 bits each
  CHECK(q6_k < 0.5 * q5_k);
}

TEST_CASE("what is read back is within a bound of the range of its block") {
  const auto normal = gaussian(kBlock * 300, 5);
  std::vector<float> cubed, shifted, uneven;  // heavy tails; far from zero; sub-blocks of all sizes
  for (size_t i = 0; i < normal.size(); ++i) {
    cubed.push_back(normal[i] * normal[i] * normal[i]);
    shifted.push_back(normal[i] + static_cast<float>(i / kBlock % 5) * 4 - 8);
    uneven.push_back(normal[i] * std::exp2(-static_cast<float>(i / 16 % 7) * 3));
  }
  for (const DType dtype : kTypes) {
    const double codes = dtype == DType::q4_k ? 15 : dtype == DType::q5_k ? 31 : 63;
    for (const auto& values : {normal, cubed, shifted, uneven}) {
      const auto back = rounded_by(dtype, values);
      double worst = 0;
      for (size_t block = 0; block < values.size(); block += kBlock) {
        float low = 0, high = 0, error = 0;
        for (size_t i = block; i < block + kBlock; ++i) {
          low = std::min(low, values[i]);
          high = std::max(high, values[i]);
          error = std::max(error, std::fabs(values[i] - back[i]));
        }
        // Q6_K has its codes on both sides of zero: half of them for a one-sided block.
        const double range = dtype == DType::q6_k ? 2 * std::max(-low, high) : high - low;
        worst = std::max(worst, error / range);
      }
      INFO(facts(dtype).name << " " << worst);
      // Up to 1.2 codes cut off (3 of 63) and half of one rounded; scales off by half of 1/63.
      CHECK(worst <= (dtype == DType::q6_k ? 2.0 : 1.7) / codes + 1.0 / 63);
    }
  }
}

TEST_CASE("quantising again moves values less than the first time") {
  const auto values = gaussian(kBlock * 200, 7);
  for (const DType dtype : kTypes) {
    const auto once = rounded_by(dtype, values), twice = rounded_by(dtype, once);
    INFO(facts(dtype).name);
    CHECK(rms_difference(once, twice) < 0.5 * rms_difference(values, once));
  }
}

TEST_CASE("scales beyond f16 are held at its largest number, and tiny ones become zero") {
  for (const DType dtype : kTypes) {
    INFO(facts(dtype).name);
    auto values = gaussian(kBlock, 9);
    for (float& value : values) value *= 1e30f;
    for (const float back : rounded_by(dtype, values)) CHECK(std::isfinite(back));
    for (float& value : values) value *= 1e-42f;
    for (const float back : rounded_by(dtype, values)) CHECK(std::fabs(back) < 1e-6f);
  }
}

// Sums of bytes of a hash: near Gaussian, and the same numbers in every standard library.
std::vector<float> counted_values(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    Fnv1a hash;
    hash.add_value(static_cast<uint64_t>(i));
    int sum = 0;
    for (int shift = 0; shift < 64; shift += 8)
      sum += static_cast<int>(hash.value() >> shift & 255);
    values[i] = static_cast<float>(sum - 1020) / 209.0f;
  }
  return values;
}

TEST_CASE("K-quants of given values are the same bytes on every machine") {
  const std::pair<DType, const char*> goldens[] = {{DType::q4_k, "42a86e8d08d61fe6"},
                                                   {DType::q5_k, "be76f0cbdc685d12"},
                                                   {DType::q6_k, "4692559595bdba1f"}};
  const auto values = counted_values(kBlock * 100);
  for (const auto& [dtype, golden] : goldens) {
    const auto bytes = quantized(dtype, values);
    Fnv1a hash;
    hash.add(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    INFO(facts(dtype).name);
    CHECK(hash.hex() == golden);
  }
}

}  // namespace
}  // namespace thermocline::test
