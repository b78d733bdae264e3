// How one GPU thread reads and decodes weights: all index arithmetic of the matrix kernels.
//
// A row (cuda_layout.h) is cut into units: the columns that one thread decodes from 16 bytes of
//   codes (q6_k: 32). A unit is made of quads: 4 neighbouring columns, which take one float4 of x.
//   Which columns these are follows from the format; column_of says so, and unit_of the reverse.
// Weights become exactly the f32 values of models/quantize.h, for finite scales.
// Goals: what is indexed by a quad is unrolled, so that everything lies in registers.
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime/kernels/cuda.h"
#include "runtime/kernels/cuda_layout.h"

namespace TC_CUDA_NAMESPACE {

inline constexpr int kWarp = 32;
inline constexpr int kQuad = 4;  // columns

template <DType D>
inline constexpr bool kIsPlain = facts(D).items_per_block == 1;
template <DType D>
inline constexpr bool kIsBlockOf32 = facts(D).items_per_block == 32;
template <DType D>
inline constexpr int kItems = static_cast<int>(facts(D).items_per_block);
template <DType D>
inline constexpr int kBlockBytes = static_cast<int>(facts(D).bytes_per_block);
template <DType D, int kPlane>
inline constexpr int kPlaneBytes = plane_of(D, kPlane).bytes;
template <DType D, int kPlane>
inline constexpr int kBytesBefore = bytes_before(D, kPlane);
// Codes of 5 bits, the fifth of which lies apart.
template <DType D>
inline constexpr bool kHasFifths = D == DType::q5_0 || D == DType::q5_1 || D == DType::q5_k;

template <DType D>
inline constexpr int kQuads = D == DType::f32                       ? 1
                              : D == DType::f16 || D == DType::bf16 ? 2
                              : D == DType::q8_0                    ? 4
                              : D == DType::q6_k                    ? 16
                                                                    : 8;
template <DType D>
inline constexpr int kUnitColumns = kQuad* kQuads<D>;

template <DType D>
__device__ inline int unit_count(int cols) {
  return (cols + kUnitColumns<D> - 1) / kUnitColumns<D>;
}

// The first column of a quad. In a Q4_K or Q5_K unit, the low halves of 16 bytes are 16 columns of
// one sub-block and the high halves those of the next; in a Q6_K unit, four groups share them.
template <DType D>
__device__ inline int column_of(int unit, int quad) {
  if constexpr (D == DType::q4_k || D == DType::q5_k)
    return unit / 2 * 64 + quad / 4 * 32 + unit % 2 * 16 + quad % 4 * 4;
  if constexpr (D == DType::q6_k)
    return unit / 2 * 128 + quad / 4 * 32 + unit % 2 * 16 + quad % 4 * 4;
  return unit * kUnitColumns<D> + quad * kQuad;
}

template <DType D>
__device__ inline int unit_of(int column) {
  if constexpr (D == DType::q4_k || D == DType::q5_k) return column / 64 * 2 + column / 16 % 2;
  if constexpr (D == DType::q6_k) return column / 128 * 2 + column / 16 % 2;
  return column / kUnitColumns<D>;
}

template <DType D>
__device__ inline int quad_of(int column) {
  if constexpr (D == DType::q4_k || D == DType::q5_k) return column / 32 % 2 * 4 + column / 4 % 4;
  if constexpr (D == DType::q6_k) return column / 32 % 4 * 4 + column / 4 % 4;
  return column / kQuad % kQuads<D>;
}

// --- Reading ------------------------------------------------------------------------------------

template <int N>
struct alignas(4 * N) Words {
  uint32_t at[N];
};

// The bytes of a row, which begins anywhere even. An aligned row begins at a multiple of 16 and
// has whole units.
template <bool kAligned>
struct RowBytes {
  const std::byte* data;
  int count;

