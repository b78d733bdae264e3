// Element types: exact conversions, and quantisation that rounds as ggml's reference does.
#include "models/quantize.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/models/failures.h"

namespace thermocline::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A half by its definition, in double: sign * mantissa * 2^exponent.
double half_by_definition(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// The nearest half of a finite float, ties to even, by scaling to whole numbers of last places.
double nearest_half(float value) {
  const int exponent = value == 0 ? -14 : std::max(-14, std::ilogb(value));
  const double places = std::nearbyint(std::ldexp(static_cast<double>(value), 10 - exponent));
  const double nearest = std::ldexp(places, exponent - 10);
  return std::fabs(nearest) >= 65536 ? std::copysign(HUGE_VAL, nearest) : nearest;
}

TEST_CASE("all 65536 halves have their defined value and survive the way back") {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = f16_to_f32(bits);
    const double expected = half_by_definition(bits);
    if (std::isnan(expected)) {
      if (!std::isnan(value) || !std::isnan(f16_to_f32(f32_to_f16(value)))) FAIL("NaN " << i);
      continue;
    }
    if (static_cast<double>(value) != expected || f32_to_f16(value) != bits) FAIL("bits " << i);
  }
}

TEST_CASE("a float becomes the nearest half, ties to even") {
  CHECK(f32_to_f16(0.0f) == 0x0000);
  CHECK(f32_to_f16(-0.0f) == 0x8000);
  CHECK(f32_to_f16(1.0f) == 0x3c00);
  CHECK(f32_to_f16(2049.0f) == f32_to_f16(2048.0f));
  CHECK(f32_to_f16(2051.0f) == f32_to_f16(2052.0f));
  CHECK(f32_to_f16(65504.0f) == 0x7bff);
  CHECK(f32_to_f16(65519.996f) == 0x7bff);
  CHECK(f32_to_f16(65520.0f) == 0x7c00);
  CHECK(f32_to_f16(-1e30f) == 0xfc00);
  CHECK(f32_to_f16(kInfinity) == 0x7c00);
  CHECK(f32_to_f16(0x1p-24f) == 0x0001);
  CHECK(f32_to_f16(0x1p-25f) == 0x0000);  // half of the smallest: to even
  CHECK(f32_to_f16(0x1.000002p-25f) == 0x0001);
  CHECK(f32_to_f16(0x1.8p-24f) == 0x0002);
  CHECK(f32_to_f16(0x1.ff8p-15f) == 0x03ff);  // the largest subnormal
  CHECK(f32_to_f16(0x1.ffcp-15f) == 0x0400);  // a tie, up into the normals
  CHECK(f32_to_f16(1e-45f) == 0x0000);
  CHECK(std::isnan(f16_to_f32(f32_to_f16(kNan))));
  CHECK(std::isnan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7f800001u)))));
}

TEST_CASE("float to half agrees with the definition over the whole range of floats") {
  for (uint64_t i = 0; i < uint64_t{1} << 32; i += 9973) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(i));
    if (!std::isfinite(value)) continue;
    const auto found = static_cast<double>(f16_to_f32(f32_to_f16(value)));
    if (found != nearest_half(value)) FAIL("bits " << i << ": " << found);
  }
}

TEST_CASE("bf16 is the top half of a float, to nearest even") {
  CHECK(f32_to_bf16(1.0f) == 0x3f80);
  CHECK(f32_to_bf16(std::bit_cast<float>(0x3f808000u)) == 0x3f80);  // a tie, down to even
  CHECK(f32_to_bf16(std::bit_cast<float>(0x3f818000u)) == 0x3f82);  // a tie, up to even
  CHECK(f32_to_bf16(std::bit_cast<float>(0x3f808001u)) == 0x3f81);
  CHECK(f32_to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(f32_to_bf16(-kInfinity) == 0xff80);
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7fffffffu)))));
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = bf16_to_f32(bits);
    if (!std::isnan(value) && f32_to_bf16(value) != bits) FAIL("bits " << i);
  }
}

