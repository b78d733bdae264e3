// Dot products of quantised rows with inputs in fixed point (Inputs::fixed).
//
// A group's 128 products of codes are added exactly, as integers, eight to each of 16 lanes; these
//   become f32 and are added to 16 lanes of sums by one fused multiply-add, times the product of
//   the two scales. A minimum, which has a scale of its own, meets the sums of the inputs, those of
//   block s of a chunk in lane s.
// A row in memory is decoded as it is read, to bytes, and what its type subtracts from codes is
//   subtracted from their sums; a panel's rows are kept as words less that, whose products with a
//   token's words take fewer instructions.
// V::codes<D>(codes, further) are a group's codes (cpu_layout.h), V::dot<D, kPart> the 16 sums as
//   f32, V::read_scales<D> the scales of a chunk, V::spread gives four scales to four lanes each:
//   from a register, since what was stored a moment ago is slow to read in parts.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"
#include "runtime/kernels/cpu_fixed.h"

namespace thermocline {
namespace {

template <class V, DType D>
struct FixedDot {
  using Bytes = typename V::Bytes;
  using Words = typename V::Words;
  static constexpr int kSets = scale_sets(D);
  static constexpr int kFirstPart = kSets == 1 ? 0 : 1;  // what the first set's scales are of

  // The inputs of a token.
  using Row = FixedRow;
  static Row row_of(const Inputs& x, int cols, int t) {
    return {x.fixed + static_cast<size_t>(t) * fixed_bytes(cols), padded_columns(cols)};
  }

  // Columns [begin, begin + width) of a row.
  static void prefetch_columns(const std::byte* row, int cols, int begin, int width) {
    const RowPlanes planes = planes_of(D, cols);
    for (int c = begin; c < begin + width; c += kChunk) prefetch_chunk<D>(row, c / kChunk, planes);
  }

  // Rows as they lie in memory, and those that will be read next.
  struct Stored {
    const std::byte* const* rows;
    const std::byte* const* ahead;
    int cols;
    RowPlanes planes = planes_of(D, cols);

    // Of row r and a chunk of `blocks` blocks, in `room`.
    const float* scales(int r, int chunk, int blocks, float (&room)[scale_count(D)]) const {
      constexpr int kChunks = kScalesColumns / kChunk;
      if (chunk % kChunks == 0)
        Asked<V::kRequests.scales>(rows, ahead, chunk / kChunks, places_of_scales(cols))
            .template of_row<prefetch_rest<V::kRequests.cache, D, kScalesColumns>>(r, planes);
      read_scales<V, D>(rows[r], planes, chunk, blocks, room);
      return room;
    }
    // What is asked for while a group is read.
    using Ahead = Asked<product_requests<V, D>()>;
    [[gnu::always_inline]] Ahead ahead_of(int group) const {
      return {rows, ahead, group, cols / kGroup};
    }
    template <bool kWhole>
    [[gnu::always_inline]] Bytes codes(int r, int group, const Ahead& asked) const {
      asked.template of_row<prefetch_codes<V::kRequests.cache, D>>(r);
      return codes_of_group<V, D, kWhole>(rows[r], planes, cols, group);
    }
    // The 16 sums of kPart of a group's products (V::dot).
    template <int kPart>
    [[gnu::always_inline]] static V dot(const Bytes& codes, const Row& x, int group) {
      return V::template dot<D, kPart>(codes, x.codes() + 2 * kGroup * group, x.sums() + 16 * group,
                                       x.first_sums() + 16 * group);
    }
  };

  // Decoded columns of up to kPanelRows rows, which several tokens share.
  struct Panel {
    static constexpr int kCols = kPanelBytes / sizeof(int16_t);
    struct Codes {
      Words of[kGroupWords];
    };
    alignas(64) int16_t words[kPanelRows][kCols];
    alignas(64) float of_chunks[kPanelRows][kCols / kChunk][scale_count(D)];
    int begin;  // the first column, a multiple of kCols
    int first;  // which row is 0

    // Columns [from, from + width) of `count` rows.
    void decode(const std::byte* const* rows, int cols, int count, int from, int width) {
      const RowPlanes planes = planes_of(D, cols);
      begin = from;
      for (int r = 0; r < count; ++r) {
        for (int c = 0; c < width; c += kChunk)
          read_scales<V, D>(rows[r], planes, (from + c) / kChunk, blocks_of_chunk(cols, from + c),
                            of_chunks[r][c / kChunk]);
        for (int c = 0; c < width; c += kGroup)
          V::template store_words<D>(words[r] + c, codes_of_group<V, D, false>(
                                                       rows[r], planes, cols, (from + c) / kGroup));
      }
    }

