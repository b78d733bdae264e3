// In which order the bytes of a quantised weight row lie for the CPU's kernels.
//
// A row holds planes: the codes of all its columns, their further bits, then the scales. Codes are
//   read by the cache line from where a line begins, and nothing that decoding needs is scattered
//   among them. A row keeps its length; types without blocks stay as they are.
// Codes are unsigned and decoded 128 columns, a group, at a time: 16 lanes of 4 bytes, four lanes
//   for each of four blocks of 32 columns. Lane l has columns 4 * (l % 4) + 0..3 of its block in
//   its bytes' low halves (`first`) and columns 16 + those in the high halves (`second`):
//   4 to 6 bits: 16 bytes a block, first | second << 4. 8 bits (biased by 128, so that they are
//   unsigned): of each group first all firsts, then all seconds.
//   Fifth bits: of each group 2 bytes a block for its firsts, then 2 for its seconds.
//   Fifth and sixth bits: of each group 32 bytes; byte i has those of first i, first 32 + i,
//   second i, second 32 + i from its lowest bits on.
// Scales are converted a chunk of 256 columns, eight blocks, at a time:
//   Q8_0, Q4_0, Q5_0: d of each block. Q4_1, Q5_1: d of each block, then m of each.
//   Q4_K, Q5_K: the first 16 bytes of each super-block.
//   Q6_K: of each super-block 8 scales of columns 0..15 of its blocks, then 8 of columns 16..31;
//   then d of each super-block.
// Rows of blocks of 32 may end with a part of a group, which has so many blocks as are left.
// Thread-safety: constants and pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/dtype.h"

namespace thermocline {

inline constexpr int kBlock = 32;  // columns that share a scale
inline constexpr int kGroup = 128;
inline constexpr int kGroupBlocks = kGroup / kBlock;
inline constexpr int kChunk = 256;
inline constexpr int kChunkBlocks = kChunk / kBlock;

// Blocks of 256 columns, whose scales are small integers times a common one.
constexpr bool is_super_block(DType dtype) { return facts(dtype).items_per_block == kChunk; }

// Whether something is added to scale times code.
constexpr bool has_minimum(DType dtype) {
  return dtype == DType::q4_1 || dtype == DType::q5_1 || dtype == DType::q4_k ||
         dtype == DType::q5_k;
}

constexpr int code_bits(DType dtype) {
  switch (dtype) {
    case DType::q8_0:
      return 8;
    case DType::q6_k:
      return 6;
    case DType::q5_0:
    case DType::q5_1:
    case DType::q5_k:
      return 5;
    default:
      return 4;
  }
}

// The code that stands for zero, a power of two: 1 << zero_shift; no such code without a shift.
constexpr int zero_shift(DType dtype) { return has_minimum(dtype) ? 0 : code_bits(dtype) - 1; }
constexpr int zero_code(DType dtype) { return has_minimum(dtype) ? 0 : 1 << zero_shift(dtype); }

// Scales of a chunk, eight of them at a time: one a block; of Q6_K those of columns 0..15, then
// those of 16..31. The minimums follow, as they are added.
constexpr int scale_sets(DType dtype) { return dtype == DType::q6_k ? 2 : 1; }
constexpr int scale_count(DType dtype) {
  return kChunkBlocks * (scale_sets(dtype) + (has_minimum(dtype) ? 1 : 0));
}

// Bytes of a block of 32 columns in the first two planes.
constexpr int code_bytes(DType dtype) { return code_bits(dtype) == 8 ? 32 : 16; }
constexpr int further_bytes(DType dtype) {
  return code_bits(dtype) == 5 ? 4 : code_bits(dtype) == 6 ? 8 : 0;
}

// Bytes of a chunk in the last plane: m of its blocks, or d of a super-block; not all types have
// it.
constexpr int more_scale_bytes(DType dtype) {
  if (dtype == DType::q6_k) return 2;
  return has_minimum(dtype) && !is_super_block(dtype) ? 2 * kChunkBlocks : 0;
}

// Where the planes of a row of `cols` columns begin.
struct RowPlanes {
  size_t further, scales, more_scales;
};
[[gnu::always_inline]] constexpr RowPlanes planes_of(DType dtype, int cols) {
  const size_t blocks = static_cast<size_t>(cols) / kBlock;
  const size_t further = blocks * code_bytes(dtype);
  const size_t scales = further + blocks * further_bytes(dtype);
  return {further, scales, scales + blocks * 2};  // 16 bytes of a super-block are 2 a block too
}

// A row of `cols` elements of any type from the file format's order; they may not overlap.
void cpu_pack_row(DType dtype, int cols, const std::byte* from, std::byte* to);
// And back: the very bytes that were packed.
void cpu_unpack_row(DType dtype, int cols, const std::byte* from, std::byte* to);

}  // namespace thermocline
