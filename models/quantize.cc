#include "models/quantize.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>

#include "models/blocks_of_32.h"
#include "models/error.h"
#include "models/half.h"
#include "models/k_quants.h"

namespace thermocline {
namespace {

using Encode = void (*)(const float* values, std::byte* out);
using Decode = void (*)(const std::byte* bytes, float* out);

template <Encode kEncode>
void encode_blocks(DType dtype, const float* values, uint64_t count, std::byte* out) {
  const uint32_t items = facts(dtype).items_per_block, bytes = facts(dtype).bytes_per_block;
  for (uint64_t i = 0; i < count / items; ++i) kEncode(values + i * items, out + i * bytes);
}

template <Decode kDecode>
void decode_blocks(DType dtype, const std::byte* bytes, uint64_t count, float* out) {
  const uint32_t items = facts(dtype).items_per_block, size = facts(dtype).bytes_per_block;
  for (uint64_t i = 0; i < count / items; ++i) kDecode(bytes + i * size, out + i * items);
}

void check_whole_blocks(DType dtype, uint64_t count) {
  TC_CHECK(count % facts(dtype).items_per_block == 0, std::to_string(count) +
                                                          " elements are not whole blocks of " +
                                                          std::string(facts(dtype).name));
}

// Where a block has its scales, twice the same where it has one; an element without blocks is one.
struct Scales {
  uint32_t first, second;
};

// By DType.
constexpr Scales kScales[] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0},    {0, 2},
                              {0, 0}, {0, 2}, {0, 2}, {0, 2}, {208, 208}};
static_assert(std::size(kScales) == kDTypeCount);

bool is_finite(float value) { return (bits_of(value) & kInfinity32) != kInfinity32; }

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
      return encode_blocks<encode_q8_0>(dtype, values, count, out);
    case DType::q4_0:
      return encode_blocks<encode_q4_0>(dtype, values, count, out);
    case DType::q4_1:
      return encode_blocks<encode_q4_1>(dtype, values, count, out);
    case DType::q5_0:
      return encode_blocks<encode_q5_0>(dtype, values, count, out);
    case DType::q5_1:
      return encode_blocks<encode_q5_1>(dtype, values, count, out);
    case DType::q4_k:
      return encode_blocks<encode_q4_k>(dtype, values, count, out);
    case DType::q5_k:
      return encode_blocks<encode_q5_k>(dtype, values, count, out);
    case DType::q6_k:
      return encode_blocks<encode_q6_k>(dtype, values, count, out);
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
      return decode_blocks<decode_q8_0>(dtype, bytes, count, out);
    case DType::q4_0:
      return decode_blocks<decode_q4_0>(dtype, bytes, count, out);
    case DType::q4_1:
      return decode_blocks<decode_q4_1>(dtype, bytes, count, out);
    case DType::q5_0:
      return decode_blocks<decode_q5_0>(dtype, bytes, count, out);
    case DType::q5_1:
      return decode_blocks<decode_q5_1>(dtype, bytes, count, out);
    case DType::q4_k:
      return decode_blocks<decode_q4_k>(dtype, bytes, count, out);
    case DType::q5_k:
      return decode_blocks<decode_q5_k>(dtype, bytes, count, out);
    case DType::q6_k:
      return decode_blocks<decode_q6_k>(dtype, bytes, count, out);
  }
}

uint64_t first_non_finite(const float* values, uint64_t count) {
  constexpr uint64_t kStretch = 256;
  for (uint64_t begin = 0; begin < count; begin += kStretch) {
    const uint64_t end = begin + kStretch < count ? begin + kStretch : count;
    uint32_t found = 0;  // all of a stretch, so that the loop vectorises
    for (uint64_t i = begin; i < end; ++i) found |= uint32_t{!is_finite(values[i])};
    for (uint64_t i = begin; found != 0 && i < end; ++i) {
      if (!is_finite(values[i])) return i;
    }
  }
  return count;
}

uint64_t first_non_finite(DType dtype, const std::byte* bytes, uint64_t count) {
  const uint64_t items = facts(dtype).items_per_block, size = facts(dtype).bytes_per_block;
  const Scales scales = kScales[static_cast<int>(dtype)];
  const auto stretch = [&](auto bits, auto exponent) {  // blocks at a time, so that it vectorises
    constexpr uint64_t kBlocks = 64;
    for (uint64_t begin = 0; begin < count / items; begin += kBlocks) {
      const uint64_t end = std::min(begin + kBlocks, count / items);
      const auto bad = [&](uint64_t block) {
        const std::byte* from = bytes + block * size;
        const auto one = load<decltype(bits)>(from + scales.first);
        const auto other = load<decltype(bits)>(from + scales.second);
        return ((one & exponent) == exponent) | ((other & exponent) == exponent);
      };
      bool found = false;
      for (uint64_t block = begin; block < end; ++block) found |= bad(block);
      for (uint64_t block = begin; found && block < end; ++block) {
        if (bad(block)) return block * items;
      }
    }
    return count;
  };
  if (dtype == DType::f32) return stretch(uint32_t{}, uint32_t{kInfinity32});
  if (dtype == DType::bf16) return stretch(uint16_t{}, uint16_t{0x7f80});
  return stretch(uint16_t{}, uint16_t{0x7c00});
}

float f16_to_f32(uint16_t bits) { return of_f16(bits); }
uint16_t f32_to_f16(float value) { return f16_of(value); }
float bf16_to_f32(uint16_t bits) { return of_bf16(bits); }
uint16_t f32_to_bf16(float value) { return bf16_of(value); }

}  // namespace thermocline