std::vector<uint8_t> quantized(DType dtype, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(bytes_of(dtype, values.size()));
  quantize(dtype, values.data(), values.size(), reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

std::vector<float> dequantized(DType dtype, const std::vector<uint8_t>& bytes, uint64_t count) {
  std::vector<float> values(count);
  dequantize(dtype, reinterpret_cast<const std::byte*>(bytes.data()), count, values.data());
  return values;
}

// A block that begins with `head`; the rest is zero.
std::vector<float> block(std::vector<float> head) {
  head.resize(32);
  return head;
}

uint16_t scale_bits(const std::vector<uint8_t>& bytes) {
  return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

TEST_CASE("Q8_0 by hand: the scale is the peak over 127, halves round away from zero") {
  const auto bytes = quantized(
      DType::q8_0, block({-127, 0.5f, -0.5f, 1.5f, 0.49999997f, -2.5f, 126.5f, 126.49999f}));
  CHECK(scale_bits(bytes) == 0x3c00);  // 1.0
  const int8_t expected[] = {-127, 1, -1, 2, 0, -3, 127, 126, 0};
  for (size_t i = 0; i < std::size(expected); ++i) {
    CHECK(static_cast<int8_t>(bytes[2 + i]) == expected[i]);
  }
}

TEST_CASE("Q4_0 by hand: the peak becomes -8, values are cut after adding 8.5") {
  const auto bytes =
      quantized(DType::q4_0, block({-8, 7, 7.49f, 8, 0.49f, 0.5f, -0.5f, -0.51f, -7.6f, -7.4f}));
  CHECK(scale_bits(bytes) == 0x3c00);  // -8 / -8
  const int expected[] = {0, 15, 15, 15, 8, 9, 8, 7, 0, 1, 8};
  for (size_t i = 0; i < std::size(expected); ++i) CHECK((bytes[2 + i] & 15) == expected[i]);
}

TEST_CASE("Q4_0 packs element j into the low and element j + 16 into the high nibble") {
  std::vector<float> values(32);
  for (int i = 0; i < 16; ++i) values[i] = static_cast<float>(i - 8), values[i + 16] = -8;
  values[16] = 0;
  const auto bytes = quantized(DType::q4_0, values);
  for (int i = 0; i < 16; ++i) CHECK(bytes[2 + i] == (i | (i == 0 ? 8 << 4 : 0)));
  CHECK(dequantized(DType::q4_0, bytes, 32) == values);
}

TEST_CASE("Q4_0 takes the sign of the first of two equal peaks") {
  CHECK(scale_bits(quantized(DType::q4_0, block({1, 8, -8}))) == 0xbc00);  // -1
  CHECK(scale_bits(quantized(DType::q4_0, block({1, -8, 8}))) == 0x3c00);
  const auto positive = quantized(DType::q4_0, block({8, -8, 4}));
  CHECK((positive[2] & 15) == 0);
  CHECK((positive[3] & 15) == 15);
  CHECK((positive[4] & 15) == 4);
}

TEST_CASE("a block of zeros has scale zero and gives zeros back") {
  for (const float zero : {0.0f, -0.0f}) {
    const std::vector<float> values(64, zero);
    const auto q8 = quantized(DType::q8_0, values);
    CHECK(q8 == std::vector<uint8_t>(68, 0));
    const auto q4 = quantized(DType::q4_0, values);
    CHECK(q4[2] == 0x88);
    CHECK((scale_bits(q4) & 0x7fff) == 0);
    for (const float value : dequantized(DType::q4_0, q4, 64)) CHECK(value == 0);
  }
}

// The format document, one element at a time.
void reference_q8_0(const float* x, uint8_t* out) {
  float peak = 0;
  for (int i = 0; i < 32; ++i) peak = std::max(peak, std::fabs(x[i]));
  const float d = peak / 127, inverse = d != 0 ? 1 / d : 0;
  const uint16_t scale = f32_to_f16(d);
  std::memcpy(out, &scale, 2);
  for (int i = 0; i < 32; ++i) {
    out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[i] * inverse)));
  }
}

