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
  static constexpr bool kUnrollsSteps = true;
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

  // The values that codes first .. first + 15 stand for, to be looked up by the low four bits of
  // lanes.
  template <DType D>
  [[gnu::always_inline]] static __m512 values_of_codes(int first, const float* scales, int step) {
    const __m512 codes =
        _mm512_add_ps(_mm512_set1_ps(static_cast<float>(first)),
                      _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512 scale = _mm512_set1_ps(scales[scale_at<D>(step, 0)]);
    if constexpr (!kHasMinimum<D>) return _mm512_mul_ps(scale, codes);
    return _mm512_fmadd_ps(scale, codes, _mm512_set1_ps(scales[minimum_at<D>(step)]));
  }

  // Q5_0, Q5_1: where a fifth bit is set, the value is one of the upper sixteen.
  template <DType D>
  [[gnu::always_inline]] static void decode_fifths(const std::byte* block, const float* scales,
                                                   Lanes& first, Lanes& second) {
    constexpr int kLowAt = facts(D).bytes_per_block - 16, kFirst = kHasMinimum<D> ? 0 : -16;
    const __m512 lower = values_of_codes<D>(kFirst, scales, 0);
    const __m512 upper = values_of_codes<D>(kFirst + 16, scales, 0);
    const __m512i both = _mm512_cvtepu8_epi32(load_16_bytes(block + kLowAt));
    const __m512i high = _mm512_srli_epi32(both, 4);
    const auto first_fifths = load_word<uint16_t>(block + kLowAt - 4);
    const auto second_fifths = load_word<uint16_t>(block + kLowAt - 2);
    first.all =
        _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(both, lower), first_fifths, both, upper);
    second.all =
        _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(high, lower), second_fifths, high, upper);
  }

  // 16 signed bytes times a scale, plus a minimum where the type has one.
  template <DType D>
  [[gnu::always_inline]] static __m512 scaled(__m128i codes, const float* scales, int step,
                                              int half) {
    const __m512 scale = _mm512_set1_ps(scales[scale_at<D>(step, half)]);
    const __m512 values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
    if constexpr (!kHasMinimum<D>) return _mm512_mul_ps(scale, values);
    return _mm512_fmadd_ps(scale, values, _mm512_set1_ps(scales[minimum_at<D>(step)]));
  }

  template <DType D, int R>
  [[gnu::always_inline]] static void read_scales(const std::byte* const* rows, size_t offset,
                                                 float (&scales)[R][kScaleCount<D>]) {
    read_block_scales<D, R>(rows, offset, scales);
  }

  template <DType D>
  [[gnu::always_inline]] static void decode(const std::byte* from, int step, const float* scales,
                                            Lanes& first, Lanes& second) {
    if constexpr (D == DType::f32) {
      first.all = _mm512_loadu_ps(from);
      second.all = _mm512_loadu_ps(from + 64);
    } else if constexpr (D == DType::f16) {
      first.all = _mm512_cvtph_ps(load_32_bytes(from));
      second.all = _mm512_cvtph_ps(load_32_bytes(from + 32));
    } else if constexpr (D == DType::bf16) {
      first.all = f32_of_bf16(load_32_bytes(from));
      second.all = f32_of_bf16(load_32_bytes(from + 32));
    } else if constexpr (D == DType::q4_0 || D == DType::q4_1) {
      const __m512 values = values_of_codes<D>(kHasMinimum<D> ? 0 : -8, scales, 0);
      const __m512i both =
          _mm512_cvtepu8_epi32(load_16_bytes(from + facts(D).bytes_per_block - 16));
      first.all = _mm512_permutexvar_ps(both, values);
      second.all = _mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), values);
    } else if constexpr (D == DType::q5_0 || D == DType::q5_1) {
      decode_fifths<D>(from, scales, first, second);
    } else if constexpr (D == DType::q4_k) {
      const __m512 values = values_of_codes<D>(0, scales, step);
      const std::byte* bytes = from + 16 + step / 2 * 32;
      const __m512i low = _mm512_cvtepu8_epi32(load_16_bytes(bytes));
      const __m512i high = _mm512_cvtepu8_epi32(load_16_bytes(bytes + 16));
      const bool odd = step % 2 != 0;  // the high halves; shifts by a constant, optimised or not
      first.all = _mm512_permutexvar_ps(odd ? _mm512_srli_epi32(low, 4) : low, values);
      second.all = _mm512_permutexvar_ps(odd ? _mm512_srli_epi32(high, 4) : high, values);
    } else {
      const StepCodes codes = read_codes<D>(from, step);
      first.all = scaled<D>(codes.first, scales, step, 0);
      second.all = scaled<D>(codes.second, scales, step, 1);
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
