#include "runtime/kernels/cpu_layout.h"

#include <cstring>

namespace thermocline {
namespace {

using Bytes = const std::byte*;

int byte_at(Bytes from, int i) { return static_cast<int>(from[i]); }

// The codes of a block of 32 columns, unsigned.
struct BlockCodes {
  uint8_t at[kBlock];
};

// Of Q8_0 and super-blocks, of which `step` says which 32 columns. Where the bits are:
// models/dtype.h.
template <DType D>
BlockCodes read_codes(Bytes block, int step) {
  constexpr int kLowAt =
      static_cast<int>(facts(D).bytes_per_block) - static_cast<int>(facts(D).items_per_block) / 2;
  BlockCodes codes;
  for (int i = 0; i < kBlock; ++i) {
    int code = 0;
    if constexpr (D == DType::q8_0) {
      code = byte_at(block, 2 + i) ^ 128;
    } else if constexpr (D == DType::q6_k) {
      const int half = step / 4, group = step % 4;
      code = (byte_at(block, half * 64 + group % 2 * 32 + i) >> group / 2 * 4 & 15) |
             (byte_at(block, 128 + half * 32 + i) >> 2 * group & 3) << 4;
    } else {
      code = byte_at(block, kLowAt + step / 2 * 32 + i) >> step % 2 * 4 & 15;
      if constexpr (D == DType::q5_k) code |= (byte_at(block, 16 + i) >> step & 1) << 4;
    }
    codes.at[i] = static_cast<uint8_t>(code);
  }
  return codes;
}

// Codes of `count` blocks of a group. Firsts are columns 0..15 of a block, seconds 16..31.
template <DType D>
void write_codes(const BlockCodes* blocks, int count, std::byte* codes) {
  for (int b = 0; b < count; ++b)
    for (int i = 0; i < 16; ++i) {
      const uint8_t first = blocks[b].at[i], second = blocks[b].at[16 + i];
      if constexpr (code_bits(D) == 8) {
        codes[16 * b + i] = std::byte{first};
        codes[16 * (count + b) + i] = std::byte{second};
      } else {
        codes[16 * b + i] = std::byte((first & 15) | (second & 15) << 4);
      }
    }
}

template <DType D>
void write_further_bits(const BlockCodes* blocks, int count, std::byte* further) {
  std::memset(further, 0, static_cast<size_t>(count) * further_bytes(D));
  for (int b = 0; b < count; ++b)
    for (int c = 0; c < kBlock; ++c) {
      const int bits = blocks[b].at[c] >> 4, i = 16 * b + c % 16, second = c / 16;
      if constexpr (code_bits(D) == 5)
        further[2 * count * second + i / 8] |= std::byte(bits << i % 8);
      if constexpr (code_bits(D) == 6)
        further[i % 32] |= std::byte(bits << (4 * second + i / 32 * 2));
    }
}

// Blocks of 32 columns of 4 or 5 bits have their codes in this order already, and fifth bits apart
// for columns 0..15 and 16..31.
template <DType D>
void copy_codes(Bytes blocks, int count, std::byte* codes, std::byte* further) {
  constexpr int kBytes = facts(D).bytes_per_block, kLowAt = kBytes - 16;
  for (int b = 0; b < count; ++b, blocks += kBytes) {
    std::memcpy(codes + 16 * b, blocks + kLowAt, 16);
    if constexpr (code_bits(D) == 5) {
      std::memcpy(further + 2 * b, blocks + kLowAt - 4, 2);
      std::memcpy(further + 2 * (count + b), blocks + kLowAt - 2, 2);
    }
  }
}

// Of a group whose first block in the row is `first`.
template <DType D>
void pack_group(Bytes row, int first, int count, std::byte* codes, std::byte* further) {
  constexpr int kBytes = facts(D).bytes_per_block, kSteps = facts(D).items_per_block / kBlock;
  if constexpr (kSteps == 1 && code_bits(D) < 8) {
    copy_codes<D>(row + static_cast<size_t>(first) * kBytes, count, codes, further);
  } else {
    BlockCodes blocks[kGroupBlocks];
    for (int b = 0; b < count; ++b)
      blocks[b] = read_codes<D>(row + static_cast<size_t>((first + b) / kSteps) * kBytes,
                                (first + b) % kSteps);
    write_codes<D>(blocks, count, codes);
    if constexpr (further_bytes(D) > 0) write_further_bits<D>(blocks, count, further);
  }
}

template <DType D>
void write_scales(Bytes block, int index, std::byte* scales, std::byte* more) {
  if constexpr (D == DType::q6_k) {
    for (int i = 0; i < kChunkBlocks; ++i) {
      scales[16 * index + i] = block[192 + 2 * i];
      scales[16 * index + 8 + i] = block[192 + 2 * i + 1];
    }
    std::memcpy(more + 2 * index, block + 208, 2);
  } else if constexpr (is_super_block(D)) {
    std::memcpy(scales + 16 * index, block, 16);
  } else {
    std::memcpy(scales + 2 * index, block, 2);
    if constexpr (has_minimum(D)) std::memcpy(more + 2 * index, block + 2, 2);
  }
}

template <DType D>
void pack_row(int cols, Bytes from, std::byte* to) {
  constexpr int kBytes = facts(D).bytes_per_block, kSteps = facts(D).items_per_block / kBlock;
  const int block_count = cols / kBlock;
  const RowPlanes planes = planes_of(D, cols);
  for (int first = 0; first < block_count; first += kGroupBlocks) {
    const int count = block_count - first < kGroupBlocks ? block_count - first : kGroupBlocks;
    const auto at = static_cast<size_t>(first);
    pack_group<D>(from, first, count, to + at * code_bytes(D),
                  to + planes.further + at * further_bytes(D));
  }
  for (int index = 0; index * kSteps < block_count; ++index)
    write_scales<D>(from + static_cast<size_t>(index) * kBytes, index, to + planes.scales,
                    to + planes.more_scales);
}

}  // namespace

void cpu_pack_row(DType dtype, int cols, Bytes from, std::byte* to) {
  switch (dtype) {
    case DType::q8_0:
      return pack_row<DType::q8_0>(cols, from, to);
    case DType::q4_0:
      return pack_row<DType::q4_0>(cols, from, to);
    case DType::q4_1:
      return pack_row<DType::q4_1>(cols, from, to);
    case DType::q5_0:
      return pack_row<DType::q5_0>(cols, from, to);
    case DType::q5_1:
      return pack_row<DType::q5_1>(cols, from, to);
    case DType::q4_k:
      return pack_row<DType::q4_k>(cols, from, to);
    case DType::q5_k:
      return pack_row<DType::q5_k>(cols, from, to);
    case DType::q6_k:
      return pack_row<DType::q6_k>(cols, from, to);
    default:
      std::memcpy(to, from, bytes_of(dtype, static_cast<uint64_t>(cols)));
  }
}

}  // namespace thermocline
