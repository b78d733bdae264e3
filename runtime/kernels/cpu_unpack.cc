// cpu_unpack_row: cpu_layout.cc backwards.
#include <cstring>

#include "runtime/kernels/cpu_layout.h"

namespace thermocline {
namespace {

using Bytes = const std::byte*;

// The codes of a block of 32 columns, unsigned.
struct BlockCodes {
  uint8_t at[kBlock];
};

// Of block b of a group of `count`.
template <DType D>
BlockCodes read_codes(Bytes codes, Bytes further, int b, int count) {
  BlockCodes block;
  for (int c = 0; c < kBlock; ++c) {
    const int i = 16 * b + c % 16, second = c / 16;
    int code = 0;
    if constexpr (code_bits(D) == 8) {
      code = static_cast<int>(codes[16 * second * count + i]);
    } else {
      code = static_cast<int>(codes[i]) >> 4 * second & 15;
    }
    if constexpr (code_bits(D) == 5)
      code |= (static_cast<int>(further[2 * count * second + i / 8]) >> i % 8 & 1) << 4;
    if constexpr (code_bits(D) == 6)
      code |= (static_cast<int>(further[i % 32]) >> (4 * second + i / 32 * 2) & 3) << 4;
    block.at[c] = static_cast<uint8_t>(code);
  }
  return block;
}

// Into a block of the file format, whose bits of codes are zero; `step` says which 32 columns.
template <DType D>
void add_codes(const BlockCodes& codes, int step, std::byte* block) {
  constexpr int kLowAt =
      static_cast<int>(facts(D).bytes_per_block) - static_cast<int>(facts(D).items_per_block) / 2;
  for (int i = 0; i < kBlock; ++i) {
    const int code = codes.at[i];
    if constexpr (D == DType::q8_0) {
      block[2 + i] = std::byte(code ^ 128);
    } else if constexpr (D == DType::q6_k) {
      const int half = step / 4, group = step % 4;
      block[half * 64 + group % 2 * 32 + i] |= std::byte((code & 15) << group / 2 * 4);
      block[128 + half * 32 + i] |= std::byte(code >> 4 << 2 * group);
    } else {
      block[kLowAt + step / 2 * 32 + i] |= std::byte((code & 15) << step % 2 * 4);
      if constexpr (D == DType::q5_k) block[16 + i] |= std::byte(code >> 4 << step);
    }
  }
}

// Blocks of 32 columns of 4 or 5 bits: bytes go back as they came.
template <DType D>
void copy_codes(Bytes codes, Bytes further, int count, std::byte* blocks) {
  constexpr int kBytes = facts(D).bytes_per_block, kLowAt = kBytes - 16;
  for (int b = 0; b < count; ++b, blocks += kBytes) {
    std::memcpy(blocks + kLowAt, codes + 16 * b, 16);
    if constexpr (code_bits(D) == 5) {
      std::memcpy(blocks + kLowAt - 4, further + 2 * b, 2);
      std::memcpy(blocks + kLowAt - 2, further + 2 * (count + b), 2);
    }
  }
}

// A group whose first block in the row is `first`.
template <DType D>
void unpack_group(Bytes codes, Bytes further, int first, int count, std::byte* row) {
  constexpr int kBytes = facts(D).bytes_per_block, kSteps = facts(D).items_per_block / kBlock;
  if constexpr (kSteps == 1 && code_bits(D) < 8) {
    copy_codes<D>(codes, further, count, row + static_cast<size_t>(first) * kBytes);
  } else {
    for (int b = 0; b < count; ++b)
      add_codes<D>(read_codes<D>(codes, further, b, count), (first + b) % kSteps,
                   row + static_cast<size_t>((first + b) / kSteps) * kBytes);
  }
}

template <DType D>
void read_scales(Bytes scales, Bytes more, int index, std::byte* block) {
  if constexpr (D == DType::q6_k) {
    for (int i = 0; i < kChunkBlocks; ++i) {
      block[192 + 2 * i] = scales[16 * index + i];
      block[192 + 2 * i + 1] = scales[16 * index + 8 + i];
    }
    std::memcpy(block + 208, more + 2 * index, 2);
  } else if constexpr (is_super_block(D)) {
    std::memcpy(block, scales + 16 * index, 16);
  } else {
    std::memcpy(block, scales + 2 * index, 2);
    if constexpr (has_minimum(D)) std::memcpy(block + 2, more + 2 * index, 2);
  }
}

template <DType D>
void unpack_row(int cols, Bytes from, std::byte* to) {
  constexpr int kBytes = facts(D).bytes_per_block, kSteps = facts(D).items_per_block / kBlock;
  const int block_count = cols / kBlock;
  const RowPlanes planes = planes_of(D, cols);
  std::memset(to, 0, bytes_of(D, static_cast<uint64_t>(cols)));
  for (int first = 0; first < block_count; first += kGroupBlocks) {
    const int count = block_count - first < kGroupBlocks ? block_count - first : kGroupBlocks;
    const auto at = static_cast<size_t>(first);
    unpack_group<D>(from + at * code_bytes(D), from + planes.further + at * further_bytes(D), first,
                    count, to);
  }
  for (int index = 0; index * kSteps < block_count; ++index)
    read_scales<D>(from + planes.scales, from + planes.more_scales, index,
                   to + static_cast<size_t>(index) * kBytes);
}

}  // namespace

void cpu_unpack_row(DType dtype, int cols, Bytes from, std::byte* to) {
  switch (dtype) {
    case DType::q8_0:
      return unpack_row<DType::q8_0>(cols, from, to);
    case DType::q4_0:
      return unpack_row<DType::q4_0>(cols, from, to);
    case DType::q4_1:
      return unpack_row<DType::q4_1>(cols, from, to);
    case DType::q5_0:
      return unpack_row<DType::q5_0>(cols, from, to);
    case DType::q5_1:
      return unpack_row<DType::q5_1>(cols, from, to);
    case DType::q4_k:
      return unpack_row<DType::q4_k>(cols, from, to);
    case DType::q5_k:
      return unpack_row<DType::q5_k>(cols, from, to);
    case DType::q6_k:
      return unpack_row<DType::q6_k>(cols, from, to);
    default:
      std::memcpy(to, from, bytes_of(dtype, static_cast<uint64_t>(cols)));
  }
}

}  // namespace thermocline
