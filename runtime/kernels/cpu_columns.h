// The columns of a row over a 16-lane f32 vector type V: a step of 32 of types without blocks, a
// group of 128 or a chunk of 256 of quantised ones (cpu_layout.h).
//
// V has kAccumulators (how many sums its registers hold), kUnrolls, kRequests (cpu_requests.h),
//   arithmetic on 16 lanes, and decodes: values<D> of a step; codes<D> of a group, read_scales<D>
//   of a chunk.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <cstring>
#include <utility>

#include "runtime/kernels/cpu_requests.h"

namespace thermocline {
namespace {

// Sanitized and emulated, unrolled loops would take minutes to compile.
#ifdef THERMOCLINE_ROLLED
constexpr bool kMayUnroll = false;
#else
constexpr bool kMayUnroll = true;
#endif

// What lies in memory stays there: the compiler would turn a store and the broadcasts that read it
// into shuffles.
template <class T>
[[gnu::always_inline]] inline void keep_in_memory(T& values) {
  asm("" : "+m"(values));
}

// R x T sums. They stay in registers where those who add to them are inlined: the compiler keeps
// what it gives away by reference in memory.
template <class V, int R, int T>
struct SumTile {
  V of[R][T];

  [[gnu::always_inline]] SumTile() {
    for_each([](V& sum, int, int) { sum = V::zero(); });
  }
  // from(r, t) is where the sum of row r and token t begins.
  template <class From>
  [[gnu::always_inline]] explicit SumTile(const From& from) {
    for_each([&](V& sum, int r, int t) { sum = V::load(from(r, t)); });
  }
  template <class To>
  [[gnu::always_inline]] void store(const To& to) const {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) V::store(to(r, t), of[r][t]);
  }

 private:
  template <class Visit>
  [[gnu::always_inline]] void for_each(const Visit& visit) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) visit(of[r][t], r, t);
  }
};

// Types without blocks.
template <class V>
struct Columns {
  struct Pair {
    V first, second;  // columns 0..15 and 16..31 of a step
  };

  [[gnu::always_inline]] static Pair load(const float* from) {
    return {V::load(from), V::load(from + 16)};
  }
  [[gnu::always_inline]] static void store(float* to, const Pair& pair) {
    V::store(to, pair.first);
    V::store(to + 16, pair.second);
  }

  // The first `count` < 32 columns of a step, the others zero.
  template <DType D>
  static Pair values_of_first(const std::byte* from, int count) {
    std::byte padded[row_bytes<D>(kStep)] = {};
    std::memcpy(padded, from, row_bytes<D>(count));
    Pair w;
    V::template values<D>(padded, w.first, w.second);
    return w;
  }
  static Pair load_first(const float* from, int count) {
    float padded[kStep] = {};
    std::memcpy(padded, from, count * sizeof(float));
    return load(padded);
  }
  static void store_first(float* to, const Pair& pair, int count) {
    float padded[kStep];
    store(padded, pair);
    std::memcpy(to, padded, count * sizeof(float));
  }

  [[gnu::always_inline]] static V fma_pair(const Pair& a, const Pair& b, V sum) {
    return V::fma(a.second, b.second, V::fma(a.first, b.first, sum));
  }
};

// Blocks of the chunk that begins with column c.
[[gnu::always_inline]] inline int blocks_of_chunk(int cols, int c) {
  return cols - c < kChunk ? (cols - c) / kBlock : kChunkBlocks;
}

// Calls visit(half) for the groups of a chunk of `blocks` blocks, all there can be if kWhole; where
// V wants them unrolled, with constants.
template <class V, bool kWhole, class Visit>
[[gnu::always_inline]] inline void for_each_group(int blocks, const Visit& visit) {
  if constexpr (V::kUnrolls) {
    visit(0);
    if (kWhole || blocks > kGroupBlocks) visit(1);
  } else {
    for (int half = 0; half * kGroupBlocks < blocks; ++half) visit(half);
  }
}

// The scales of a row's chunk of `blocks` blocks, in cpu_layout.h's order; those beyond are zero.
template <class V, DType D>
[[gnu::always_inline]] inline void read_scales(const std::byte* row, const RowPlanes& planes,
                                               int chunk, int blocks,
                                               float (&scales)[scale_count(D)]) {
  V::template read_scales<D>(row + planes.scales + 16 * chunk,
                             row + planes.more_scales + more_scale_bytes(D) * chunk, blocks,
                             scales);
}

// A group of fewer than four blocks, the others zeros.
template <DType D>
struct PaddedGroup {
  alignas(64) std::byte codes[kGroup] = {};
  std::byte further[kGroupBlocks * 8] = {};

  PaddedGroup(const std::byte* from, const std::byte* bits, int blocks) {
    std::memcpy(codes, from, 16 * blocks);
    if constexpr (code_bits(D) == 8)
      std::memcpy(codes + kGroup / 2, from + 16 * blocks, 16 * blocks);
    if constexpr (code_bits(D) == 5) {
      std::memcpy(further, bits, 2 * blocks);
      std::memcpy(further + 8, bits + 2 * blocks, 2 * blocks);
    }
  }
};

// What decode(codes, further) makes of a group of a row; kWhole: all of it is there.
template <DType D, bool kWhole, class Decode>
[[gnu::always_inline]] inline auto decode_group(const std::byte* row, const RowPlanes& planes,
                                                int cols, int group, const Decode& decode) {
  const std::byte* codes = row + group * (kGroupBlocks * code_bytes(D));
  const std::byte* further = row + planes.further + group * (kGroupBlocks * further_bytes(D));
  const int left = cols - group * kGroup;
  if (kWhole || is_super_block(D) || left >= kGroup) [[likely]]
    return decode(codes, further);
  const PaddedGroup<D> padded(codes, further, left / kBlock);
  return decode(padded.codes, padded.further);
}

template <class V, DType D, bool kWhole>
[[gnu::always_inline]] inline typename V::Bytes codes_of_group(const std::byte* row,
                                                               const RowPlanes& planes, int cols,
                                                               int group) {
  return decode_group<D, kWhole>(row, planes, cols, group, V::template codes<D>);
}

}  // namespace
}  // namespace thermocline