void reference_q4_0(const float* x, uint8_t* out) {
  float peak = 0;
  for (int i = 0; i < 32; ++i) peak = std::fabs(x[i]) > std::fabs(peak) ? x[i] : peak;
  const float d = peak / -8, inverse = d != 0 ? 1 / d : 0;
  const uint16_t scale = f32_to_f16(d);
  std::memcpy(out, &scale, 2);
  for (int i = 0; i < 16; ++i) {
    const int low = std::min(15, static_cast<int>(x[i] * inverse + 8.5f));
    const int high = std::min(15, static_cast<int>(x[i + 16] * inverse + 8.5f));
    out[2 + i] = static_cast<uint8_t>(low | high << 4);
  }
}

TEST_CASE("quantisation equals the format document byte for byte on random rows") {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (const float size : {1e-6f, 0.02f, 1.0f, 3e4f}) {
    std::vector<float> values(32 * 500);
    for (float& value : values) value = size * normal(generator);
    const auto q8 = quantized(DType::q8_0, values);
    const auto q4 = quantized(DType::q4_0, values);
    std::vector<uint8_t> expected(34);
    for (size_t b = 0; b < values.size() / 32; ++b) {
      expected.resize(34);
      reference_q8_0(&values[32 * b], expected.data());
      CHECK(std::equal(expected.begin(), expected.end(), q8.begin() + 34 * b));
      expected.resize(18);
      reference_q4_0(&values[32 * b], expected.data());
      CHECK(std::equal(expected.begin(), expected.end(), q4.begin() + 18 * b));
    }
  }
}

TEST_CASE("Q8_0 rounds as std::round does next to every half") {
  for (int whole = 0; whole < 127; ++whole) {
    const float half = static_cast<float>(whole) + 0.5f;
    const std::vector<float> near = {std::nextafter(half, 0.0f), half,
                                     std::nextafter(half, 200.0f)};
    std::vector<float> values = {127};  // scale 1
    for (const float value : near) values.insert(values.end(), {value, -value});
    const auto bytes = quantized(DType::q8_0, block(values));
    for (size_t i = 1; i < values.size(); ++i) {
      INFO(values[i]);
      CHECK(static_cast<int8_t>(bytes[2 + i]) == std::round(values[i]));
    }
  }
}

TEST_CASE("what is read back is within half a quantum, the peak of Q4_0 within a whole one") {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  std::vector<float> values(32 * 200);
  for (float& value : values) value = normal(generator);
  const auto q8 = dequantized(DType::q8_0, quantized(DType::q8_0, values), values.size());
  const auto q4 = dequantized(DType::q4_0, quantized(DType::q4_0, values), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    float peak = 0;
    for (size_t k = i / 32 * 32; k < i / 32 * 32 + 32; ++k) {
      peak = std::max(peak, std::fabs(values[k]));
    }
    // The scale itself is a half, off by up to 2^-11 of the value.
    CHECK(std::fabs(values[i] - q8[i]) <= peak / 254 + peak / 2000);
    CHECK(std::fabs(values[i] - q4[i]) <= peak / 8 + peak / 2000);
  }
}

TEST_CASE("plain types keep rows as they are, at any address") {
  const std::vector<float> values = {1, -2.5f, 0, 65504, 0x1p-24f};
  for (const DType dtype : {DType::f32, DType::f16}) {
    std::vector<std::byte> bytes(bytes_of(dtype, values.size()) + 1);
    quantize(dtype, values.data(), values.size(), bytes.data() + 1);
    std::vector<float> back(values.size());
    dequantize(dtype, bytes.data() + 1, values.size(), back.data());
    CHECK(back == values);
  }
  const auto bf16 = dequantized(DType::bf16, quantized(DType::bf16, {1, -2.5f, 257}), 3);
  CHECK(bf16 == std::vector<float>{1, -2.5f, 256});
}

TEST_CASE("rows convert as single values do, whatever their length") {
  std::mt19937 generator(9);
  for (uint64_t count = 0; count < 70; ++count) {
    std::vector<float> values(count);
    for (float& value : values) value = std::bit_cast<float>(static_cast<uint32_t>(generator()));
    const auto f16 = quantized(DType::f16, values);
    const auto bf16 = quantized(DType::bf16, values);
    for (size_t i = 0; i < count; ++i) {
      CHECK((f16[2 * i] | f16[2 * i + 1] << 8) == f32_to_f16(values[i]));
      CHECK((bf16[2 * i] | bf16[2 * i + 1] << 8) == f32_to_bf16(values[i]));
    }
  }
}

