// The instructions of AVX-512 that runtime/kernels/cpu_avx512.cc uses, in plain C++, so that its
// tests run on machines that have none of them.
//
// Nothing here is inlined: the kernels unroll their loops, and would take minutes to compile.
// Thread-safety: pure.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace thermocline::emulated {

// 64 bytes, read as lanes of any type.
struct Register {
  std::byte bytes[64] = {};

  template <class T>
  T get(int i) const {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    return value;
  }
  template <class T>
  void set(int i, T value) {
    std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
  }
};

// Lane i of type T is of(i).
template <class T, class Of>
Register lanes(Of of) {
  Register result;
  for (int i = 0; i < static_cast<int>(64 / sizeof(T)); ++i)
    result.set<T>(i, static_cast<T>(of(i)));
  return result;
}
template <class T, class Narrow>
T lane(const Narrow& narrow, int i) {
  T value;
  std::memcpy(&value, reinterpret_cast<const std::byte*>(&narrow) + i * sizeof(T), sizeof(T));
  return value;
}

[[gnu::noinline]] inline Register load(const void* from) {
  Register result;
  std::memcpy(result.bytes, from, 64);
  return result;
}
inline void store(void* to, const Register& a) { std::memcpy(to, a.bytes, 64); }
inline Register same(const Register& a) { return a; }

[[gnu::noinline]] inline Register set1_ps(float value) {
  return lanes<float>([&](int) { return value; });
}
[[gnu::noinline]] inline Register set1_epi16(short value) {
  return lanes<int16_t>([&](int) { return value; });
}
template <class... Values>
Register setr_ps(Values... values) {
  const float all[] = {static_cast<float>(values)...};
  return load(all);
}
[[gnu::noinline]] inline Register add_ps(const Register& a, const Register& b) {
  return lanes<float>([&](int i) { return a.get<float>(i) + b.get<float>(i); });
}
[[gnu::noinline]] inline Register sub_ps(const Register& a, const Register& b) {
  return lanes<float>([&](int i) { return a.get<float>(i) - b.get<float>(i); });
}
[[gnu::noinline]] inline Register mul_ps(const Register& a, const Register& b) {
  return lanes<float>([&](int i) { return a.get<float>(i) * b.get<float>(i); });
}
[[gnu::noinline]] inline Register fmadd_ps(const Register& a, const Register& b,
                                           const Register& c) {
  return lanes<float>(
      [&](int i) { return std::fma(a.get<float>(i), b.get<float>(i), c.get<float>(i)); });
}
// The second where either is NaN.
[[gnu::noinline]] inline Register max_ps(const Register& a, const Register& b) {
  return lanes<float>(
      [&](int i) { return a.get<float>(i) > b.get<float>(i) ? a.get<float>(i) : b.get<float>(i); });
}
[[gnu::noinline]] inline Register and_si512(const Register& a, const Register& b) {
  return lanes<uint64_t>([&](int i) { return a.get<uint64_t>(i) & b.get<uint64_t>(i); });
}
[[gnu::noinline]] inline Register slli_epi32(const Register& a, int count) {
  return lanes<uint32_t>([&](int i) { return a.get<uint32_t>(i) << count; });
}
[[gnu::noinline]] inline Register srli_epi32(const Register& a, int count) {
  return lanes<uint32_t>([&](int i) { return a.get<uint32_t>(i) >> count; });
}
[[gnu::noinline]] inline Register slli_epi16(const Register& a, int count) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) << count; });
}
[[gnu::noinline]] inline Register srli_epi16(const Register& a, int count) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) >> count; });
}
[[gnu::noinline]] inline Register srlv_epi16(const Register& a, const Register& counts) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) >> counts.get<uint16_t>(i); });
}
[[gnu::noinline]] inline Register madd_epi16(const Register& a, const Register& b) {
  return lanes<int32_t>([&](int i) {
    return a.get<int16_t>(2 * i) * b.get<int16_t>(2 * i) +
           a.get<int16_t>(2 * i + 1) * b.get<int16_t>(2 * i + 1);
  });
}
[[gnu::noinline]] inline Register cvtepi32_ps(const Register& a) {
  return lanes<float>([&](int i) { return a.get<int32_t>(i); });
}
[[gnu::noinline]] inline Register permutexvar_ps(const Register& indices, const Register& a) {
  return lanes<float>([&](int i) { return a.get<float>(indices.get<int32_t>(i) & 15); });
}
template <class To, class From, class Narrow>
[[gnu::noinline]] Register widen(const Narrow& a) {
  return lanes<To>([&](int i) { return lane<From>(a, i); });
}
[[gnu::noinline]] inline Register cvtph_ps(__m256i a) {
  return lanes<float>([&](int i) { return _cvtsh_ss(lane<uint16_t>(a, i)); });
}
[[gnu::noinline]] inline __m256 half(const Register& a, int index) {
  __m256 result;
  std::memcpy(&result, a.bytes + 32 * index, 32);
  return result;
}
template <class Half>
[[gnu::noinline]] Register with_half(Register a, Half half, int index) {
  std::memcpy(a.bytes + 32 * index, &half, 32);
  return a;
}

}  // namespace thermocline::emulated

