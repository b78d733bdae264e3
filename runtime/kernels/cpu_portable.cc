// Kernels in plain C++: what runs where nothing faster does, and what the others are held to.
#include <bit>
#include <cmath>

#include "runtime/kernels/cpu_body.h"
#include "runtime/kernels/instruction_sets.h"

namespace thermocline {
namespace {

float f32_of_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t rest = bits & 0x7fff;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  // The exponent's bias differs by 112; multiplying by 2^112 makes subnormals right as well.
  return std::bit_cast<float>(sign | rest << 13) * 0x1p112f;
}

uint16_t read_u16(const std::byte* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

struct Lanes {
  static constexpr int kAccumulators = 4;
  static constexpr int kCount = 16;
  float at[kCount];

  template <class Function>
  static Lanes of(Function function) {
    Lanes result;
    for (int i = 0; i < kCount; ++i) result.at[i] = function(i);
    return result;
  }
  static Lanes broadcast(float value) {
    return of([&](int) { return value; });
  }
  static Lanes zero() { return broadcast(0); }
  static Lanes load(const float* from) {
    return of([&](int i) { return from[i]; });
  }
  static void store(float* to, const Lanes& a) { std::memcpy(to, a.at, sizeof a.at); }
  static Lanes add(const Lanes& a, const Lanes& b) {
    return of([&](int i) { return a.at[i] + b.at[i]; });
  }
  static Lanes sub(const Lanes& a, const Lanes& b) {
    return of([&](int i) { return a.at[i] - b.at[i]; });
  }
  static Lanes mul(const Lanes& a, const Lanes& b) {
    return of([&](int i) { return a.at[i] * b.at[i]; });
  }
  static Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return of([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); });
  }
  // b where either is NaN, as the x86 instruction.
  static Lanes max(const Lanes& a, const Lanes& b) {
    return of([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
  }
  static Lanes shifted_to_exponent(const Lanes& a) {
    return of([&](int i) { return std::bit_cast<float>(std::bit_cast<uint32_t>(a.at[i]) << 23); });
  }
  static float sum(Lanes a) {
    for (int half = kCount / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) a.at[i] += a.at[i + half];
    return a.at[0];
  }

  template <DType D>
  static float element(const std::byte* from, float scale, int i) {
    if constexpr (D == DType::f32) {
      float value;
      std::memcpy(&value, from + 4 * i, sizeof value);
      return value;
    }
    if constexpr (D == DType::f16) return f32_of_f16(read_u16(from + 2 * i));
    if constexpr (D == DType::bf16)
      return std::bit_cast<float>(static_cast<uint32_t>(read_u16(from + 2 * i)) << 16);
    if constexpr (D == DType::q8_0) return scale * static_cast<int8_t>(from[2 + i]);
    const int both = static_cast<int>(from[2 + i % 16]);
    return scale * ((i < 16 ? both & 15 : both >> 4) - 8);
  }

  template <DType D, int R>
  [[gnu::always_inline]] static void read_scales(const std::byte* const* rows, size_t offset,
                                                 float* scales) {
    for (int r = 0; facts(D).items_per_block > 1 && r < R; ++r)
      scales[r] = f32_of_f16(read_u16(rows[r] + offset));
  }

  template <DType D>
  [[gnu::always_inline]] static void decode(const std::byte* from, float scale, Lanes& first,
                                            Lanes& second) {
    first = of([&](int i) { return element<D>(from, scale, i); });
    second = of([&](int i) { return element<D>(from, scale, kCount + i); });
  }
};

constexpr Kernels kKernels = CpuKernels<Lanes>::kernels("portable");

}  // namespace

const Kernels* portable_kernels() { return &kKernels; }

}  // namespace thermocline
