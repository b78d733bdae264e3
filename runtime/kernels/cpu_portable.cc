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
  static constexpr bool kUnrollsSteps = false;
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

  // The code of column i of a step as it is stored (Q6_K: less 32).
  template <DType D>
  static int code(const std::byte* block, int step, int i) {
    const auto at = [block](int offset) { return static_cast<int>(block[offset]); };
    constexpr int kHeader = facts(D).bytes_per_block - facts(D).items_per_block / 2;
    if constexpr (D == DType::q8_0) return static_cast<int8_t>(block[2 + i]);
    if constexpr (D == DType::q6_k) {
      const int half = step / 4, group = step % 4;
      const int low = at(half * 64 + group % 2 * 32 + i) >> group / 2 * 4 & 15;
      return (low | (at(128 + half * 32 + i) >> 2 * group & 3) << 4) - 32;
    }
    if constexpr (kIsSuperBlock<D>) {
      const int low = at(kHeader + step / 2 * 32 + i) >> step % 2 * 4 & 15;
      return D == DType::q5_k ? low | (at(16 + i) >> step & 1) << 4 : low;
    }
    const int low = at(kHeader + i % 16) >> i / 16 * 4 & 15;
    if constexpr (D == DType::q4_0 || D == DType::q4_1) return low;
    return low | (at(kHeader - 4 + i / 8) >> i % 8 & 1) << 4;
  }

  // `first` in lanes 0..7, `second` in lanes 8..15.
  static Lanes halves(float first, float second) {
    return of([&](int i) { return i < kCount / 2 ? first : second; });
  }
  // Half as many lanes, the first.
  struct Eight {
    float at[8];
  };
  static Eight eight(float value) {
    Eight result;
    for (float& lane : result.at) lane = value;
    return result;
  }
  static Eight load_eight(const float* from) {
    Eight result;
    std::memcpy(result.at, from, sizeof result.at);
    return result;
  }
  static void store(float* to, const Eight& a) { std::memcpy(to, a.at, sizeof a.at); }
  static Eight mul(const Eight& a, const Eight& b) {
    Eight result;
    for (int i = 0; i < 8; ++i) result.at[i] = a.at[i] * b.at[i];
    return result;
  }
  static Lanes fma(const Eight& a, const Eight& b, const Lanes& c) {
    return of([&](int i) { return i < 8 ? std::fma(a.at[i], b.at[i], c.at[i]) : c.at[i]; });
  }
  // Lanes 0..3 (half 0) or 4..7 (half 1), each two times.
  static Eight each_twice(const Eight& a, int half) {
    Eight result;
    for (int i = 0; i < 8; ++i) result.at[i] = a.at[4 * half + i / 2];
    return result;
  }

  // 32 columns as 16-bit integers.
  struct Codes {
    int16_t at[kStep];
  };
  static Codes load_codes(const int16_t* from) {
    Codes codes;
    std::memcpy(codes.at, from, sizeof codes.at);
    return codes;
  }
  static void store_codes(int16_t* to, const Codes& codes) {
    std::memcpy(to, codes.at, sizeof codes.at);
  }
  // Lane i: a[2i] * b[2i] + a[2i+1] * b[2i+1].
  static Lanes products(const Codes& a, const int16_t* b) {
    return of([&](int i) {
      return static_cast<float>(a.at[2 * i] * b[2 * i] + a.at[2 * i + 1] * b[2 * i + 1]);
    });
  }

  template <DType D>
  static float value(const std::byte* from, int step, int i) {
    if constexpr (D == DType::f32) {
      float value;
      std::memcpy(&value, from + 4 * i, sizeof value);
      return value;
    } else if constexpr (D == DType::f16) {
      return f32_of_f16(read_u16(from + 2 * i));
    } else if constexpr (D == DType::bf16) {
      return std::bit_cast<float>(static_cast<uint32_t>(read_u16(from + 2 * i)) << 16);
    } else {
      return static_cast<float>(code<D>(from, step, i) - kZeroCode<D>);
    }
  }

  // The eight pairs of 6-bit scales of Q4_K and Q5_K.
  static void read_pairs(const std::byte* block, float* scales) {
    const float d = f32_of_f16(read_u16(block)), d_minimum = f32_of_f16(read_u16(block + 2));
    for (int j = 0; j < kStepsPerChunk; ++j) {
      const auto at = [=](int i) { return static_cast<int>(block[4 + i]); };
      const bool late = j >= 4;  // the upper two bits are those of an early pair's bytes
      const int scale = late ? (at(j + 4) & 15) | at(j - 4) >> 6 << 4 : at(j) & 63;
      const int minimum = late ? at(j + 4) >> 4 | at(j) >> 6 << 4 : at(j + 4) & 63;
      scales[j] = d * scale;
      scales[kStepsPerChunk + j] = -(d_minimum * minimum);
    }
  }

  template <DType D>
  static void read_scales(const std::byte* chunk, int count, float (&scales)[kScaleCount<D>]) {
    if constexpr (D == DType::q6_k) {
      const float d = f32_of_f16(read_u16(chunk + 208));
      for (int j = 0; j < 16; ++j) scales[j] = d * static_cast<int8_t>(chunk[192 + j]);
    } else if constexpr (kIsSuperBlock<D>) {
      read_pairs(chunk, scales);
    } else {
      for (int i = 0; i < kScaleCount<D>; ++i) {
        const std::byte* block = block_of<D>(chunk, i % kStepsPerChunk);
        scales[i] = i % kStepsPerChunk < count
                        ? f32_of_f16(read_u16(block + i / kStepsPerChunk * 2))
                        : 0.0f;
      }
    }
  }

  template <DType D>
  static Codes codes(const std::byte* block, int step) {
    Codes codes;
    constexpr int kUnit = D == DType::q8_0 ? 256 : 1;
    for (int i = 0; i < kStep; ++i)
      codes.at[i] = static_cast<int16_t>(kUnit * code<D>(block, step, i));
    return codes;
  }

  template <DType D>
  static void values(const std::byte* from, int step, Lanes& first, Lanes& second) {
    first = of([&](int i) { return value<D>(from, step, i); });
    second = of([&](int i) { return value<D>(from, step, kCount + i); });
  }
};

constexpr Kernels kKernels = CpuKernels<Lanes>::kernels("portable");

}  // namespace

const Kernels* portable_kernels() { return &kKernels; }

}  // namespace thermocline
