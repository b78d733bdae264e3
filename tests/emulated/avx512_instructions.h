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

template <class T>
[[gnu::noinline]] Register set1(T value) {
  return lanes<T>([&](int) { return value; });
}
template <class T, class... Values>
Register setr(Values... values) {
  const T all[] = {static_cast<T>(values)...};
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
[[gnu::noinline]] inline Register or_si512(const Register& a, const Register& b) {
  return lanes<uint64_t>([&](int i) { return a.get<uint64_t>(i) | b.get<uint64_t>(i); });
}
[[gnu::noinline]] inline Register slli_epi32(const Register& a, int count) {
  return lanes<uint32_t>([&](int i) { return a.get<uint32_t>(i) << count; });
}
[[gnu::noinline]] inline Register srli_epi32(const Register& a, int count) {
  return lanes<uint32_t>([&](int i) { return a.get<uint32_t>(i) >> count; });
}
[[gnu::noinline]] inline Register srli_epi16(const Register& a, int count) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) >> count; });
}
[[gnu::noinline]] inline Register srlv_epi16(const Register& a, const Register& counts) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) >> counts.get<uint16_t>(i); });
}
[[gnu::noinline]] inline Register sllv_epi16(const Register& a, const Register& counts) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) << counts.get<uint16_t>(i); });
}
[[gnu::noinline]] inline Register sub_epi16(const Register& a, const Register& b) {
  return lanes<uint16_t>([&](int i) { return a.get<uint16_t>(i) - b.get<uint16_t>(i); });
}
[[gnu::noinline]] inline Register add_epi32(const Register& a, const Register& b) {
  return lanes<uint32_t>([&](int i) { return a.get<uint32_t>(i) + b.get<uint32_t>(i); });
}
[[gnu::noinline]] inline Register sub_epi32(const Register& a, const Register& b) {
  return lanes<uint32_t>([&](int i) { return a.get<uint32_t>(i) - b.get<uint32_t>(i); });
}
[[gnu::noinline]] inline Register max_epi32(const Register& a, const Register& b) {
  return lanes<int32_t>([&](int i) {
    return a.get<int32_t>(i) > b.get<int32_t>(i) ? a.get<int32_t>(i) : b.get<int32_t>(i);
  });
}
// `otherwise` in the bytes whose bit is not set.
[[gnu::noinline]] inline Register mask_add_epi8(const Register& otherwise, uint64_t mask,
                                                const Register& a, const Register& b) {
  return lanes<uint8_t>([&](int i) {
    return mask >> i & 1 ? a.get<uint8_t>(i) + b.get<uint8_t>(i) : otherwise.get<uint8_t>(i);
  });
}
// Adds to each lane four products of unsigned bytes of a and signed ones of b.
[[gnu::noinline]] inline Register dpbusd_epi32(const Register& sum, const Register& a,
                                               const Register& b) {
  return lanes<int32_t>([&](int i) {
    int32_t total = sum.get<int32_t>(i);
    for (int k = 4 * i; k < 4 * i + 4; ++k) total += a.get<uint8_t>(k) * b.get<int8_t>(k);
    return total;
  });
}
// Adds to each lane two products of signed words.
[[gnu::noinline]] inline Register dpwssd_epi32(const Register& sum, const Register& a,
                                               const Register& b) {
  return lanes<int32_t>([&](int i) {
    int32_t total = sum.get<int32_t>(i);
    for (int k = 2 * i; k < 2 * i + 2; ++k) total += a.get<int16_t>(k) * b.get<int16_t>(k);
    return total;
  });
}
[[gnu::noinline]] inline Register cvtepi32_ps(const Register& a) {
  return lanes<float>([&](int i) { return a.get<int32_t>(i); });
}
[[gnu::noinline]] inline Register permutexvar_ps(const Register& indices, const Register& a) {
  return lanes<float>([&](int i) { return a.get<float>(indices.get<int32_t>(i) & 15); });
}
[[gnu::noinline]] inline Register permutexvar_epi32(const Register& indices, const Register& a) {
  return permutexvar_ps(indices, a);
}
[[gnu::noinline]] inline Register of_half(__m256 half) {
  return lanes<float>([&](int i) { return i < 8 ? lane<float>(half, i) : 0.0f; });
}
[[gnu::noinline]] inline Register broadcast_f32x4(__m128 four) {
  return lanes<float>([&](int i) { return lane<float>(four, i % 4); });
}
// Of each quarter, lanes `first` and `first` + 1 of a and b in turn.
[[gnu::noinline]] inline Register unpack(const Register& a, const Register& b, int first) {
  return lanes<float>(
      [&](int i) { return (i % 2 == 0 ? a : b).get<float>(i / 4 * 4 + first + i % 4 / 2); });
}
inline Register unpacklo_ps(const Register& a, const Register& b) { return unpack(a, b, 0); }
inline Register unpackhi_ps(const Register& a, const Register& b) { return unpack(a, b, 2); }
// Of each quarter, words `first` to `first` + 3 of a and b in turn.
[[gnu::noinline]] inline Register unpack_words(const Register& a, const Register& b, int first) {
  return lanes<uint16_t>(
      [&](int i) { return (i % 2 == 0 ? a : b).get<uint16_t>(i / 8 * 8 + first + i % 8 / 2); });
}
inline Register unpacklo_epi16(const Register& a, const Register& b) {
  return unpack_words(a, b, 0);
}
inline Register unpackhi_epi16(const Register& a, const Register& b) {
  return unpack_words(a, b, 4);
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
// `part`, as often as it fits.
template <class Part>
[[gnu::noinline]] Register repeat(Part part) {
  Register result;
  for (size_t at = 0; at < sizeof result.bytes; at += sizeof part)
    std::memcpy(result.bytes + at, &part, sizeof part);
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
#define _mm512_set1_ps ::thermocline::emulated::set1<float>
#undef _mm512_set1_epi8
#define _mm512_set1_epi8 ::thermocline::emulated::set1<int8_t>
#undef _mm512_set1_epi16
#define _mm512_set1_epi16 ::thermocline::emulated::set1<int16_t>
#undef _mm512_set1_epi32
#define _mm512_set1_epi32 ::thermocline::emulated::set1<int32_t>
#undef _mm512_setr_ps
#define _mm512_setr_ps ::thermocline::emulated::setr<float>
#undef _mm512_setr_epi32
#define _mm512_setr_epi32 ::thermocline::emulated::setr<int32_t>
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
#undef _mm512_or_si512
#define _mm512_or_si512 ::thermocline::emulated::or_si512
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 ::thermocline::emulated::slli_epi32
#undef _mm512_srli_epi32
#define _mm512_srli_epi32 ::thermocline::emulated::srli_epi32
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 ::thermocline::emulated::srli_epi16
#undef _mm512_srlv_epi16
#define _mm512_srlv_epi16 ::thermocline::emulated::srlv_epi16
#undef _mm512_sllv_epi16
#define _mm512_sllv_epi16 ::thermocline::emulated::sllv_epi16
#undef _mm512_sub_epi16
#define _mm512_sub_epi16 ::thermocline::emulated::sub_epi16
#undef _mm512_add_epi32
#define _mm512_add_epi32 ::thermocline::emulated::add_epi32
#undef _mm512_max_epi32
#define _mm512_max_epi32 ::thermocline::emulated::max_epi32
#undef _mm512_sub_epi32
#define _mm512_sub_epi32 ::thermocline::emulated::sub_epi32
#undef _mm512_mask_add_epi8
#define _mm512_mask_add_epi8 ::thermocline::emulated::mask_add_epi8
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 ::thermocline::emulated::dpbusd_epi32
#undef _mm512_dpwssd_epi32
#define _mm512_dpwssd_epi32 ::thermocline::emulated::dpwssd_epi32
#undef _mm512_permutexvar_epi32
#define _mm512_permutexvar_epi32 ::thermocline::emulated::permutexvar_epi32
#undef _mm512_unpacklo_epi16
#define _mm512_unpacklo_epi16 ::thermocline::emulated::unpacklo_epi16
#undef _mm512_unpackhi_epi16
#define _mm512_unpackhi_epi16 ::thermocline::emulated::unpackhi_epi16
#undef _mm512_broadcast_i32x4
#define _mm512_broadcast_i32x4 ::thermocline::emulated::repeat
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps ::thermocline::emulated::cvtepi32_ps
#undef _mm512_permutexvar_ps
#define _mm512_permutexvar_ps ::thermocline::emulated::permutexvar_ps
#undef _mm512_broadcast_f32x4
#define _mm512_broadcast_f32x4 ::thermocline::emulated::broadcast_f32x4
#undef _mm512_unpacklo_ps
#define _mm512_unpacklo_ps ::thermocline::emulated::unpacklo_ps
#undef _mm512_unpackhi_ps
#define _mm512_unpackhi_ps ::thermocline::emulated::unpackhi_ps
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu16_epi32 ::thermocline::emulated::widen<uint32_t, uint16_t>
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps ::thermocline::emulated::cvtph_ps
#undef _mm512_broadcast_f32x4
#define _mm512_broadcast_f32x4 ::thermocline::emulated::repeat
#undef _mm512_broadcast_i64x4
#define _mm512_broadcast_i64x4 ::thermocline::emulated::repeat
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps ::thermocline::emulated::half
#undef _mm512_insertf32x8
#define _mm512_insertf32x8 ::thermocline::emulated::with_half
#undef _mm512_inserti64x4
#define _mm512_inserti64x4 ::thermocline::emulated::with_half
#undef _mm512_castps256_ps512
#define _mm512_castps256_ps512 ::thermocline::emulated::of_half
#undef _mm512_castps512_ps256
#define _mm512_castps512_ps256(a) ::thermocline::emulated::half(a, 0)
