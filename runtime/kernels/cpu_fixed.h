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
// `words` has the codes once more, a group's in four times 16 lanes of two (place_words).
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

// A group's codes as bytes: the upper ones of its firsts and seconds, and the lower ones.
inline void place_bytes(const int16_t* codes, int8_t* bytes) {
  for (int block = 0; block < kGroupBlocks; ++block)
    for (int second = 0; second < 2; ++second) {
      int8_t* to = bytes + 64 * second + 16 * block;
      for (int i = 0; i < 16; ++i) {
        const int16_t code = codes[kBlock * block + 16 * second + i];
        const auto lower = static_cast<int8_t>(code & 255);
        to[i] = static_cast<int8_t>((code - lower) / 256);
        to[kGroup + i] = lower;
      }
    }
}

// And as words, the even columns of its firsts (16 lanes of two), the odd ones, and its seconds
// likewise: bytes 0 and 2 of a lane are neighbours, and so are 1 and 3, since a mask and a shift
// widen them so.
inline void place_words(const int16_t* codes, int16_t* words) {
  for (int block = 0; block < kGroupBlocks; ++block)
    for (int second = 0; second < 2; ++second) {
      const int16_t* from = codes + kBlock * block + 16 * second;
      int16_t* to = words + 4 * kLanes * second + 8 * block;
      for (int i = 0; i < 8; ++i) {
        to[i] = from[2 * i];
        to[2 * kLanes + i] = from[2 * i + 1];
      }
    }
}

// Minus the sums of each lane's codes, and of their firsts.
inline void place_sums(const int16_t* codes, int32_t* sums, int32_t* first_sums) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const int16_t* first = codes + kBlock * (lane / 4) + 4 * (lane % 4);
    const int16_t* second = first + 16;
    first_sums[lane] = -(first[0] + first[1] + first[2] + first[3]);
    sums[lane] = first_sums[lane] - (second[0] + second[1] + second[2] + second[3]);
  }
}

inline void to_fixed(const float* x, int cols, std::byte* fixed) {
  const FixedRowOut row{fixed, padded_columns(cols)};
  if (cols < row.padded) std::memset(fixed, 0, fixed_bytes(cols));
  for (int c = 0; c < cols; c += kGroup) {
    int16_t codes[kGroup];
    if (cols - c < kGroup) std::memset(codes, 0, sizeof codes);
    for (int i = 0; i < kGroup && c + i < cols; i += kBlock) {
      const int block = (c + i) / kBlock;
      float& scale = row.scales()[block];
      row.scaled_sums()[block] = static_cast<float>(fix_block(x + c + i, codes + i, &scale));
      row.scaled_sums()[block] *= scale;
    }
    place_bytes(codes, row.codes() + 2 * c);
    place_words(codes, row.words() + c);
    place_sums(codes, row.sums() + c / 8, row.first_sums() + c / 8);
  }
}

}  // namespace
}  // namespace thermocline
