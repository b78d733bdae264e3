// Which f32 scales a kernel keeps for a chunk of columns, and which of them an element takes.
//
// A kernel decodes 32 columns at a time, a step; a chunk has eight steps: one block of a K-quant,
//   eight of the others. Its scales are unpacked once and lie in memory, from where an instruction
//   broadcasts them at no cost:
//   Q8_0, Q4_0, Q5_0: d of steps 0..7. Q4_1, Q5_1: the same, then m of steps 0..7. Q4_K, Q5_K:
//   d * s of steps 0..7, then -(dmin * m) of steps 0..7. Q6_K: d * s of each 16 columns.
// All are exact: an 11-bit d times at most 8 bits.
// Thread-safety: constants only.
#pragma once

#include "models/dtype.h"

namespace thermocline {

inline constexpr int kStepsPerChunk = 8;

template <DType D>
inline constexpr bool kIsSuperBlock = facts(D).items_per_block == 256;

// Whether something is added to scale times code.
template <DType D>
inline constexpr bool kHasMinimum =
    D == DType::q4_1 || D == DType::q5_1 || D == DType::q4_k || D == DType::q5_k;

// The code that stands for zero, where one does. Q6_K, whose scales differ within a step, is
// decoded less its 32.
template <DType D>
inline constexpr int kZeroCode = D == DType::q4_0   ? 8
                                 : D == DType::q5_0 ? 16
                                                    : 0;

// At least one, which types without blocks leave unused.
template <DType D>
inline constexpr int kScaleCount = facts(D).items_per_block == 1        ? 1
                                   : kHasMinimum<D> || D == DType::q6_k ? 2 * kStepsPerChunk
                                                                        : kStepsPerChunk;

// The scale of columns 0..15 (half 0) or 16..31 (half 1) of a step.
template <DType D>
constexpr int scale_at(int step, int half) {
  return D == DType::q6_k ? 2 * step + half : step;
}

template <DType D>
constexpr int minimum_at(int step) {
  return kStepsPerChunk + step;
}

}  // namespace thermocline
