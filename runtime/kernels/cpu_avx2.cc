// Kernels for AVX2 with FMA and F16C: two registers hold the 16 lanes.
#include "runtime/kernels/instruction_sets.h"

#ifdef __AVX2__
#include <immintrin.h>

#include "runtime/kernels/cpu_body.h"
#include "runtime/kernels/x86_blocks.h"

namespace thermocline {
namespace {

struct Lanes {
  static constexpr int kAccumulators = 4;
  static constexpr int kSumPositions = 4;
  static constexpr Requests kRequests = kAskedOnce;
  static constexpr bool kUnrolls = kMayUnroll;
  __m256 low, high;

  static Lanes broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Lanes load(const float* from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  static void store(float* to, Lanes a) {
    _mm256_storeu_ps(to, a.low);
    _mm256_storeu_ps(to + 8, a.high);
  }
  // The same four floats in each quarter.
  static Lanes load_four(const float* from) {
    const __m256 twice = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(from));
    return {twice, twice};
  }
  // Of each quarter of a and b, the first (last) two lanes in turn: a0 b0 a1 b1.
  static Lanes zip_first(Lanes a, Lanes b) {
    return {_mm256_unpacklo_ps(a.low, b.low), _mm256_unpacklo_ps(a.high, b.high)};
  }
  static Lanes zip_last(Lanes a, Lanes b) {
    return {_mm256_unpackhi_ps(a.low, b.low), _mm256_unpackhi_ps(a.high, b.high)};
  }
  static Lanes add(Lanes a, Lanes b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static Lanes sub(Lanes a, Lanes b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static Lanes mul(Lanes a, Lanes b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static Lanes fma(Lanes a, Lanes b, Lanes c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static Lanes max(Lanes a, Lanes b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  static __m256 shifted(__m256 a) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
  }
  static Lanes shifted_to_exponent(Lanes a) { return {shifted(a.low), shifted(a.high)}; }
  // Halves are added to halves, 16 -> 8 -> 4 -> 2 -> 1: the order of every instruction set.
  static float sum(Lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }

  // Half as many lanes, the first.
  using Eight = __m256;
  static Eight eight(float value) { return _mm256_set1_ps(value); }
  static Eight load_eight(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Eight a) { _mm256_storeu_ps(to, a); }
  static Eight mul(Eight a, Eight b) { return _mm256_mul_ps(a, b); }
  static Eight fma(Eight a, Eight b, Eight c) { return _mm256_fmadd_ps(a, b, c); }
  static Lanes fma(Eight a, Eight b, Lanes c) { return {_mm256_fmadd_ps(a, b, c.low), c.high}; }
  // Lane l: eight[4 * half + l / 4].
  [[gnu::always_inline]] static Lanes spread(Eight eight, int half) {
    const auto two = [=](int first) __attribute__((always_inline)) {
      const __m256i lanes = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
      return _mm256_permutevar8x32_ps(eight, _mm256_add_epi32(lanes, _mm256_set1_epi32(first)));
    };
    return {two(4 * half), two(4 * half + 2)};
  }
  // Lane l: four[l / 4].
  [[gnu::always_inline]] static Lanes spread_four(const float* four) {
    const __m256 twice = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(four));
    const __m256i lanes = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    return {_mm256_permutevar_ps(twice, lanes),
            _mm256_permutevar_ps(twice, _mm256_add_epi32(lanes, _mm256_set1_epi32(2)))};
  }

  // The codes of a group, unsigned, 32 in each register.
  struct Bytes {
    __m256i firsts[2], seconds[2];
  };
  static __m256i load_32(const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static void store_bytes(uint8_t* to, const Bytes& bytes) {
    for (int i = 0; i < 2; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * i), bytes.firsts[i]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 64 + 32 * i), bytes.seconds[i]);
    }
  }
  template <DType D>
  [[gnu::always_inline]] static void read_scales(const std::byte* from, const std::byte* more,
                                                 int count, float (&scales)[scale_count(D)]) {
    read_chunk_scales<D>(from, more, count, scales);
  }
  // 16 in the bytes i whose bit i of the four bytes is set, else 0.
  static __m256i fifth_bits(const std::byte* from) {
    const __m256i spread =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(load_word<int>(from)), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit),
                            _mm256_set1_epi8(16));
  }
  template <DType D>
  [[gnu::always_inline]] static Bytes codes(const std::byte* codes, const std::byte* further) {
    const __m256i half = _mm256_set1_epi8(15);
    Bytes bytes;
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m256i all = load_32_bytes(codes + 32 * i);
      if constexpr (code_bits(D) == 8) {
        bytes.firsts[i] = all;
        bytes.seconds[i] = load_32_bytes(codes + 64 + 32 * i);
      } else {
        bytes.firsts[i] = _mm256_and_si256(all, half);
        bytes.seconds[i] = _mm256_and_si256(_mm256_srli_epi16(all, 4), half);
      }
      if constexpr (code_bits(D) == 5) {
        bytes.firsts[i] = _mm256_or_si256(bytes.firsts[i], fifth_bits(further + 4 * i));
        bytes.seconds[i] = _mm256_or_si256(bytes.seconds[i], fifth_bits(further + 8 + 4 * i));
      }
      if constexpr (code_bits(D) == 6) {
        const __m256i pairs = load_32_bytes(further), mask = _mm256_set1_epi8(48);
        bytes.firsts[i] = _mm256_or_si256(
            bytes.firsts[i], _mm256_and_si256(_mm256_slli_epi16(pairs, 4 - 2 * i), mask));
        bytes.seconds[i] = _mm256_or_si256(bytes.seconds[i],
                                           _mm256_and_si256(_mm256_srli_epi16(pairs, 2 * i), mask));
      }
    }
    return bytes;
  }

