// Rows of a weight matrix, as the CPU kernels walk them: in blocks, by masks, in pieces.
//
// Internal linkage, like every header that the files of the instruction sets include: inline
//   functions from elsewhere are not called, since the linker keeps one copy of those, and code
//   for a newer machine must not leak into the others.
// Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/kernels.h"

namespace thermocline {
namespace {

constexpr int kLanes = 16;     // floats of a vector
constexpr int kStep = 32;      // columns decoded at a time: two vectors of 16 lanes
constexpr int kTileRows = 4;   // rows in a full tile
constexpr int kBlockRows = 8;  // rows whose successors are asked for meanwhile
constexpr int kTokens = 4;     // tokens that a tile takes at most

template <DType D>
constexpr size_t row_bytes(size_t cols) {
  constexpr size_t kItems = facts(D).items_per_block, kBytes = facts(D).bytes_per_block;
  return cols / kItems * kBytes;
}

// Asks for `kBytes` that will be read soon: the hardware's own prefetching is led astray by the
// inputs that are read in between. To the second cache (locality 2), whose misses more may be under
// way of at a time.
template <int kBytes>
[[gnu::always_inline]] inline void prefetch(const std::byte* from) {
  constexpr int kLine = 64;
#pragma GCC unroll 8
  for (int at = 0; at < kBytes; at += kLine) __builtin_prefetch(from + at, 0, 2);
}

// A chunk of a quantised row. Chunks share lines of scales; asking again costs little.
template <DType D>
[[gnu::always_inline]] inline void prefetch_chunk(const std::byte* row, const RowPlanes& planes,
                                                  int chunk) {
  constexpr int kCodes = kChunkBlocks * code_bytes(D), kFurther = kChunkBlocks * further_bytes(D);
  constexpr int kMore = more_scale_bytes(D);
  prefetch<kCodes>(row + chunk * kCodes);
  prefetch<kFurther>(row + planes.further + chunk * kFurther);
  prefetch<16>(row + planes.scales + chunk * 16);
  prefetch<kMore>(row + planes.more_scales + chunk * kMore);
}

// Up to kBlockRows rows, in ascending order, and the rows that will be wanted next: a tile
// prefetches those while it reads its own.
struct RowBlock {
  const std::byte* rows[kBlockRows] = {};
  const std::byte* ahead[kBlockRows] = {};
  int index[kBlockRows] = {};
  int count = 0;

  void add(const std::byte* row, int r) {
    rows[count] = row;
    index[count++] = r;
  }
  void look_ahead(const RowBlock& next) {
    for (int i = 0; i < kBlockRows; ++i) ahead[i] = i < next.count ? next.rows[i] : rows[i];
  }
};

// Where rows lie; `data` may be moved to a later column.
struct RowMemory {
  const std::byte* data;
  size_t stride;
  const std::byte* at(int r) const { return data + static_cast<size_t>(r) * stride; }
};

// Rows [row_begin, row_end), in blocks that know their next ones.
template <class Visit>
void for_each_block(const RowMemory& memory, int row_begin, int row_end, Visit visit) {
  for (int r = row_begin; r < row_end; r += kBlockRows) {
    RowBlock block, next;
    for (int i = r; i < row_end && i < r + kBlockRows; ++i) block.add(memory.at(i), i);
    for (int i = r + kBlockRows; i < row_end && i < r + 2 * kBlockRows; ++i)
      next.add(memory.at(i), i);
    block.look_ahead(next);
    visit(block);
  }
}

// Calls visit(row) for the rows in [row_begin, row_end) whose bit is set, ascending; word_at(i) is
// word i of the mask.
template <class WordAt, class Visit>
void for_each_row(WordAt word_at, int row_begin, int row_end, Visit visit) {
  for (int begin = row_begin / 64 * 64; begin < row_end; begin += 64) {
    uint64_t bits = word_at(begin / 64);
    if (begin < row_begin) bits &= ~uint64_t{0} << (row_begin - begin);
    if (row_end - begin < 64) bits &= ~(~uint64_t{0} << (row_end - begin));
    for (; bits != 0; bits &= bits - 1) visit(begin + __builtin_ctzll(bits));
  }
}

// The same rows in blocks.
template <class WordAt, class Visit>
void for_each_block(WordAt word_at, const RowMemory& memory, int row_begin, int row_end,
                    Visit visit) {
  RowBlock before, block;
  const auto pass_on = [&] {
    if (before.count > 0) {
      before.look_ahead(block);
      visit(before);
    }
    before = block;
    block.count = 0;
  };
  for_each_row(word_at, row_begin, row_end, [&](int r) {
    block.add(memory.at(r), r);
    if (block.count == kBlockRows) pass_on();
  });
  pass_on();
  pass_on();
}

// Rows of a panel, and tokens that share what it decodes. A part of its columns takes 16 KiB of the
// nearest cache; tokens' inputs for that part come from the next one, once for all rows.
constexpr int kPanelRows = 8;
constexpr int kPanelBytes = 2048;  // of a row
constexpr int kPanelTokens = 64;

// Masks of several tokens.
struct Masks {
  const uint64_t* words;
  int stride;

  uint64_t word(int t, int i) const { return words[static_cast<size_t>(t) * stride + i]; }
  uint64_t any(int token_count, int i) const {
    uint64_t all = 0;
    for (int t = 0; t < token_count; ++t) all |= word(t, i);
    return all;
  }
  // Those of `token_count` tokens that want row r; returns how many.
  int tokens_of(int r, int token_count, int* tokens) const {
    int count = 0;
    for (int t = 0; t < token_count; ++t) {
      tokens[count] = t;
      count += static_cast<int>(word(t, r / 64) >> (r % 64) & 1);
    }
    return count;
  }
  Masks from(int t) const { return {words + static_cast<size_t>(t) * stride, stride}; }
};

// A tile of R rows (or tokens) at a time over `count`, the rest by R / 2, and so on:
// visit.template operator()<R>(first).
template <int R, class Visit>
[[gnu::always_inline]] inline void in_tiles(int first, int count, const Visit& visit) {
  for (; first + R <= count; first += R) visit.template operator()<R>(first);
  if constexpr (R > 1) {
    if (first < count) in_tiles<R / 2>(first, count, visit);
  }
}

}  // namespace
}  // namespace thermocline