    const float* scales(int r, int chunk, int, float (&)[scale_count(D)]) const {
      return of_chunks[first + r][chunk - begin / kChunk];
    }
    struct Ahead {};
    Ahead ahead_of(int) const { return {}; }
    template <bool>
    [[gnu::always_inline]] Codes codes(int r, int group, Ahead) const {
      const int16_t* from = words[first + r] + group * kGroup - begin;
      Codes codes;
#pragma GCC unroll 4
      for (int i = 0; i < kGroupWords; ++i) codes.of[i] = V::load_words(from + 2 * kLanes * i);
      return codes;
    }
    template <int kPart>
    [[gnu::always_inline]] static V dot(const Codes& codes, const Row& x, int group) {
      constexpr int kFrom = kPart == 2 ? kGroupWords / 2 : 0;
      constexpr int kTo = kPart == 1 ? kGroupWords / 2 : kGroupWords;
      const int16_t* words = x.words() + kGroup * group;
      typename V::Ints sum = V::no_ints();
#pragma GCC unroll 4
      for (int i = kFrom; i < kTo; ++i)
        sum = V::dot_words(sum, codes.of[i], V::load_words(words + 2 * kLanes * i));
      return V::of_ints(sum);
    }

    template <int R, int T>
    [[gnu::always_inline]] void add_tile(int first_row, const Row* x, int width,
                                         SumTile<V, R, T>& sum) {
      first = first_row;
      add_products(*this, x, begin, width, sum);
    }
  };

  // sum.of[r][t] += rows[r] . x[t].
  template <int R, int T>
  [[gnu::always_inline]] static void add_tile(const std::byte* const* rows,
                                              const std::byte* const* ahead, const Row* x, int cols,
                                              SumTile<V, R, T>& sum) {
    add_products(Stored{rows, ahead, cols}, x, 0, cols, sum);
  }

  // Over columns [begin, begin + width).
  template <int R, int T, class Rows>
  [[gnu::always_inline]] static void add_products(const Rows& rows, const Row* x, int begin,
                                                  int width, SumTile<V, R, T>& sum) {
    int c = begin;
    for (; begin + width - c >= kChunk; c += kChunk)
      add_chunk<true>(rows, x, c / kChunk, kChunkBlocks, sum);
    if (c < begin + width) add_chunk<false>(rows, x, c / kChunk, (begin + width - c) / kBlock, sum);
  }

  // A chunk of `blocks` blocks; kWhole: of all that a chunk can have. Sums stay in registers where
  // nothing is asked on the way.
  template <bool kWhole, int R, int T, class Rows>
  [[gnu::always_inline]] static void add_chunk(const Rows& rows, const Row* x, int chunk,
                                               int blocks, SumTile<V, R, T>& sum) {
    alignas(64) float room[R][scale_count(D)];
    const float* scales[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      scales[r] = rows.scales(r, chunk, blocks, room[r]);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sum.of[r][t] = add_minimums(scales[r], x[t], chunk, sum.of[r][t]);
    }
    for_each_group<V, kWhole>(
        blocks, [&](int half) __attribute__((always_inline)) {
          add_group<kWhole>(rows, scales, x, chunk, half, sum);
        });
  }

  [[gnu::always_inline]] static V add_minimums(const float* scales, const Row& x, int chunk,
                                               V sum) {
    if constexpr (!has_minimum(D)) return sum;
    return V::fma(V::load_eight(scales + kChunkBlocks * kSets),
                  V::load_eight(x.scaled_sums() + chunk * kChunkBlocks), sum);
  }

  // A group's products; half: of its chunk.
  template <bool kWhole, int R, int T, class Rows>
  [[gnu::always_inline]] static void add_group(const Rows& rows, const float* const (&scales)[R],
                                               const Row* x, int chunk, int half,
                                               SumTile<V, R, T>& sum) {
    const int group = 2 * chunk + half;
    const auto asked = rows.ahead_of(group);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto codes = rows.template codes<kWhole>(r, group, asked);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const auto scale = [&](int set) __attribute__((always_inline)) {
          return V::spread(V::mul(V::load_eight(scales[r] + kChunkBlocks * set),
                                  V::load_eight(x[t].scales() + chunk * kChunkBlocks)),
                           half);
        };
        V& to = sum.of[r][t];
        to = V::fma(scale(0), Rows::template dot<kFirstPart>(codes, x[t], group), to);
        if constexpr (kSets == 2)
          to = V::fma(scale(1), Rows::template dot<2>(codes, x[t], group), to);
      }
    }
  }
};

}  // namespace
}  // namespace thermocline