TEST_CASE("NaN, infinity and subnormal values quantise to something defined") {
  const float smallest = std::numeric_limits<float>::denorm_min();
  for (const float odd : {kNan, -kNan, kInfinity, -kInfinity, smallest, -smallest}) {
    for (int i = 0; i < kDTypeCount; ++i) {
      const auto dtype = static_cast<DType>(i);
      std::vector<float> values(256, odd);
      const auto all = quantized(dtype, values);
      CHECK(all.size() == bytes_of(dtype, 256));
      CHECK(all == quantized(dtype, values));
      std::fill(values.begin() + 2, values.end(), 0.25f);
      values[0] = 1;
      CHECK(quantized(dtype, values) == quantized(dtype, values));
    }
  }
  // A NaN among numbers leaves its neighbours alone.
  const auto values = dequantized(DType::q8_0, quantized(DType::q8_0, block({127, kNan, 3})), 32);
  CHECK(values[0] == 127);
  CHECK(values[2] == 3);
}

TEST_CASE("the first NaN or infinity is found wherever it is") {
  std::vector<float> values(1000, std::numeric_limits<float>::max());
  CHECK(first_non_finite(values.data(), values.size()) == values.size());
  CHECK(first_non_finite(values.data(), 0) == 0);
  for (const float odd : {kNan, kInfinity, -kInfinity}) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = odd;
      CHECK(first_non_finite(values.data(), values.size()) == i);
      CHECK(first_non_finite(values.data(), i) == i);
      values[i] = -std::numeric_limits<float>::denorm_min();
    }
  }
}

TEST_CASE("every type gives equal values back, to within the rounding of its scales") {
  for (const float value : {0.0f, 1.0f, -1.0f, 0.0123f, -3.7e3f, 6e-3f}) {
    for (int i = 0; i < kDTypeCount; ++i) {
      const auto dtype = static_cast<DType>(i);
      INFO(facts(dtype).name << " " << value);
      const std::vector<float> values(512, value);
      float worst = 0;
      for (const float back : dequantized(dtype, quantized(dtype, values), 512)) {
        worst = std::max(worst, std::fabs(back - value));
      }
      // f16 has 11 bits, the scales of K-quants have 6, and 2^-24 is the least f16.
      const float share = facts(dtype).items_per_block == 256 ? 126 : 400;
      CHECK(worst <= std::fabs(value) / share + 0x1p-19f);
    }
  }
}

TEST_CASE("quantising what was read back changes nothing in the types with one scale") {
  std::mt19937 generator(11);
  std::normal_distribution<float> normal;
  std::vector<float> values(32 * 300);
  for (float& value : values) value = normal(generator);
  for (const DType dtype :
       {DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::q5_0, DType::q4_1, DType::q5_1}) {
    INFO(facts(dtype).name);
    const auto once = quantized(dtype, values);
    CHECK(quantized(dtype, dequantized(dtype, once, values.size())) == once);
  }
}

TEST_CASE("random bits of every type dequantise, whatever their scales") {
  std::mt19937 generator(13);
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    std::vector<uint8_t> bytes(bytes_of(dtype, 256 * 200));
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
    for (size_t at = 0; at < bytes.size(); ++at) bytes[at] |= at % 3 == 0 ? 0x7c : 0;
    const auto values = dequantized(dtype, bytes, 256 * 200);
    size_t numbers = 0;
    for (const float value : values) numbers += std::isfinite(value);
    CHECK(numbers < values.size());
    quantized(dtype, values);
  }
}

TEST_CASE("part of a block is a bug") {
  const int outcome = outcome_in_child([] {
    quantized(DType::q4_0, std::vector<float>(33));
    return 0;
  });
  CHECK(outcome == 128 + SIGABRT);
}

}  // namespace
}  // namespace thermocline::test
