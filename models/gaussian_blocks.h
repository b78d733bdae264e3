// Blocks of 32 Gaussian elements, written in their own format straight from random bytes.
//
// A byte k stands for the normal quantile at (k + 1/2) / 256; every format scales and rounds that
//   same table, so one seed gives one model in f32, and its rounding in every other format.
// Goals: the speed of memory, since no f32 value is made and quantised; variance known exactly.
// Non-goals: tails beyond 2.9 standard deviations; K-quants, whose blocks are 256 elements.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "models/dtype.h"

namespace thermocline {

inline constexpr int kGaussianBlockItems = 32;

class GaussianBlocks {
 public:
  // Elements of standard deviation `std_dev`, to within the rounding of an f16 scale.
  GaussianBlocks(DType dtype, double std_dev);

  // 32 bytes make one block of bytes_of(dtype, 32) bytes.
  void encode(const uint8_t* random, uint64_t block_count, std::byte* out) const;

 private:
  DType dtype_;
  uint16_t scale_;                  // f16: of a quantised block, or of the table
  std::array<uint32_t, 256> code_;  // the element of each byte, as bits of the type
};

// 32 elements of `value`; exact where value / 8 (q4_0), value / 16 (q5_0), value / 127 (q8_0) or
// value (q4_1, q5_1) is an f16 number.
void encode_equal_block(DType dtype, float value, std::byte* out);

}  // namespace thermocline
