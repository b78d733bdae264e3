#include "runtime/kernels/signs.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#ifndef __clang__  // GCC 12's intrinsics begin with a register that is undefined on purpose
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#endif

namespace thermocline {
namespace {

constexpr int kWordBits = 64;
constexpr int kAhead = 512;  // words that are asked for before they are read, into the second cache

// The bits of up to 64 rows for one token: what each instruction set has its own way to do.
using MatchWord = uint64_t (*)(const uint64_t* signs, int words, int row_count, const uint64_t* x,
                               int differing_max);

template <MatchWord kMatchWord>
void match_rows(const uint64_t* signs, int words, int row_begin, int row_end, const uint64_t* x,
                int token_count, int differing_max, uint64_t* bits, uint64_t stride) {
  const auto width = static_cast<size_t>(words);
  for (int first = row_begin; first < row_end; first += kWordBits) {
    const int count = std::min(kWordBits, row_end - first);
    for (int t = 0; t < token_count; ++t)
      bits[static_cast<uint64_t>(t) * stride + static_cast<uint64_t>(first / kWordBits)] =
          kMatchWord(signs + static_cast<size_t>(first) * width, words, count,
                     x + static_cast<size_t>(t) * width, differing_max);
  }
}

// Four counts side by side: each waits for itself alone.
[[gnu::always_inline]] inline int count_differing(const uint64_t* a, const uint64_t* b, int words) {
  int counts[4] = {};
  int i = 0;
  for (; i + 4 <= words; i += 4) {
    __builtin_prefetch(a + i + kAhead, 0, 2);
    for (int k = 0; k < 4; ++k) counts[k] += std::popcount(a[i + k] ^ b[i + k]);
  }
  for (; i < words; ++i) counts[0] += std::popcount(a[i] ^ b[i]);
  return counts[0] + counts[1] + counts[2] + counts[3];
}

[[gnu::always_inline]] inline uint64_t match_word(const uint64_t* signs, int words, int row_count,
                                                  const uint64_t* x, int differing_max) {
  uint64_t found = 0;
  for (int r = 0; r < row_count; ++r, signs += words)
    found |= uint64_t{count_differing(signs, x, words) <= differing_max} << r;
  return found;
}

uint64_t match_portable(const uint64_t* signs, int words, int row_count, const uint64_t* x,
                        int differing_max) {
  return match_word(signs, words, row_count, x, differing_max);
}

bool always() { return true; }

#ifdef __x86_64__
[[gnu::target("popcnt")]] uint64_t match_popcnt(const uint64_t* signs, int words, int row_count,
                                                const uint64_t* x, int differing_max) {
  return match_word(signs, words, row_count, x, differing_max);
}

// Eight words at a time; what is left over is masked.
[[gnu::target("avx512f,avx512vpopcntdq")]] uint64_t match_vectors(const uint64_t* signs, int words,
                                                                  int row_count, const uint64_t* x,
                                                                  int differing_max) {
  const auto left = static_cast<__mmask8>((1 << words % 8) - 1);
  const int whole = words / 8 * 8;
  uint64_t found = 0;
  for (int r = 0; r < row_count; ++r, signs += words) {
    __m512i sum = _mm512_popcnt_epi64(_mm512_xor_si512(
        _mm512_maskz_loadu_epi64(left, signs + whole), _mm512_maskz_loadu_epi64(left, x + whole)));
    for (int i = 0; i < whole; i += 8) {
      _mm_prefetch(reinterpret_cast<const char*>(signs + i + kAhead), _MM_HINT_T1);
      const __m512i differs =
          _mm512_xor_si512(_mm512_loadu_si512(signs + i), _mm512_loadu_si512(x + i));
      sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(differs));
    }
    found |= uint64_t{_mm512_reduce_add_epi64(sum) <= differing_max} << r;
  }
  return found;
}

bool has_popcnt() { return __builtin_cpu_supports("popcnt"); }
bool has_vpopcntdq() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq");
}
#endif

struct Set {
  SignKernels kernels;
  bool (*runs_here)();
};

// The fastest first.
constexpr Set kSets[] = {
#ifdef __x86_64__
    {{"avx512", match_rows<match_vectors>}, has_vpopcntdq},
    {{"popcnt", match_rows<match_popcnt>}, has_popcnt},
#endif
    {{"portable", match_rows<match_portable>}, always},
};

const SignKernels& choose() {
  const char* asked = std::getenv("TC_KERNELS");
  const SignKernels* chosen = asked != nullptr ? sign_kernels_by_name(asked) : nullptr;
  for (const Set& set : kSets)
    if (chosen == nullptr && set.runs_here()) chosen = &set.kernels;
  return *chosen;
}

}  // namespace

void signs_of(const float* x, int cols, uint64_t* words) {
  for (int first = 0; first < cols; first += kWordBits) {
    const int count = std::min(kWordBits, cols - first);
    uint64_t word = 0;
    for (int i = 0; i < count; ++i) word |= uint64_t{x[first + i] < 0.0f} << i;
    words[first / kWordBits] = word;
  }
}

const SignKernels* sign_kernels_by_name(const char* name) {
  for (const Set& set : kSets)
    if (std::strcmp(set.kernels.name, name) == 0) return set.runs_here() ? &set.kernels : nullptr;
  return nullptr;
}

const SignKernels& sign_kernels() {
  static const SignKernels& chosen = choose();
  return chosen;
}

}  // namespace thermocline