  // Sums of 8 products of codes of at most six bits and bytes of x, two in each of 16 lanes, or of
  // kPart's 4.
  template <int kPart>
  [[gnu::always_inline]] static __m256i sums_of_pairs(__m256i firsts, __m256i seconds,
                                                      const int8_t* x) {
    if constexpr (kPart == 1) return _mm256_maddubs_epi16(firsts, load_32(x));
    if constexpr (kPart == 2) return _mm256_maddubs_epi16(seconds, load_32(x + 64));
    return _mm256_add_epi16(_mm256_maddubs_epi16(firsts, load_32(x)),
                            _mm256_maddubs_epi16(seconds, load_32(x + 64)));
  }
  // The same times 256 of x's upper bytes, and of its lower ones, in 8 lanes.
  template <int kPart>
  [[gnu::always_inline]] static __m256i integer_dot(__m256i firsts, __m256i seconds,
                                                    const int8_t* x, int unit) {
    const __m256i upper = sums_of_pairs<kPart>(firsts, seconds, x);
    const __m256i lower = sums_of_pairs<kPart>(firsts, seconds, x + kGroup);
    const auto times = [](int factor) { return _mm256_set1_epi16(static_cast<short>(factor)); };
    return _mm256_add_epi32(_mm256_madd_epi16(upper, times(256 * unit)),
                            _mm256_madd_epi16(lower, times(unit)));
  }
  template <DType D, int kPart>
  [[gnu::always_inline]] static __m256 half_dot(const Bytes& w, int i, const int8_t* x,
                                                const int32_t* sums, const int32_t* first_sums) {
    const __m256i firsts = w.firsts[i], seconds = w.seconds[i];
    __m256i sum;
    if constexpr (code_bits(D) == 8) {  // half bytes, since pairs of products would overflow
      const __m256i mask = _mm256_set1_epi8(15);
      const auto upper = [=](__m256i a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), mask); };
      sum = _mm256_add_epi32(
          integer_dot<kPart>(_mm256_and_si256(firsts, mask), _mm256_and_si256(seconds, mask), x, 1),
          integer_dot<kPart>(upper(firsts), upper(seconds), x, 16));
    } else {
      sum = integer_dot<kPart>(firsts, seconds, x, 1);
    }
    if constexpr (zero_shift(D) != 0) {
      const auto load = [](const int32_t* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      };
      __m256i of_x = load(kPart == 1 ? first_sums : sums);
      if constexpr (kPart == 2) of_x = _mm256_sub_epi32(of_x, load(first_sums));
      sum = _mm256_add_epi32(sum, _mm256_slli_epi32(of_x, zero_shift(D)));
    }
    return _mm256_cvtepi32_ps(sum);
  }
  // Lane l: the sum of its codes, less the code of zero, times x; kPart: 0 of all, 1 of its firsts,
  // 2 of its seconds. sums, first_sums: see FixedRow.
  template <DType D, int kPart>
  [[gnu::always_inline]] static Lanes dot(const Bytes& w, const int8_t* x, const int32_t* sums,
                                          const int32_t* first_sums) {
    return {half_dot<D, kPart>(w, 0, x, sums, first_sums),
            half_dot<D, kPart>(w, 1, x + 32, sums + 8, first_sums + 8)};
  }

  // 128 codes of four bits.
  struct HalfBytes {
    __m256i half[2];
  };
  static HalfBytes half_bytes(const std::byte* codes) {
    return {{load_32_bytes(codes), load_32_bytes(codes + 32)}};
  }

  struct Ints {
    __m256i low, high;
  };
  using Words = Ints;
  static Ints no_ints() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Lanes of_ints(const Ints& a) {
    return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
  }
  template <int kShift>
  static Ints shifted(const Ints& a) {
    return {_mm256_slli_epi32(a.low, kShift), _mm256_slli_epi32(a.high, kShift)};
  }
  static Ints bits(const Lanes& a) {
    return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
  }
  static Ints add(const Ints& a, const Ints& b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  static void store(uint32_t* to, const Ints& a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a.low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 8), a.high);
  }
  // The larger of a size's bits and b's.
  static Ints max_size(const Ints& size, const Lanes& b) {
    const __m256i without_sign = _mm256_set1_epi32(0x7fffffff);
    const Ints of_b = bits(b);
    return {_mm256_max_epi32(size.low, _mm256_and_si256(of_b.low, without_sign)),
            _mm256_max_epi32(size.high, _mm256_and_si256(of_b.high, without_sign))};
  }
  // Words of each lane: the lower ones of a and b.
  static Ints pair(const Ints& a, const Ints& b) {
    return {_mm256_blend_epi16(a.low, _mm256_slli_epi32(b.low, 16), 0xaa),
            _mm256_blend_epi16(a.high, _mm256_slli_epi32(b.high, 16), 0xaa)};
  }
  // Of each quarter, the words of a and b in turn: of its first four, or of its last.
  template <int kLast>
  [[gnu::always_inline]] static __m256i two_rows(__m256i a, __m256i b) {
    return kLast ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b);
  }
  static Words all_words(int pattern) {
    return {_mm256_set1_epi32(pattern), _mm256_set1_epi32(pattern)};
  }
  // Words of codes of position p in lanes: one of a, one of b, where the mask leaves them.
  template <int p>
  [[gnu::always_inline]] static Words words(const HalfBytes& a, const HalfBytes& b,
                                            const Words& mask) {
    const auto of = [&](int i) __attribute__((always_inline)) {
      const __m256i all = two_rows<p / 4>(a.half[i], b.half[i]);
      return p % 4 == 3 ? _mm256_srli_epi16(all, 12) : _mm256_and_si256(all, mask.low);
    };
    return {of(0), of(1)};
  }
  template <int p>
  [[gnu::always_inline]] static Words words(const Bytes& a, const Bytes& b, const Words& mask) {
    const auto of = [&](int i) __attribute__((always_inline)) {
      const __m256i all = p % 2 == 0 ? two_rows<p / 4>(a.firsts[i], b.firsts[i])
                                     : two_rows<p / 4>(a.seconds[i], b.seconds[i]);
      return p / 2 % 2 == 1 ? _mm256_srli_epi16(all, 8) : _mm256_and_si256(all, mask.low);
    };
    return {of(0), of(1)};
  }
  // Lane l: four[l / 4].
  [[gnu::always_inline]] static Ints spread_ints(const int32_t* four) {
    const Lanes lanes = spread_four(reinterpret_cast<const float*>(four));
    return {_mm256_castps_si256(lanes.low), _mm256_castps_si256(lanes.high)};
  }
  [[gnu::always_inline]] static Words spread_words(const int32_t* four) {
    return spread_ints(four);
  }
  static Words load_words(const int16_t* from) {
    const auto* at = reinterpret_cast<const __m256i*>(from);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
  }
  // A group's codes, less the code of zero, as place_words() puts them.
  template <DType D>
  [[gnu::always_inline]] static void store_words(int16_t* to, const Bytes& codes) {
    const __m256i mask = _mm256_set1_epi16(255), zero = _mm256_set1_epi16(zero_code(D));
    const auto store = [=](int16_t * at, __m256i words) __attribute__((always_inline)) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_sub_epi16(words, zero));
    };
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      store(to + 16 * i, _mm256_and_si256(codes.firsts[i], mask));
      store(to + 32 + 16 * i, _mm256_srli_epi16(codes.firsts[i], 8));
      store(to + 64 + 16 * i, _mm256_and_si256(codes.seconds[i], mask));
      store(to + 96 + 16 * i, _mm256_srli_epi16(codes.seconds[i], 8));
    }
  }
  // Adds to each lane its two products, now: the compiler would put off the additions of a loop,
  // and keep all products in memory until then.
  [[gnu::always_inline]] static Ints dot_words(const Ints& sum, const Words& a, const Words& b) {
    Ints more = {_mm256_add_epi32(sum.low, _mm256_madd_epi16(a.low, b.low)),
                 _mm256_add_epi32(sum.high, _mm256_madd_epi16(a.high, b.high))};
    asm("" : "+x"(more.low), "+x"(more.high));
    return more;
  }
  // Eight bf16. A shuffle within halves, of which there are two a cycle, widens them: conversions
  // of integers to wider ones cross halves, and take longer.
  static __m256 f32_of_bf16(const std::byte* from) {
    const __m256i order =
        _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                         -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return _mm256_castsi256_ps(
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_16_bytes(from)), order));
  }
  // Columns 0..15 and 16..31 of a step of a type without blocks.
  template <DType D>
  [[gnu::always_inline]] static void values(const std::byte* from, Lanes& first, Lanes& second) {
    if constexpr (D == DType::f32) {
      first = load(reinterpret_cast<const float*>(from));
      second = load(reinterpret_cast<const float*>(from + 64));
    } else if constexpr (D == DType::f16) {
      first = {_mm256_cvtph_ps(load_16_bytes(from)), _mm256_cvtph_ps(load_16_bytes(from + 16))};
      second = {_mm256_cvtph_ps(load_16_bytes(from + 32)),
                _mm256_cvtph_ps(load_16_bytes(from + 48))};
    } else {
      static_assert(D == DType::bf16);
      first = {f32_of_bf16(from), f32_of_bf16(from + 16)};
      second = {f32_of_bf16(from + 32), f32_of_bf16(from + 48)};
    }
  }
};

constexpr Kernels kKernels = CpuKernels<Lanes>::kernels("avx2");

}  // namespace

const Kernels* avx2_kernels() { return &kKernels; }

}  // namespace thermocline

#else

const thermocline::Kernels* thermocline::avx2_kernels() { return nullptr; }

#endif
