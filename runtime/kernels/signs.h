// Signs as bits, and the rows of a matrix whose signs agree with those of an input.
//
// The sign of a number is 1 where it is below zero: not of a zero of either sign, nor of a NaN. A
//   row of signs has sign_words(cols) words in little bit order; bits beyond its last column are 0.
// Goals: counts are integers, so they are the same on every machine; a row is read once for all
//   tokens of a call, and as fast as memory gives it.
// Non-goals: what the signs are of. Thread-safety: pure functions of their arguments.
#pragma once

#include <cstdint>

namespace thermocline {

constexpr int sign_words(int cols) { return (cols + 63) / 64; }

// words: sign_words(cols)
void signs_of(const float* x, int cols, uint64_t* words);

struct SignKernels {
  const char* name;  // "avx512" (with VPOPCNTDQ) | "popcnt" | "portable"

  // Bit r of bits[t], for r in [row_begin, row_end): whether row r of `signs` differs from x[t] in
  // at most `differing_max` columns. row_begin is a multiple of 64; the last word is zero beyond
  // row_end. signs: (rows, words); x: (token_count, words); bits: (token_count, stride).
  void (*match)(const uint64_t* signs, int words, int row_begin, int row_end, const uint64_t* x,
                int token_count, int differing_max, uint64_t* bits, uint64_t stride);
};

// The set called `name`; null if there is none or this machine cannot run it.
const SignKernels* sign_kernels_by_name(const char* name);

// The fastest that this machine can run; TC_KERNELS=portable asks for that one.
const SignKernels& sign_kernels();

}  // namespace thermocline
