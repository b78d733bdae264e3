// When the lines of a row are asked for, so that they are there when they are read: the hardware's
// own prefetching is led astray by the inputs that are read in between.
//
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_rows.h"

namespace thermocline {
namespace {

// The locality that __builtin_prefetch takes for it.
enum Cache { kSecondCache = 2, kFirstCache = 3 };

// How far ahead of its use a line is asked for, in parts of a row: bit i stands for 1 / 2^i; bit 0
// for the same line of a later row.
struct Requests {
  Cache cache;                   // more misses of the second may be under way at a time
  int floats;                    // for products and sums of types without blocks
  int product_bytes, sum_bytes;  // of quantised ones with codes of 8 bits
  int product_fewer, sum_fewer;  // and of fewer
  int scales;                    // for their scales and further bits, a line of scales at a time
};

// Once, where arithmetic is slower than memory, and asking again only takes time. But for types
// without blocks: 32 instead of 27 GB/s of bf16.
constexpr Requests kAskedOnce = {kSecondCache, 0b1111, 1, 1, 1, 1, 1};

// While lines are found in the cache fast arithmetic outruns memory and asks for more than can be
// under way: requests get lost, and each that is costs the whole way to memory. A Zen 4 core that
// reads 32 GB/s took in 23 of Q8_0 where it asked once, 24, 27 and 31 where twice to four times.
constexpr Requests kAskedAgain = {kSecondCache, 0b1111, 0b1111, 0b111, 0b11, 1, 1};

// A Zen 5 core is faster by far (Q8_0 at 110 GB/s from its cache, at 42 from memory) and loses most
// of what it asks for early. What it asks for shortly before, to the first cache, arrives: as if it
// could look ahead further than it does. One core, of what `largest` reads, like this and with
// kAskedAgain: Q4_0 93 and 66 %, Q8_0 88 and 58 %, bf16 90 and 80 %; sums 90, 86, 92 and 59,
// 56, 79.
constexpr Requests kAskedNearby = {kFirstCache, 0b111100, 0b1111100, 0b1111100,
                                   0b11100,     0b11100,  0b1101};

template <class V, DType D>
constexpr int product_requests() {
  constexpr Requests kAsked = V::kRequests;
  return !takes_fixed(D)     ? kAsked.floats
         : code_bits(D) == 8 ? kAsked.product_bytes
                             : kAsked.product_fewer;
}
template <class V, DType D>
constexpr int sum_requests() {
  constexpr Requests kAsked = V::kRequests;
  return !takes_fixed(D) ? kAsked.floats : code_bits(D) == 8 ? kAsked.sum_bytes : kAsked.sum_fewer;
}

constexpr int kScalesColumns = 1024;  // whose scales are a line
constexpr int places_of_scales(int cols) { return (cols + kScalesColumns - 1) / kScalesColumns; }

template <Cache kTo, int kBytes>
[[gnu::always_inline]] inline void prefetch(const std::byte* from) {
  constexpr int kLine = 64;
#pragma GCC unroll 8
  for (int at = 0; at < kBytes; at += kLine) __builtin_prefetch(from + at, 0, kTo);
}

// A step, from column c on, of a type without blocks.
template <Cache kTo, DType D>
[[gnu::always_inline]] inline void prefetch_step(const std::byte* row, int c) {
  prefetch<kTo, row_bytes<D>(kStep)>(row + row_bytes<D>(c));
}

// A group's codes, and the other planes of a place of kColumns.
template <Cache kTo, DType D>
[[gnu::always_inline]] inline void prefetch_codes(const std::byte* row, int group) {
  constexpr int kCodes = kGroupBlocks * code_bytes(D);
  prefetch<kTo, kCodes>(row + group * kCodes);
}
template <Cache kTo, DType D, int kColumns>
[[gnu::always_inline]] inline void prefetch_rest(const std::byte* row, int place,
                                                 const RowPlanes& planes) {
  constexpr int kFurther = kColumns / kBlock * further_bytes(D), kScales = kColumns / kBlock * 2,
                kMore = kColumns / kChunk * more_scale_bytes(D);
  prefetch<kTo, kFurther>(row + planes.further + place * kFurther);
  prefetch<kTo, kScales>(row + planes.scales + place * kScales);
  prefetch<kTo, kMore>(row + planes.more_scales + place * kMore);
}

// A chunk of a quantised row, for a panel, whose inputs have the first cache. Chunks share lines of
// scales; asking again costs little.
template <DType D>
[[gnu::always_inline]] inline void prefetch_chunk(const std::byte* row, int chunk,
                                                  const RowPlanes& planes) {
  constexpr int kCodes = kChunkBlocks * code_bytes(D);
  prefetch<kSecondCache, kCodes>(row + chunk * kCodes);
  prefetch_rest<kSecondCache, D, kChunk>(row, chunk, planes);
}

// Where the places lie that are to be asked for while place `at` of `count` of some rows is read;
// past the ends of these, they are of the later ones. Found once for all rows.
template <int kRequests>
struct Asked {
  static constexpr int kCount = __builtin_popcount(kRequests);
  const std::byte* const* rows[kCount];
  int places[kCount];

  [[gnu::always_inline]] Asked(const std::byte* const* now, const std::byte* const* later, int at,
                               int count) {
    int n = 0;
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      if ((kRequests >> i & 1) == 0) continue;
      const int place = at + (count >> i);
      const bool is_here = i > 0 && place < count;
      rows[n] = is_here ? now : later;
      places[n++] = is_here ? place : place - count;
    }
  }
  // ask(row, place, more) for those of row r.
  template <auto ask, class... More>
  [[gnu::always_inline]] void of_row(int r, const More&... more) const {
#pragma GCC unroll 8
    for (int n = 0; n < kCount; ++n) ask(rows[n][r], places[n], more...);
  }
};

}  // namespace
}  // namespace thermocline
