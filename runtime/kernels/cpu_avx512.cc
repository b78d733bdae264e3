// Kernels for AVX-512 (F, BW, VL, DQ): one register holds the 16 lanes.
#include "runtime/kernels/instruction_sets.h"

#ifdef __AVX512F__
#include <immintrin.h>

#include "runtime/kernels/cpu_body.h"
#include "runtime/kernels/x86_blocks.h"

// GCC 12's intrinsics begin with a register that is undefined on purpose, and warn of it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace thermocline {
namespace {

struct Lanes {
  static constexpr int kAccumulators = 16;
#ifdef THERMOCLINE_ROLLED
  static constexpr bool kUnrollsSteps = false;
#else
  static constexpr bool kUnrollsSteps = true;
#endif
  __m512 all;

  static Lanes broadcast(float value) { return {_mm512_set1_ps(value)}; }
  static Lanes zero() { return {_mm512_setzero_ps()}; }
  static Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static void store(float* to, Lanes a) { _mm512_storeu_ps(to, a.all); }
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

  // `first` in lanes 0..7, `second` in lanes 8..15.
  static Lanes halves(float first, float second) {
    return {_mm512_insertf32x8(_mm512_set1_ps(first), _mm256_set1_ps(second), 1)};
  }
  // Half as many lanes, the first.
  using Eight = __m256;
  static Eight eight(float value) { return _mm256_set1_ps(value); }
  static Eight load_eight(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Eight a) { _mm256_storeu_ps(to, a); }
  static Eight mul(Eight a, Eight b) { return _mm256_mul_ps(a, b); }
  static Lanes fma(Eight a, Eight b, Lanes c) {
    return {_mm512_insertf32x8(c.all, _mm256_fmadd_ps(a, b, _mm512_castps512_ps256(c.all)), 0)};
  }
  // Lanes 0..3 (half 0) or 4..7 (half 1), each two times.
  static Eight each_twice(Eight a, int half) {
    const __m256i first = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(a, _mm256_add_epi32(first, _mm256_set1_epi32(4 * half)));
  }

  // 32 columns as 16-bit integers.
  struct Codes {
    __m512i all;
  };
  static Codes load_codes(const int16_t* from) { return {_mm512_loadu_si512(from)}; }
  static void store_codes(int16_t* to, Codes codes) { _mm512_storeu_si512(to, codes.all); }
  // Lane i: a[2i] * b[2i] + a[2i+1] * b[2i+1].
  [[gnu::always_inline]] static Lanes products(Codes a, const int16_t* b) {
    return {_mm512_cvtepi32_ps(_mm512_madd_epi16(a.all, _mm512_loadu_si512(b)))};
  }

  // The values of codes 0..15 less `zero`, to be looked up by the low four bits of lanes.
  static __m512 values_of_codes(float zero) {
    return _mm512_sub_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_ps(zero));
  }
  template <DType D>
  [[gnu::always_inline]] static void read_scales(const std::byte* chunk, int count,
                                                 float (&scales)[kScaleCount<D>]) {
    read_chunk_scales<D>(chunk, count, scales);
  }

  template <DType D>
  [[gnu::always_inline]] static Codes codes(const std::byte* block, int step) {
    const __m512i mask = _mm512_set1_epi16(15);
    if constexpr (D == DType::q4_k) {
      const __m512i bytes = _mm512_cvtepu8_epi16(load_32_bytes(four_bits_of<D>(block, step)));
      return {step % 2 != 0 ? _mm512_srli_epi16(bytes, 4) : _mm512_and_si512(bytes, mask)};
    } else if constexpr (kIsFourBits<D>) {
      // The same 16 bytes twice: the upper copy moves its high halves down.
      const __m512i twice = _mm512_cvtepu8_epi16(
          _mm256_broadcastsi128_si256(load_16_bytes(four_bits_of<D>(block, step))));
      const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
      return {_mm512_and_si512(_mm512_srlv_epi16(twice, shifts), mask)};
    } else if constexpr (D == DType::q8_0) {
      return {_mm512_slli_epi16(_mm512_cvtepi8_epi16(load_32_bytes(block + 2)), 8)};
    } else {
      const StepCodes codes = read_codes<D>(block, step);
      return {_mm512_cvtepi8_epi16(
          _mm256_inserti128_si256(_mm256_castsi128_si256(codes.first), codes.second, 1))};
    }
  }

  template <DType D>
  [[gnu::always_inline]] static void values(const std::byte* from, int step, Lanes& first,
                                            Lanes& second) {
    if constexpr (D == DType::f32) {
      first.all = _mm512_loadu_ps(from);
      second.all = _mm512_loadu_ps(from + 64);
    } else if constexpr (D == DType::f16) {
      first.all = _mm512_cvtph_ps(load_32_bytes(from));
      second.all = _mm512_cvtph_ps(load_32_bytes(from + 32));
    } else if constexpr (D == DType::bf16) {
      first.all = f32_of_bf16(load_32_bytes(from));
      second.all = f32_of_bf16(load_32_bytes(from + 32));
    } else if constexpr (kIsFourBits<D>) {
      const __m512 table = values_of_codes(kZeroCode<D>);
      const std::byte* bytes = four_bits_of<D>(from, step);
      const bool by_step = D == DType::q4_k, odd = step % 2 != 0;
      const __m512i low = _mm512_cvtepu8_epi32(load_16_bytes(bytes));
      const __m512i high = by_step ? _mm512_cvtepu8_epi32(load_16_bytes(bytes + 16)) : low;
      first.all = _mm512_permutexvar_ps(by_step && odd ? _mm512_srli_epi32(low, 4) : low, table);
      second.all =
          _mm512_permutexvar_ps(!by_step || odd ? _mm512_srli_epi32(high, 4) : high, table);
    } else {
      const StepCodes codes = read_values<D>(from, step);
      first.all = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes.first));
      second.all = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes.second));
    }
  }
};

constexpr Kernels kKernels = CpuKernels<Lanes>::kernels("avx512");

}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace thermocline

#else

const thermocline::Kernels* thermocline::avx512_kernels() { return nullptr; }

#endif
