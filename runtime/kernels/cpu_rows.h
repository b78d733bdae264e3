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
constexpr int kTileRows = 8;   // rows in a full tile
constexpr int kBlockRows = 8;  // rows whose successors are asked for meanwhile
constexpr int kTokens = 4;     // tokens that a tile takes at most

constexpr int smaller(int a, int b) { return a < b ? a : b; }

template <DType D>
constexpr size_t row_bytes(size_t cols) {
  constexpr size_t kItems = facts(D).items_per_block, kBytes = facts(D).bytes_per_block;
  return cols / kItems * kBytes;
}

// Up to N rows, in ascending order, and the rows that will be wanted next: a tile prefetches those
// while it reads its own.
template <int N>
struct RowBlockOf {
  const std::byte* rows[N] = {};
  const std::byte* ahead[N] = {};
  int index[N] = {};
  int count = 0;

  void add(const std::byte* row, int r) {
    rows[count] = row;
    index[count++] = r;
  }
  // The last row stands in the places that are left.
  void fill_up() {
    for (int i = count; count > 0 && i < N; ++i) rows[i] = rows[count - 1];
  }
  void look_ahead(const RowBlockOf& next) {
    for (int i = 0; i < N; ++i) ahead[i] = i < next.count ? next.rows[i] : rows[i];
  }
};
using RowBlock = RowBlockOf<kBlockRows>;

// Where rows lie; `data` may be moved to a later column.
struct RowMemory {
  const std::byte* data;
  size_t stride;
  const uint32_t* places = nullptr;  // see WeightView
  const std::byte* at(int r) const {
    return data + (places != nullptr ? places[r] : static_cast<size_t>(r)) * stride;
  }
};

// Whether a block's rows had better be neighbours than of runs of their own. One core, of what
// `largest` reads: on a Zen 4, Q4_0 91 instead of 82 %, bf16 and Q8_0 the same; but on an Emerald
// Rapids, whose prefetching follows long streams, bf16 84 instead of 95, Q8_0 82 instead of 95,
// Q4_0 77 instead of 88 (by tiles of four rows).
inline bool prefers_neighbours() {
#ifdef __x86_64__
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

// Rows [row_begin, row_end), in whole blocks that know their next ones: neighbours, or one of each
// of eight runs of rows. The length of runs is odd: rows that are a multiple of 512 bytes apart, as
// quantised ones are, then lie in all parts of the nearest cache, and not in one, where each drives
// out the others and the inputs (on that Zen 4 Q4_0 82 instead of 74 %). Where rows do not fill the
// blocks some are in two, and computed twice, to the same values.
template <class Visit>
void for_each_block(const RowMemory& memory, int row_begin, int row_end, bool neighbours,
                    Visit visit) {
  if (row_begin >= row_end) return;
  const int blocks = (row_end - row_begin + kBlockRows - 1) / kBlockRows;
  const int length = neighbours ? blocks : blocks | 1;  // of a run
  const auto block_at = [&](int i) {
    RowBlock block;
    for (int j = 0; j < kBlockRows; ++j) {
      const int r = neighbours ? smaller(row_begin + i * kBlockRows + j, row_end - 1)
                               : smaller(row_begin + j * length, row_end - length) + i;
      block.add(memory.at(r), r);
    }
    return block;
  };
  RowBlock pair[2] = {block_at(0)};
  for (int i = 0, now = 0; i < length; ++i, now = 1 - now) {
    pair[1 - now] = block_at(smaller(i + 1, length - 1));
    pair[now].look_ahead(pair[1 - now]);
    visit(pair[now]);
  }
}

// The rows in [row_begin, row_end) whose bit is set, ascending, in blocks of up to N that know
// their next ones; word_at(i) is word i of the mask.
template <int N, class WordAt>
class RowWalk {
 public:
  RowWalk(WordAt word_at, const RowMemory& memory, int row_begin, int row_end)
      : word_at_(word_at), memory_(memory), word_begin_(row_begin / 64 * 64), end_(row_end) {
    bits_ = bits_at(word_begin_) & ~uint64_t{0} << (row_begin - word_begin_);
    take(blocks_[1]);
    step();
  }

  const RowBlockOf<N>& block() const { return blocks_[now_]; }  // empty at the end
  void step() {
    now_ = 1 - now_;
    RowBlockOf<N>& next = blocks_[1 - now_];
    take(next);
    blocks_[now_].look_ahead(next);
  }

 private:
  uint64_t bits_at(int begin) const {
    if (begin >= end_) return 0;
    const uint64_t bits = word_at_(begin / 64);
    return end_ - begin < 64 ? bits & ~(~uint64_t{0} << (end_ - begin)) : bits;
  }
  void take(RowBlockOf<N>& block) {
    block.count = 0;
    while (block.count < N && word_begin_ < end_) {
      for (; bits_ != 0 && block.count < N; bits_ &= bits_ - 1) {
        const int r = word_begin_ + __builtin_ctzll(bits_);
        block.add(memory_.at(r), r);
      }
      if (bits_ == 0) bits_ = bits_at(word_begin_ += 64);
    }
    block.fill_up();
  }

  WordAt word_at_;
  RowMemory memory_;
  int word_begin_, end_;
  uint64_t bits_ = 0;
  RowBlockOf<N> blocks_[2];  // one, and the next
  int now_ = 0;
};

// The same rows.
template <class WordAt, class Visit>
void for_each_block(WordAt word_at, const RowMemory& memory, int row_begin, int row_end,
                    Visit visit) {
  for (RowWalk<kBlockRows, WordAt> walk(word_at, memory, row_begin, row_end);
       walk.block().count > 0; walk.step())
    visit(walk.block());
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

// A tile of R rows (or tokens) at a time over `count`, the rest by kNext, by half of that, and so
// on: visit.template operator()<R>(first). With kNext = 1 the rest goes one by one: of rows few are
// left over, and each width is compiled anew for every type.
template <int R, int kNext = R / 2, class Visit>
[[gnu::always_inline]] inline void in_tiles(int first, int count, const Visit& visit) {
  for (; first + R <= count; first += R) visit.template operator()<R>(first);
  if constexpr (R > 1) {
    if (first < count) in_tiles<kNext>(first, count, visit);
  }
}

}  // namespace
}  // namespace thermocline