#define __m512 ::thermocline::emulated::Register
#define __m512i ::thermocline::emulated::Register
#undef _mm512_loadu_ps
#define _mm512_loadu_ps ::thermocline::emulated::load
#undef _mm512_loadu_si512
#define _mm512_loadu_si512 ::thermocline::emulated::load
#undef _mm512_storeu_ps
#define _mm512_storeu_ps ::thermocline::emulated::store
#undef _mm512_storeu_si512
#define _mm512_storeu_si512 ::thermocline::emulated::store
#undef _mm512_castps_si512
#define _mm512_castps_si512 ::thermocline::emulated::same
#undef _mm512_castsi512_ps
#define _mm512_castsi512_ps ::thermocline::emulated::same
#undef _mm512_setzero_ps
#define _mm512_setzero_ps ::thermocline::emulated::Register
#undef _mm512_setzero_si512
#define _mm512_setzero_si512 ::thermocline::emulated::Register
#undef _mm512_set1_ps
#define _mm512_set1_ps ::thermocline::emulated::set1_ps
#undef _mm512_set1_epi16
#define _mm512_set1_epi16 ::thermocline::emulated::set1_epi16
#undef _mm512_setr_ps
#define _mm512_setr_ps ::thermocline::emulated::setr_ps
#undef _mm512_add_ps
#define _mm512_add_ps ::thermocline::emulated::add_ps
#undef _mm512_sub_ps
#define _mm512_sub_ps ::thermocline::emulated::sub_ps
#undef _mm512_mul_ps
#define _mm512_mul_ps ::thermocline::emulated::mul_ps
#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps ::thermocline::emulated::fmadd_ps
#undef _mm512_max_ps
#define _mm512_max_ps ::thermocline::emulated::max_ps
#undef _mm512_and_si512
#define _mm512_and_si512 ::thermocline::emulated::and_si512
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 ::thermocline::emulated::slli_epi32
#undef _mm512_srli_epi32
#define _mm512_srli_epi32 ::thermocline::emulated::srli_epi32
#undef _mm512_slli_epi16
#define _mm512_slli_epi16 ::thermocline::emulated::slli_epi16
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 ::thermocline::emulated::srli_epi16
#undef _mm512_srlv_epi16
#define _mm512_srlv_epi16 ::thermocline::emulated::srlv_epi16
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 ::thermocline::emulated::madd_epi16
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps ::thermocline::emulated::cvtepi32_ps
#undef _mm512_permutexvar_ps
#define _mm512_permutexvar_ps ::thermocline::emulated::permutexvar_ps
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 ::thermocline::emulated::widen<uint32_t, uint16_t>
#undef _mm512_cvtepu8_epi16
#define _mm512_cvtepu8_epi16 ::thermocline::emulated::widen<uint16_t, uint8_t>
#undef _mm512_cvtepi8_epi16
#define _mm512_cvtepi8_epi16 ::thermocline::emulated::widen<int16_t, int8_t>
#undef _mm512_cvtepu8_epi32
#define _mm512_cvtepu8_epi32 ::thermocline::emulated::widen<uint32_t, uint8_t>
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 ::thermocline::emulated::widen<int32_t, int8_t>
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps ::thermocline::emulated::cvtph_ps
#undef _mm512_castps512_ps256
#define _mm512_castps512_ps256(a) ::thermocline::emulated::half(a, 0)
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps ::thermocline::emulated::half
#undef _mm512_insertf32x8
#define _mm512_insertf32x8 ::thermocline::emulated::with_half
#undef _mm512_inserti64x4
#define _mm512_inserti64x4 ::thermocline::emulated::with_half
