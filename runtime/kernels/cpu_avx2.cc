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
  static constexpr bool kUnrollsSteps = true;
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

  static __m256 f32_of_bf16(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  // 16 signed bytes times a scale, plus a minimum where the type has one.
  template <DType D>
  [[gnu::always_inline]] static Lanes scaled(__m128i codes, const float* scales, int step,
                                             int half) {
    const Lanes scale = broadcast(scales[scale_at<D>(step, half)]);
    const __m256i low = _mm256_cvtepi8_epi32(codes);
    const __m256i high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes));
    const Lanes values = {_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)};
    if constexpr (!kHasMinimum<D>) return mul(scale, values);
    return fma(scale, values, broadcast(scales[minimum_at<D>(step)]));
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
      first = load(reinterpret_cast<const float*>(from));
      second = load(reinterpret_cast<const float*>(from + 64));
    } else if constexpr (D == DType::f16) {
      first = {_mm256_cvtph_ps(load_16_bytes(from)), _mm256_cvtph_ps(load_16_bytes(from + 16))};
      second = {_mm256_cvtph_ps(load_16_bytes(from + 32)),
                _mm256_cvtph_ps(load_16_bytes(from + 48))};
    } else if constexpr (D == DType::bf16) {
      first = {f32_of_bf16(load_16_bytes(from)), f32_of_bf16(load_16_bytes(from + 16))};
      second = {f32_of_bf16(load_16_bytes(from + 32)), f32_of_bf16(load_16_bytes(from + 48))};
    } else {
      const StepCodes codes = read_codes<D>(from, step);
      first = scaled<D>(codes.first, scales, step, 0);
      second = scaled<D>(codes.second, scales, step, 1);
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
