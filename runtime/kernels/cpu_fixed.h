// Inputs in fixed point: how a row of them lies, and how it is made.
//
// Rows are padded with zeros to a multiple of 256 columns, so that only weights have tails.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "runtime/kernels/cpu_rows.h"

namespace thermocline {
namespace {

// A code is 256 * upper + lower with both in [-128, 127], so that products with unsigned bytes can
// be taken of each by itself.
constexpr int kFixedMax = 127 * 256 + 127;

// Where a row's parts lie. Of each group of 128 columns `codes` has 64 upper bytes of its firsts
// and 64 of its seconds (cpu_layout.h), then their lower bytes. `sums` has minus the sum of each of
// 16 lanes' codes, `first_sums` the same of their firsts: what weights whose zero is not 0 want.
// `words` has the codes once more, a group's in four times 16 lanes of two (word_place).
template <class Byte>
struct FixedRowOf {
  Byte* data;
  int padded;  // columns

  template <class T>
  auto* at(size_t offset) const {
    if constexpr (std::is_const_v<Byte>)
      return reinterpret_cast<const T*>(data + offset);
    else
      return reinterpret_cast<T*>(data + offset);
  }
  size_t columns() const { return static_cast<size_t>(padded); }
  auto* codes() const { return at<int8_t>(0); }
  auto* sums() const { return at<int32_t>(2 * columns()); }
  auto* first_sums() const { return at<int32_t>(columns() * 5 / 2); }
  auto* scales() const { return at<float>(3 * columns()); }            // of blocks
  auto* scaled_sums() const { return at<float>(columns() * 25 / 8); }  // scale * sum of codes
  auto* words() const { return at<int16_t>(columns() * 13 / 4); }
};
using FixedRow = FixedRowOf<const std::byte>;
using FixedRowOut = FixedRowOf<std::byte>;

// Largest finite size of a block in the order of f32's bits; NaN and infinities lie above.
constexpr uint32_t kInfinityBits = 0x7f800000;
// A block whose values are all below this is zeros: kFixedMax over it would overflow.
constexpr float kFixedMin = 1e-30f;
// Added to a float of size below 2^22, it leaves the nearest integer (ties to even) in the lower
// bits.
constexpr float kRounder = 12582912.0f;

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Values go into fixed point by a factor, and back by a unit, that follow from the bits of the
// largest's size. A NaN's or an infinity's code is of no matter: its unit is NaN.
[[gnu::always_inline]] inline bool is_usable(uint32_t largest) {
  return largest < kInfinityBits && float_of(largest) >= kFixedMin;
}
[[gnu::always_inline]] inline float fixed_factor(uint32_t largest) {
  return is_usable(largest) ? kFixedMax / float_of(largest) : 0.0f;
}
[[gnu::always_inline]] inline float fixed_unit(uint32_t largest) {
  const float otherwise = largest < kInfinityBits ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  return is_usable(largest) ? float_of(largest) / kFixedMax : otherwise;
}

constexpr int kGroupWords = 4;  // registers of 16 lanes of two words

// Where the word of column i % 16 of a block's firsts or seconds is in its group: bytes 0 and 2 of
// a lane are neighbours, and so are 1 and 3, since a mask and a shift widen them so.
constexpr int word_place(int b, int second, int i) {
  return 2 * kLanes * (2 * second + i % 2) + 2 * (4 * b + i / 4) + i % 4 / 2;
}

// Codes of a block of 32 columns and their scale; returns their sum.
inline int fix_block(const float* x, int16_t* codes, float* scale) {
  uint32_t largest = 0;
  for (int i = 0; i < kBlock; ++i) {
    const uint32_t size = bits_of(x[i]) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  const float factor = fixed_factor(largest);
  int total = 0;
  for (int i = 0; i < kBlock; ++i) {
    const auto code = static_cast<int16_t>(bits_of(x[i] * factor + kRounder) - bits_of(kRounder));
    codes[i] = code;
    total += code;
  }
  *scale = fixed_unit(largest);
  return total;
}

// The codes of block `b` of a group, as bytes and words in their places, with the lanes' sums.
inline void place_codes(const int16_t* codes, int b, int8_t* group, int16_t* words, int32_t* sums,
                        int32_t* first_sums) {
  for (int i = 0; i < 16; ++i)
    for (int second = 0; second < 2; ++second) {
      const int code = codes[16 * second + i], lower = static_cast<int8_t>(code & 255);
      const int place = 64 * second + 16 * b + i;
      group[place] = static_cast<int8_t>((code - lower) / 256);
      group[kGroup + place] = static_cast<int8_t>(lower);
      words[word_place(b, second, i)] = static_cast<int16_t>(code);
    }
  for (int lane = 0; lane < 4; ++lane) {
    int firsts = 0, seconds = 0;
    for (int i = 4 * lane; i < 4 * lane + 4; ++i) {
      firsts += codes[i];
      seconds += codes[16 + i];
    }
    first_sums[4 * b + lane] = -firsts;
    sums[4 * b + lane] = -firsts - seconds;
  }
}

inline void to_fixed(const float* x, int cols, std::byte* fixed) {
  const FixedRowOut row{fixed, padded_columns(cols)};
  if (cols < row.padded) std::memset(fixed, 0, fixed_bytes(cols));
  for (int block = 0; block * kBlock < cols; ++block) {
    int16_t codes[kBlock];
    float& scale = row.scales()[block];
    row.scaled_sums()[block] = static_cast<float>(fix_block(x + block * kBlock, codes, &scale));
    row.scaled_sums()[block] *= scale;
    const int group = block / kGroupBlocks;
    place_codes(codes, block % kGroupBlocks, row.codes() + 2 * kGroup * group,
                row.words() + kGroup * group, row.sums() + 16 * group,
                row.first_sums() + 16 * group);
  }
}

}  // namespace
}  // namespace thermocline
