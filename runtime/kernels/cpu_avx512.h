// The vector of AVX-512 (F, BW, VL, DQ, VNNI): one register holds the 16 lanes.
//
// For the files of its sets of kernels alone, which differ in how they ask for memory (Requests in
//   cpu_requests.h). Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their
//   arguments.
#pragma once

#include <immintrin.h>

#include "runtime/kernels/cpu_body.h"
#include "runtime/kernels/x86_blocks.h"

#ifndef __clang__  // GCC 12's intrinsics begin with a register that is undefined on purpose
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace thermocline {
namespace {

template <Requests kAsked>
struct Lanes {
  static constexpr int kAccumulators = 16;
  static constexpr int kSumPositions = 8;
  static constexpr Requests kRequests = kAsked;
  static constexpr bool kUnrolls = kMayUnroll;
  __m512 all;

  static Lanes broadcast(float value) { return {_mm512_set1_ps(value)}; }
  static Lanes zero() { return {_mm512_setzero_ps()}; }
  static Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static void store(float* to, Lanes a) { _mm512_storeu_ps(to, a.all); }
  // The same four floats in each quarter.
  static Lanes load_four(const float* from) { return {_mm512_broadcast_f32x4(_mm_loadu_ps(from))}; }
  // Of each quarter of a and b, the first (last) two lanes in turn: a0 b0 a1 b1.
  static Lanes zip_first(Lanes a, Lanes b) { return {_mm512_unpacklo_ps(a.all, b.all)}; }
  static Lanes zip_last(Lanes a, Lanes b) { return {_mm512_unpackhi_ps(a.all, b.all)}; }
  static Lanes add(Lanes a, Lanes b) { return {_mm512_add_ps(a.all, b.all)}; }
  static Lanes sub(Lanes a, Lanes b) { return {_mm512_sub_ps(a.all, b.all)}; }
  static Lanes mul(Lanes a, Lanes b) { return {_mm512_mul_ps(a.all, b.all)}; }
  static Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.all, b.all, c.all)}; }
  static Lanes max(Lanes a, Lanes b) { return {_mm512_max_ps(a.all, b.all)}; }
  static Lanes shifted_to_exponent(Lanes a) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.all), 23))};
  }
  // Halves are added to halves, 16 -> 8 -> 4 -> 2 -> 1: the order of every instruction set.
  static float sum(Lanes a) {
    const __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256(a.all), _mm512_extractf32x8_ps(a.all, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  static __m512 f32_of_bf16(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }

  // Half as many lanes, the first.
  using Eight = __m256;
  static Eight eight(float value) { return _mm256_set1_ps(value); }
  static Eight load_eight(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Eight a) { _mm256_storeu_ps(to, a); }
  static Eight mul(Eight a, Eight b) { return _mm256_mul_ps(a, b); }
  static Eight fma(Eight a, Eight b, Eight c) { return _mm256_fmadd_ps(a, b, c); }
  static Lanes fma(Eight a, Eight b, Lanes c) {
    return {_mm512_insertf32x8(c.all, _mm256_fmadd_ps(a, b, _mm512_castps512_ps256(c.all)), 0)};
  }
  // Lane l: eight[4 * half + l / 4].
  [[gnu::always_inline]] static Lanes spread(Eight eight, int half) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512i of_half = _mm512_add_epi32(lanes, _mm512_set1_epi32(4 * half));
    return {_mm512_permutexvar_ps(of_half, _mm512_castps256_ps512(eight))};
  }
  // Lane l: four[l / 4].
  [[gnu::always_inline]] static Lanes spread_four(const float* four) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return {_mm512_permutexvar_ps(lanes, _mm512_broadcast_f32x4(_mm_loadu_ps(four)))};
  }

  // The codes of a group, unsigned.
  struct Bytes {
    __m512i firsts, seconds;
  };
  static void store_bytes(uint8_t* to, const Bytes& bytes) {
    _mm512_storeu_si512(to, bytes.firsts);
    _mm512_storeu_si512(to + 64, bytes.seconds);
  }
  template <DType D>
  [[gnu::always_inline]] static void read_scales(const std::byte* from, const std::byte* more,
                                                 int count, float (&scales)[scale_count(D)]) {
    read_chunk_scales<D>(from, more, count, scales);
  }
  template <DType D>
  [[gnu::always_inline]] static Bytes codes(const std::byte* codes, const std::byte* further) {
    const __m512i half = _mm512_set1_epi8(15), all = _mm512_loadu_si512(codes);
    if constexpr (code_bits(D) == 8) return {all, _mm512_loadu_si512(codes + 64)};
    Bytes bytes = {_mm512_and_si512(all, half), _mm512_and_si512(_mm512_srli_epi16(all, 4), half)};
    if constexpr (code_bits(D) == 5) {
      const __m512i fifth = _mm512_set1_epi8(16);  // added where a bit is set
      bytes.firsts =
          _mm512_mask_add_epi8(bytes.firsts, load_word<uint64_t>(further), bytes.firsts, fifth);
      bytes.seconds = _mm512_mask_add_epi8(bytes.seconds, load_word<uint64_t>(further + 8),
                                           bytes.seconds, fifth);
    }
    if constexpr (code_bits(D) == 6) {
      const __m512i pairs = _mm512_broadcast_i64x4(load_32_bytes(further));
      const __m512i two = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(2), 1);
      const __m512i up = _mm512_sub_epi16(_mm512_set1_epi16(4), two), mask = _mm512_set1_epi8(48);
      bytes.firsts =
          _mm512_or_si512(bytes.firsts, _mm512_and_si512(_mm512_sllv_epi16(pairs, up), mask));
      bytes.seconds =
          _mm512_or_si512(bytes.seconds, _mm512_and_si512(_mm512_srlv_epi16(pairs, two), mask));
    }
    return bytes;
  }

  // Lane l: the sum of its codes, less the code of zero, times x; kPart: 0 of all, 1 of its firsts,
  // 2 of its seconds. sums, first_sums: see FixedRow.
  template <DType D, int kPart>
  [[gnu::always_inline]] static Lanes dot(const Bytes& w, const int8_t* x, const int32_t* sums,
                                          const int32_t* first_sums) {
    const auto add = [&](__m512i sum, const int8_t* of_x) __attribute__((always_inline)) {
      if constexpr (kPart != 2) sum = _mm512_dpbusd_epi32(sum, w.firsts, _mm512_loadu_si512(of_x));
      if constexpr (kPart != 1)
        sum = _mm512_dpbusd_epi32(sum, w.seconds, _mm512_loadu_si512(of_x + 64));
      return sum;
    };
    __m512i sum = _mm512_slli_epi32(add(_mm512_setzero_si512(), x), 8);
    if constexpr (zero_shift(D) != 0) {
      __m512i of_x = _mm512_loadu_si512(kPart == 1 ? first_sums : sums);
      if constexpr (kPart == 2) of_x = _mm512_sub_epi32(of_x, _mm512_loadu_si512(first_sums));
      sum = _mm512_add_epi32(sum, _mm512_slli_epi32(of_x, zero_shift(D)));
    }
    return {_mm512_cvtepi32_ps(add(sum, x + 128))};
  }

  // 128 codes of four bits.
  struct HalfBytes {
    __m512i all;
  };
  static HalfBytes half_bytes(const std::byte* codes) { return {_mm512_loadu_si512(codes)}; }

  struct Ints {
    __m512i all;
  };
  struct Words {
    __m512i all;
  };
  static Ints no_ints() { return {_mm512_setzero_si512()}; }
  static Lanes of_ints(Ints a) { return {_mm512_cvtepi32_ps(a.all)}; }
  template <int kShift>
  static Ints shifted(Ints a) {
    return {_mm512_slli_epi32(a.all, kShift)};
  }
  static Ints bits(Lanes a) { return {_mm512_castps_si512(a.all)}; }
  static Ints add(Ints a, Ints b) { return {_mm512_add_epi32(a.all, b.all)}; }
  static void store(uint32_t* to, Ints a) { _mm512_storeu_si512(to, a.all); }
  // The larger of a size's bits and b's.
  static Ints max_size(Ints size, Lanes b) {
    const __m512i of_b = _mm512_and_si512(bits(b).all, _mm512_set1_epi32(0x7fffffff));
    return {_mm512_max_epi32(size.all, of_b)};
  }
  // Words of each lane: the lower ones of a and b.
  static Ints pair(Ints a, Ints b) {
    const __m512i lower = _mm512_and_si512(a.all, _mm512_set1_epi32(0xffff));
    return {_mm512_or_si512(lower, _mm512_slli_epi32(b.all, 16))};
  }
  static Words all_words(int pattern) { return {_mm512_set1_epi32(pattern)}; }
  // Words of codes of position p in lanes: one of a, one of b, where the mask leaves them.
  template <int p>
  [[gnu::always_inline]] static Words words(const HalfBytes& a, const HalfBytes& b, Words mask) {
    const __m512i all = two_rows<p / 4>(a.all, b.all);
    if constexpr (p % 4 == 3) return {_mm512_srli_epi16(all, 12)};
    return {_mm512_and_si512(all, mask.all)};
  }
  template <int p>
  [[gnu::always_inline]] static Words words(const Bytes& a, const Bytes& b, Words mask) {
    const __m512i all =
        p % 2 == 0 ? two_rows<p / 4>(a.firsts, b.firsts) : two_rows<p / 4>(a.seconds, b.seconds);
    if constexpr (p / 2 % 2 == 1) return {_mm512_srli_epi16(all, 8)};
    return {_mm512_and_si512(all, mask.all)};
  }
  // Of each quarter, the words of a and b in turn: of its first four, or of its last.
  template <int kLast>
  [[gnu::always_inline]] static __m512i two_rows(__m512i a, __m512i b) {
    return kLast ? _mm512_unpackhi_epi16(a, b) : _mm512_unpacklo_epi16(a, b);
  }
  // Lane l: four[l / 4].
  [[gnu::always_inline]] static Ints spread_ints(const int32_t* four) {
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(four));
    return {_mm512_permutexvar_epi32(lanes, _mm512_broadcast_i32x4(words))};
  }
  [[gnu::always_inline]] static Words spread_words(const int32_t* four) {
    return {spread_ints(four).all};
  }
  static Words load_words(const int16_t* from) { return {_mm512_loadu_si512(from)}; }
  // A group's codes, less the code of zero, as place_words() puts them.
  template <DType D>
  [[gnu::always_inline]] static void store_words(int16_t* to, const Bytes& codes) {
    const __m512i mask = _mm512_set1_epi16(255), zero = _mm512_set1_epi16(zero_code(D));
    const auto store = [=](int16_t * at, __m512i words) __attribute__((always_inline)) {
      _mm512_storeu_si512(at, _mm512_sub_epi16(words, zero));
    };
    store(to, _mm512_and_si512(codes.firsts, mask));
    store(to + 32, _mm512_srli_epi16(codes.firsts, 8));
    store(to + 64, _mm512_and_si512(codes.seconds, mask));
    store(to + 96, _mm512_srli_epi16(codes.seconds, 8));
  }
  // Adds to each lane its two products.
  [[gnu::always_inline]] static Ints dot_words(Ints sum, Words a, Words b) {
    return {_mm512_dpwssd_epi32(sum.all, a.all, b.all)};
  }
  // Columns 0..15 and 16..31 of a step of a type without blocks.
  template <DType D>
  [[gnu::always_inline]] static void values(const std::byte* from, Lanes& first, Lanes& second) {
    if constexpr (D == DType::f32) {
      first.all = _mm512_loadu_ps(from);
      second.all = _mm512_loadu_ps(from + 64);
    } else if constexpr (D == DType::f16) {
      first.all = _mm512_cvtph_ps(load_32_bytes(from));
      second.all = _mm512_cvtph_ps(load_32_bytes(from + 32));
    } else {
      static_assert(D == DType::bf16);
      first.all = f32_of_bf16(load_32_bytes(from));
      second.all = f32_of_bf16(load_32_bytes(from + 32));
    }
  }
};

}  // namespace
}  // namespace thermocline
