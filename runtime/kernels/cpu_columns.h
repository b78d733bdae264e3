// The columns of a row, a step of 32 at a time, over a 16-lane f32 vector type V.
//
// V has kAccumulators (how many sums its registers hold), kUnrollsSteps, arithmetic on 16 lanes,
//   and decodes steps: values<D> and codes<D> (contracts below, where they are used).
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <cstring>
#include <utility>

#include "runtime/kernels/cpu_rows.h"

namespace thermocline {
namespace {

// What lies in memory stays there: the compiler would turn a store and the broadcasts that read it
// into shuffles.
template <class T>
[[gnu::always_inline]] inline void keep_in_memory(T& values) {
  asm("" : "+m"(values));
}

// R x T sums that stay in registers: the compiler keeps what it is given by reference in memory.
template <class V, int R, int T>
struct SumTile {
  V of[R][T];

  [[gnu::always_inline]] explicit SumTile(const V (&sums)[R][T]) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) of[r][t] = sums[r][t];
  }
  [[gnu::always_inline]] void copy_to(V (&sums)[R][T]) const {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sums[r][t] = of[r][t];
  }
};

template <class V>
struct Columns {
  struct Pair {
    V first, second;  // columns 0..15 and 16..31 of a step
  };

  // Calls visit(step) for `count` steps of a chunk; where V wants them unrolled, with constants.
  template <DType D, class Visit>
  [[gnu::always_inline]] static void for_each_step(int count, Visit visit) {
    if constexpr (V::kUnrollsSteps) {
      [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) __attribute__((always_inline)) {
        if (count == kSteps<D>) (visit(kIndex), ...);
      }
      (std::make_integer_sequence<int, kSteps<D>>{});
      if (count == kSteps<D>) return;
    }
    for (int step = 0; step < count; ++step) visit(step);
  }

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
    V::template values<D>(padded, 0, w.first, w.second);
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

}  // namespace
}  // namespace thermocline