  template <int N>
  __device__ Words<N> words(int offset) const {
    if constexpr (kAligned) return *reinterpret_cast<const Words<N>*>(data + offset);
    Words<N> words = {};
    for (int i = 0; i < 2 * N && offset + 2 * i < count; ++i)
      words.at[i / 2] |= half(offset + 2 * i) << (i % 2 * 16);
    return words;
  }
  __device__ uint32_t half(int offset) const {
    return *reinterpret_cast<const uint16_t*>(data + offset);
  }
};

// A unit as it lies in memory.
template <DType D>
struct Unit {
  static constexpr int kCodeWords = D == DType::q6_k ? 8 : 4;
  static constexpr int kHighWords = D == DType::q6_k || D == DType::q5_k ? 4 : 1;
  static constexpr int kScaleWords = D == DType::q6_k ? 3 : kItems<D> == 256 ? 4 : 1;
  uint32_t codes[kCodeWords];
  uint32_t high[kHighWords];  // fifth bits, upper pairs
  uint32_t scales[kScaleWords];
};

template <int N>
__device__ inline void put(const Words<N>& words, uint32_t* to) {
  for (int i = 0; i < N; ++i) to[i] = words.at[i];
}

template <DType D, bool kAligned>
__device__ inline void load_block_of_32(const RowBytes<kAligned>& row, int blocks, int u,
                                        Unit<D>& unit) {
  const int block = D == DType::q8_0 ? u / 2 : u;
  constexpr int kScalePlane = kHasFifths<D> ? 2 : 1;
  const int scale_at = blocks * kBytesBefore<D, kScalePlane>;
  if constexpr (kHasFifths<D>)
    put(row.template words<1>(blocks * kBytesBefore<D, 1> + 4 * block), unit.high);
  if constexpr (kPlaneBytes<D, kScalePlane> == 4)
    put(row.template words<1>(scale_at + 4 * block), unit.scales);
  else
    unit.scales[0] = row.half(scale_at + 2 * block);
}

template <DType D, bool kAligned>
__device__ inline void load_super_block(const RowBytes<kAligned>& row, int blocks, int u,
                                        Unit<D>& unit) {
  if constexpr (D == DType::q6_k) {
    const int part = u / 2 * 32 + u % 2 * 16;  // half a block has 32 bytes of upper pairs
    put(row.template words<4>(u / 2 * 64 + u % 2 * 16), unit.codes);
    put(row.template words<4>(u / 2 * 64 + u % 2 * 16 + 32), unit.codes + 4);
    put(row.template words<4>(blocks * kBytesBefore<D, 1> + part), unit.high);
    put(row.template words<2>(blocks * kBytesBefore<D, 2> + u / 2 * 8), unit.scales);
    unit.scales[2] = row.half(blocks * kBytesBefore<D, 3> + u / 4 * 2);
  } else {
    constexpr int kScalePlane = kHasFifths<D> ? 2 : 1;
    if constexpr (kHasFifths<D>)
      put(row.template words<4>(blocks * kBytesBefore<D, 1> + u / 8 * 32 + u % 2 * 16), unit.high);
    put(row.template words<4>(blocks * kBytesBefore<D, kScalePlane> + u / 8 * 16), unit.scales);
  }
}

template <DType D, bool kAligned>
__device__ inline Unit<D> load_unit(const std::byte* data, int cols, int u) {
  const int blocks = cols / kItems<D>;
  const RowBytes<kAligned> row{data, blocks * kBlockBytes<D>};
  Unit<D> unit;
  if constexpr (D != DType::q6_k) put(row.template words<4>(16 * u), unit.codes);
  if constexpr (kIsBlockOf32<D>) load_block_of_32<D>(row, blocks, u, unit);
  if constexpr (kItems<D> == 256) load_super_block<D>(row, blocks, u, unit);
  return unit;
}

// --- Decoding -----------------------------------------------------------------------------------

__device__ inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

__device__ inline float float_of_half(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

// A code below 2^23 as a float: put into the mantissa of 2^23, which is then taken away. Two
// instructions at full rate, where a conversion runs at a quarter of it.
inline constexpr uint32_t kTwo23 = 0x4b000000;
__device__ inline float float_of_code(uint32_t code) {
  return float_of_bits(code | kTwo23) - 0x1p23f;
}

// Nibble i of a word is left where it is, or moved with its neighbours, to bit 8, 12 or 16 of the
// mantissa of 2^23.
__device__ constexpr int nibble_at(int i) { return i < 2 ? 4 * i + 8 : i < 5 ? 4 * i : 4 * i - 12; }
__device__ inline float nibble_in_two23(uint32_t word, int i) {
  const uint32_t moved = i < 2 ? word << 8 : i < 5 ? word : word >> 12;
  return float_of_bits((moved & (15u << nibble_at(i))) | kTwo23);
}
__device__ inline float nibble(uint32_t word, int i) {
  const float unit = 1.0f / (1 << nibble_at(i));
  return fmaf(nibble_in_two23(word, i), unit, -0x1p23f * unit);
}
__device__ inline uint32_t nibble_code(uint32_t word, int i) { return word >> 4 * i & 15; }

// What codes are multiplied with and what is added, by what kScaleOf and the quad choose.
template <DType D>
struct Scales {
  static constexpr int kCount = D == DType::q4_0                       ? 3
                                : D == DType::q4_k || D == DType::q5_k ? 2
                                : D == DType::q6_k                     ? 4
                                                                       : 1;
  float factor[kCount], term[kCount];
};

// Six bits each of sub-block `sub`: its scale and its minimum (models/dtype.h).
__device__ inline void sub_scales(const uint32_t* pairs, int sub, uint32_t& s, uint32_t& m) {
  const int shift = sub % 4 * 8;
  const uint32_t first = pairs[0] >> shift, second = pairs[1] >> shift, third = pairs[2] >> shift;
  s = sub < 4 ? first & 63 : (third & 15) | (first >> 6 & 3) << 4;
  m = sub < 4 ? second & 63 : (third >> 4 & 15) | (second >> 6 & 3) << 4;
}

template <DType D>
__device__ inline Scales<D> scales_of(const Unit<D>& unit, int u) {
  Scales<D> scales = {};
  const float d = float_of_half(unit.scales[D == DType::q6_k ? 2 : 0] & 0xffff);
  if constexpr (D == DType::q4_0) {
    // factor * (2^23 + code * 2^at) + term = d * (code - 8); every product is exact, d has 11 bits.
    for (int i = 0; i < 3; ++i) {
      const float unit_of_nibble = 1.0f / (1 << (4 * i + 8));
      scales.factor[i] = d * unit_of_nibble;
      scales.term[i] = d * -(0x1p23f * unit_of_nibble + 8);
    }
  } else if constexpr (D == DType::q4_k || D == DType::q5_k) {
    const float d_minimum = float_of_half(unit.scales[0] >> 16);
    for (int i = 0; i < 2; ++i) {
      uint32_t s, m;
      sub_scales(unit.scales + 1, u % 8 / 2 * 2 + i, s, m);
      scales.factor[i] = d * float_of_code(s);
      scales.term[i] = -(d_minimum * float_of_code(m));
    }
  } else if constexpr (D == DType::q6_k) {
    for (int group = 0; group < 4; ++group) {
      const uint32_t byte = unit.scales[group / 2] >> (group % 2 * 16 + u % 2 * 8) & 255;
      scales.factor[group] = d * (float_of_code(byte ^ 128) - 128);
    }
  } else if constexpr (kIsBlockOf32<D>) {
    scales.factor[0] = d;
    scales.term[0] = float_of_half(unit.scales[0] >> 16);
  }
  return scales;
}

template <DType D>
__device__ inline float plain_weight(const Unit<D>& unit, int at) {
  if constexpr (D == DType::f32) return float_of_bits(unit.codes[at]);
  const uint32_t word = unit.codes[at / 2];
  if constexpr (D == DType::f16) return float_of_half(at % 2 == 0 ? word & 0xffff : word >> 16);
  return float_of_bits(at % 2 == 0 ? word << 16 : word & 0xffff0000);
}

// Weight `e` of a quad whose low bits are nibbles: those of bytes 0..3 of a word.
template <DType D>
__device__ inline float nibble_weight(const Unit<D>& unit, const Scales<D>& scales, int u, int quad,
                                      int e) {
  const int i = 2 * e + quad / 4;
  const uint32_t word = unit.codes[quad % 4];
  if constexpr (D == DType::q4_0) {
    const int which = nibble_at(i) / 4 - 2;
    return fmaf(nibble_in_two23(word, i), scales.factor[which], scales.term[which]);
  }
  if constexpr (D == DType::q4_1) return fmaf(nibble(word, i), scales.factor[0], scales.term[0]);
  if constexpr (D == DType::q4_k)
    return fmaf(nibble(word, i), scales.factor[quad / 4], scales.term[quad / 4]);
  if constexpr (D == DType::q5_k) {
    const uint32_t fifth = unit.high[quad % 4] >> (8 * e + u % 8 / 2 * 2 + quad / 4) & 1;
    const float code = float_of_code(nibble_code(word, i) | fifth << 4);
    return fmaf(code, scales.factor[quad / 4], scales.term[quad / 4]);
  }
  const float code =
      float_of_code(nibble_code(word, i) | (unit.high[0] >> (4 * quad + e) & 1) << 4);
  if constexpr (D == DType::q5_1) return fmaf(code, scales.factor[0], scales.term[0]);
  return (code - 16) * scales.factor[0];
}

template <DType D>
__device__ inline void decode_quad(const Unit<D>& unit, const Scales<D>& scales, int u, int quad,
                                   float (&w)[kQuad]) {
#pragma unroll
  for (int e = 0; e < kQuad; ++e) {
    if constexpr (kIsPlain<D>) {
      w[e] = plain_weight(unit, quad * kQuad + e);
    } else if constexpr (D == DType::q8_0) {
      const uint32_t biased = (unit.codes[quad] ^ 0x80808080) >> 8 * e & 255;
      w[e] = (float_of_bits(biased | kTwo23) - (0x1p23f + 128)) * scales.factor[0];
    } else if constexpr (D == DType::q6_k) {
      const int group = quad / 4;
      const uint32_t low = nibble_code(unit.codes[group % 2 * 4 + quad % 4], 2 * e + group / 2);
      const uint32_t high = unit.high[quad % 4] >> (8 * e + 2 * group) & 3;
      w[e] = (float_of_bits(low | high << 4 | kTwo23) - (0x1p23f + 32)) * scales.factor[group];
    } else {
      w[e] = nibble_weight(unit, scales, u, quad, e);
    }
  }
}

__device__ inline bool bit_is_set(uint64_t word, int bit) { return (word >> bit & 1) != 0; }

}  // namespace TC_CUDA_NAMESPACE
