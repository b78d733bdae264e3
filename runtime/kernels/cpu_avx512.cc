// Kernels for AVX-512 (F, BW, VL, DQ): one register holds the 16 lanes.
#include "runtime/kernels/instruction_sets.h"

#ifdef __AVX512F__
#include <immintrin.h>

#include "runtime/kernels/cpu_body.h"
#include "runtime/kernels/x86_scales.h"

// GCC 12's intrinsics begin with a register that is undefined on purpose, and warn of it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace thermocline {
namespace {

struct Lanes {
  static constexpr int kAccumulators = 16;
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

  static __m128i load_16_bytes(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  static __m256i load_32_bytes(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static __m512 f32_of_bf16(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }

  template <DType D, int R>
  [[gnu::always_inline]] static void read_scales(const std::byte* const* rows, size_t offset,
                                                 float* scales) {
    read_f16_scales<D, R>(rows, offset, scales);
  }

  template <DType D>
  [[gnu::always_inline]] static void decode(const std::byte* from, float scale, Lanes& first,
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
    } else if constexpr (D == DType::q8_0) {
      const __m512 scales = _mm512_set1_ps(scale);
      const __m512i low = _mm512_cvtepi8_epi32(load_16_bytes(from + 2));
      const __m512i high = _mm512_cvtepi8_epi32(load_16_bytes(from + 18));
      first.all = _mm512_mul_ps(scales, _mm512_cvtepi32_ps(low));
      second.all = _mm512_mul_ps(scales, _mm512_cvtepi32_ps(high));
    } else {
      // The 16 values that a block can hold, looked up by the low four bits of each lane.
      const __m512 values =
          _mm512_mul_ps(_mm512_set1_ps(scale),
                        _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7));
      const __m512i both = _mm512_cvtepu8_epi32(load_16_bytes(from + 2));
      first.all = _mm512_permutexvar_ps(both, values);
      second.all = _mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), values);
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
