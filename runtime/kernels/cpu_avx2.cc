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
#ifdef THERMOCLINE_ROLLED
  static constexpr bool kUnrollsSteps = false;
#else
  static constexpr bool kUnrollsSteps = true;
#endif
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

  // `first` in lanes 0..7, `second` in lanes 8..15.
  static Lanes halves(float first, float second) {
    return {_mm256_set1_ps(first), _mm256_set1_ps(second)};
  }
  // Half as many lanes, the first.
  using Eight = __m256;
  static Eight eight(float value) { return _mm256_set1_ps(value); }
  static Eight load_eight(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Eight a) { _mm256_storeu_ps(to, a); }
  static Eight mul(Eight a, Eight b) { return _mm256_mul_ps(a, b); }
  static Lanes fma(Eight a, Eight b, Lanes c) { return {_mm256_fmadd_ps(a, b, c.low), c.high}; }
  // Lanes 0..3 (half 0) or 4..7 (half 1), each two times.
  static Eight each_twice(Eight a, int half) {
    const __m256i first = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(a, _mm256_add_epi32(first, _mm256_set1_epi32(4 * half)));
  }

  // 32 columns as 16-bit integers, 16 in each half.
  struct Codes {
    __m256i first, second;
  };
  static Codes load_codes(const int16_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 16))};
  }
  static void store_codes(int16_t* to, Codes codes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes.first);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16), codes.second);
  }
  // Lane i: a[2i] * b[2i] + a[2i+1] * b[2i+1].
  [[gnu::always_inline]] static Lanes products(Codes a, const int16_t* from) {
    const Codes b = load_codes(from);
    return {_mm256_cvtepi32_ps(_mm256_madd_epi16(a.first, b.first)),
            _mm256_cvtepi32_ps(_mm256_madd_epi16(a.second, b.second))};
  }

  // 16 bytes in both halves, from where a shuffle within halves, of which there are two a cycle,
  // widens them: conversions of integers to wider ones cross halves, and take longer than a cycle.
  static __m256i load_twice(const std::byte* from) {
    return _mm256_broadcastsi128_si256(load_16_bytes(from));
  }
  // Eight bf16.
  static __m256 f32_of_bf16(const std::byte* from) {
    const __m256i order =
        _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                         -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(load_twice(from), order));
  }
  // 16 bytes in the lower or upper halves of 16 words.
  static __m256i words_of_bytes(const std::byte* from) {
    const __m256i order =
        _mm256_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8, -1, 9, -1, 10,
                         -1, 11, -1, 12, -1, 13, -1, 14, -1, 15, -1);
    return _mm256_shuffle_epi8(load_twice(from), order);
  }
  static __m256i raised_words_of_bytes(const std::byte* from) {
    const __m256i order =
        _mm256_setr_epi8(-1, 0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1, 6, -1, 7, -1, 8, -1, 9, -1,
                         10, -1, 11, -1, 12, -1, 13, -1, 14, -1, 15);
    return _mm256_shuffle_epi8(load_twice(from), order);
  }
  // Bytes first .. first + 7 of 16 that are there twice, in 8 double words.
  static __m256i double_words_of_bytes(__m256i twice, int first) {
    const __m256i order =
        _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1, 4, -1, -1, -1,
                         5, -1, -1, -1, 6, -1, -1, -1, 7, -1, -1, -1);
    return _mm256_shuffle_epi8(twice, _mm256_add_epi8(order, _mm256_set1_epi32(first)));
  }
  static Lanes f32_of_codes(__m128i codes) {
    const __m256i low = _mm256_cvtepi8_epi32(codes);
    const __m256i high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes));
    return {_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)};
  }
  // Codes below 16, less `zero`, without a conversion, of which AVX2 makes one a cycle: as the last
  // bits of 2^23 + code.
  static __m256 f32_of_small(__m256i codes, float zero) {
    const __m256 raised =
        _mm256_castsi256_ps(_mm256_or_si256(codes, _mm256_set1_epi32(0x4b000000)));
    return _mm256_sub_ps(raised, _mm256_set1_ps(8388608.0f + zero));
  }
  template <DType D>
  [[gnu::always_inline]] static void read_scales(const std::byte* chunk, int count,
                                                 float (&scales)[kScaleCount<D>]) {
    read_chunk_scales<D>(chunk, count, scales);
  }

  template <DType D>
  [[gnu::always_inline]] static Codes codes(const std::byte* block, int step) {
    if constexpr (D == DType::q8_0) {
      return {raised_words_of_bytes(block + 2), raised_words_of_bytes(block + 18)};
    } else if constexpr (kIsFourBits<D>) {
      const __m256i mask = _mm256_set1_epi16(15);
      const __m256i bytes = words_of_bytes(four_bits_of<D>(block, step));
      if constexpr (D == DType::q4_k) {
        const __m256i more = words_of_bytes(four_bits_of<D>(block, step) + 16);
        if (step % 2 != 0) return {_mm256_srli_epi16(bytes, 4), _mm256_srli_epi16(more, 4)};
        return {_mm256_and_si256(bytes, mask), _mm256_and_si256(more, mask)};
      }
      return {_mm256_and_si256(bytes, mask), _mm256_srli_epi16(bytes, 4)};
    } else {
      const StepCodes codes = read_codes<D>(block, step);
      return {_mm256_cvtepi8_epi16(codes.first), _mm256_cvtepi8_epi16(codes.second)};
    }
  }

  // Half-byte `high` of 16 bytes that are there twice.
  template <DType D>
  [[gnu::always_inline]] static Lanes one_half_of(__m256i twice, bool high) {
    const auto eight = [&](int first) {
      const __m256i both = double_words_of_bytes(twice, first);
      return f32_of_small(
          high ? _mm256_srli_epi32(both, 4) : _mm256_and_si256(both, _mm256_set1_epi32(15)),
          kZeroCode<D>);
    };
    return {eight(0), eight(8)};
  }

  template <DType D>
  [[gnu::always_inline]] static void values(const std::byte* from, int step, Lanes& first,
                                            Lanes& second) {
    if constexpr (D == DType::f32) {
      first = load(reinterpret_cast<const float*>(from));
      second = load(reinterpret_cast<const float*>(from + 64));
    } else if constexpr (D == DType::f16) {
      first = {_mm256_cvtph_ps(load_16_bytes(from)), _mm256_cvtph_ps(load_16_bytes(from + 16))};
      second = {_mm256_cvtph_ps(load_16_bytes(from + 32)),
                _mm256_cvtph_ps(load_16_bytes(from + 48))};
    } else if constexpr (D == DType::bf16) {
      first = {f32_of_bf16(from), f32_of_bf16(from + 16)};
      second = {f32_of_bf16(from + 32), f32_of_bf16(from + 48)};
    } else if constexpr (kIsFourBits<D>) {
      const std::byte* bytes = four_bits_of<D>(from, step);
      const __m256i twice = load_twice(bytes);
      if constexpr (D == DType::q4_k) {
        first = one_half_of<D>(twice, step % 2 != 0);
        second = one_half_of<D>(load_twice(bytes + 16), step % 2 != 0);
      } else {
        first = one_half_of<D>(twice, false);
        second = one_half_of<D>(twice, true);
      }
    } else {
      const StepCodes codes = read_values<D>(from, step);
      first = f32_of_codes(codes.first);
      second = f32_of_codes(codes.second);
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
