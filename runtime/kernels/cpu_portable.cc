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
  static constexpr int kSumPositions = 8;
  static constexpr Requests kRequests = kAskedOnce;
  static constexpr bool kUnrolls = false;
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
  // The same four floats in each quarter.
  static Lanes load_four(const float* from) {
    return of([&](int i) { return from[i % 4]; });
  }
  // Of each quarter of a and b, the first (last) two lanes in turn: a0 b0 a1 b1.
  static Lanes zip_first(const Lanes& a, const Lanes& b) {
    return of([&](int i) { return (i % 2 == 0 ? a : b).at[i / 4 * 4 + i % 4 / 2]; });
  }
  static Lanes zip_last(const Lanes& a, const Lanes& b) {
    return of([&](int i) { return (i % 2 == 0 ? a : b).at[i / 4 * 4 + 2 + i % 4 / 2]; });
  }
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
  static Eight fma(const Eight& a, const Eight& b, const Eight& c) {
    Eight result;
    for (int i = 0; i < 8; ++i) result.at[i] = std::fma(a.at[i], b.at[i], c.at[i]);
    return result;
  }
  static Lanes fma(const Eight& a, const Eight& b, const Lanes& c) {
    return of([&](int i) { return i < 8 ? std::fma(a.at[i], b.at[i], c.at[i]) : c.at[i]; });
  }
  // Lane l: eight[4 * half + l / 4].
  static Lanes spread(const Eight& eight, int half) {
    return of([&](int i) { return eight.at[4 * half + i / 4]; });
  }
  static Lanes spread_four(const float* four) {
    return of([=](int i) { return four[i / 4]; });
  }

  // The codes of a group, unsigned.
  struct Bytes {
    uint8_t firsts[64], seconds[64];
  };
  static void store_bytes(uint8_t* to, const Bytes& bytes) {
    std::memcpy(to, &bytes, sizeof bytes);
  }
  template <DType D>
  static Bytes codes(const std::byte* codes, const std::byte* further) {
    const auto at = [](const std::byte* from, int i) { return static_cast<int>(from[i]); };
    Bytes bytes;
    for (int i = 0; i < 64; ++i) {
      int first = at(codes, i), second = code_bits(D) == 8 ? at(codes, 64 + i) : first >> 4;
      if constexpr (code_bits(D) != 8) first &= 15;
      if constexpr (code_bits(D) == 5) {
        first |= (at(further, i / 8) >> i % 8 & 1) << 4;
        second |= (at(further, 8 + i / 8) >> i % 8 & 1) << 4;
      }
      if constexpr (code_bits(D) == 6) {
        first |= (at(further, i % 32) >> i / 32 * 2 & 3) << 4;
        second |= (at(further, i % 32) >> (4 + i / 32 * 2) & 3) << 4;
      }
      bytes.firsts[i] = static_cast<uint8_t>(first);
      bytes.seconds[i] = static_cast<uint8_t>(second);
    }
    return bytes;
  }

  // Lane l: the sum of its codes, less the code of zero, times x; kPart: 0 of all, 1 of its firsts,
  // 2 of its seconds. sums, first_sums: see FixedRow.
  template <DType D, int kPart>
  static Lanes dot(const Bytes& w, const int8_t* x, const int32_t* sums,
                   const int32_t* first_sums) {
    int32_t sum[kCount];
    for (int l = 0; l < kCount; ++l) {
      const int of_x = kPart == 0 ? sums[l] : kPart == 1 ? first_sums[l] : sums[l] - first_sums[l];
      sum[l] = of_x * zero_code(D);
    }
    const auto x_at = [x](int i) { return 256 * x[i] + x[kGroup + i]; };
    for (int i = 0; i < 64; ++i) {
      if constexpr (kPart != 2) sum[i / 4] += w.firsts[i] * x_at(i);
      if constexpr (kPart != 1) sum[i / 4] += w.seconds[i] * x_at(64 + i);
    }
    return of([&](int i) { return static_cast<float>(sum[i]); });
  }

  // 128 codes of four bits.
  struct HalfBytes {
    uint8_t bytes[64];
  };
  static HalfBytes half_bytes(const std::byte* codes) {
    HalfBytes halves;
    std::memcpy(halves.bytes, codes, sizeof halves.bytes);
    return halves;
  }
  struct Ints {
    int32_t at[kCount];
  };
  struct Words {
    int32_t of_a[kCount], of_b[kCount];
  };
  static Ints no_ints() { return {}; }
  static Lanes of_ints(const Ints& a) {
    return of([&](int i) { return static_cast<float>(a.at[i]); });
  }
  template <int kShift>
  static Ints shifted(Ints a) {
    for (int32_t& lane : a.at) lane *= 1 << kShift;
    return a;
  }
  static Ints bits(const Lanes& a) { return std::bit_cast<Ints>(a); }
  static Ints add(Ints a, const Ints& b) {
    for (int i = 0; i < kCount; ++i)
      a.at[i] =
          static_cast<int32_t>(static_cast<uint32_t>(a.at[i]) + static_cast<uint32_t>(b.at[i]));
    return a;
  }
  static void store(uint32_t* to, const Ints& a) { std::memcpy(to, a.at, sizeof a.at); }
  // The larger of a size's bits and b's.
  static Ints max_size(Ints size, const Lanes& b) {
    for (int i = 0; i < kCount; ++i) {
      const auto of_b = static_cast<int32_t>(std::bit_cast<uint32_t>(b.at[i]) & 0x7fffffff);
      if (of_b > size.at[i]) size.at[i] = of_b;
    }
    return size;
  }
  // Words of each lane: the lower ones of a and b.
  static Ints pair(Ints a, const Ints& b) {
    for (int i = 0; i < kCount; ++i)
      a.at[i] = static_cast<int32_t>((a.at[i] & 0xffff) | static_cast<uint32_t>(b.at[i]) << 16);
    return a;
  }
  static Words all_words(int pattern) {
    return words_of([=](int) { return pattern & 0xffff; }, [=](int) { return pattern >> 16; });
  }
  // Words of codes of position p in lanes: one of a, one of b, where the mask leaves them.
  template <int p>
  static Words words(const HalfBytes& a, const HalfBytes& b, const Words& mask) {
    const auto at = [](const HalfBytes& codes, int i, int32_t mask) {
      const uint8_t* bytes = codes.bytes + 16 * (i / 4) + byte_of(p / 4 * 4, i);
      const int32_t word = bytes[0] | bytes[1] << 8;
      return p % 4 == 3 ? word >> 12 : word & mask;
    };
    return words_of([&](int i) { return at(a, i, mask.of_a[i]); },
                    [&](int i) { return at(b, i, mask.of_b[i]); });
  }
  template <int p>
  static Words words(const Bytes& a, const Bytes& b, const Words&) {
    const auto at = [](const Bytes& codes, int i) {
      return (p % 2 == 0 ? codes.firsts : codes.seconds)[16 * (i / 4) + byte_of(p, i)];
    };
    return words_of([&](int i) { return at(a, i); }, [&](int i) { return at(b, i); });
  }
  // Which of the bytes of its block lane i has at position p.
  static constexpr int byte_of(int p, int i) { return p / 4 * 8 + 2 * (i % 4) + p / 2 % 2; }
  template <class OfA, class OfB>
  static Words words_of(OfA of_a, OfB of_b) {
    Words words;
    for (int i = 0; i < kCount; ++i) {
      words.of_a[i] = of_a(i);
      words.of_b[i] = of_b(i);
    }
    return words;
  }
  // Lane l: four[l / 4].
  static Ints spread_ints(const int32_t* four) {
    Ints ints;
    for (int i = 0; i < kCount; ++i) ints.at[i] = four[i / 4];
    return ints;
  }
  static Words spread_words(const int32_t* four) {
    return words_of([&](int i) { return static_cast<int16_t>(four[i / 4] & 0xffff); },
                    [&](int i) { return four[i / 4] >> 16; });
  }
  static Words load_words(const int16_t* from) {
    return words_of([=](int i) { return from[2 * i]; }, [=](int i) { return from[2 * i + 1]; });
  }
  // A group's codes, less the code of zero, as place_words() puts them.
  template <DType D>
  static void store_words(int16_t* to, const Bytes& codes) {
    int16_t columns[kGroup];
    for (int c = 0; c < kGroup; ++c) {
      const auto& half = c % kBlock < 16 ? codes.firsts : codes.seconds;
      columns[c] = static_cast<int16_t>(half[16 * (c / kBlock) + c % 16] - zero_code(D));
    }
    place_words(columns, to);
  }
  // Adds to each lane its two products.
  static Ints dot_words(Ints sum, const Words& a, const Words& b) {
    for (int i = 0; i < kCount; ++i) sum.at[i] += a.of_a[i] * b.of_a[i] + a.of_b[i] * b.of_b[i];
    return sum;
  }
  template <DType D>
  static float value_at(const std::byte* from, int i) {
    if constexpr (D == DType::f32) {
      float value;
      std::memcpy(&value, from + 4 * i, sizeof value);
      return value;
    } else if constexpr (D == DType::f16) {
      return f32_of_f16(read_u16(from + 2 * i));
    } else {
      static_assert(D == DType::bf16);
      return std::bit_cast<float>(static_cast<uint32_t>(read_u16(from + 2 * i)) << 16);
    }
  }
  // Columns 0..15 and 16..31 of a step of a type without blocks.
  template <DType D>
  static void values(const std::byte* from, Lanes& first, Lanes& second) {
    first = of([&](int i) { return value_at<D>(from, i); });
    second = of([&](int i) { return value_at<D>(from, kCount + i); });
  }

  // The eight pairs of 6-bit scales of Q4_K and Q5_K.
  static void read_pairs(const std::byte* block, float* scales) {
    const float d = f32_of_f16(read_u16(block)), d_minimum = f32_of_f16(read_u16(block + 2));
    for (int j = 0; j < kChunkBlocks; ++j) {
      const auto at = [=](int i) { return static_cast<int>(block[4 + i]); };
      const bool late = j >= 4;  // the upper two bits are those of an early pair's bytes
      const int scale = late ? (at(j + 4) & 15) | at(j - 4) >> 6 << 4 : at(j) & 63;
      const int minimum = late ? at(j + 4) >> 4 | at(j) >> 6 << 4 : at(j + 4) & 63;
      scales[j] = d * scale;
      scales[kChunkBlocks + j] = -(d_minimum * minimum);
    }
  }

  template <DType D>
  static void read_scales(const std::byte* from, const std::byte* more, int count,
                          float (&scales)[scale_count(D)]) {
    if constexpr (D == DType::q6_k) {
      const float d = f32_of_f16(read_u16(more));
      for (int j = 0; j < 16; ++j) scales[j] = d * static_cast<int8_t>(from[j]);
    } else if constexpr (is_super_block(D)) {
      read_pairs(from, scales);
    } else {
      for (int i = 0; i < scale_count(D); ++i) {
        const int block = i % kChunkBlocks;
        const std::byte* plane = i < kChunkBlocks ? from : more;
        scales[i] = block < count ? f32_of_f16(read_u16(plane + 2 * block)) : 0.0f;
      }
    }
  }
};

constexpr Kernels kKernels = CpuKernels<Lanes>::kernels("portable");

}  // namespace

const Kernels* portable_kernels() { return &kKernels; }

}  // namespace thermocline
