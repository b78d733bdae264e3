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

// A code is put into the mantissa of 2^23, which is then taken away: all at full rate, where a
// conversion from integers has a quarter of it.
inline constexpr uint32_t kTwo23 = 0x4b000000;
__device__ inline float float_of_code(uint32_t code) {
  return float_of_bits(code | kTwo23) - 0x1p23f;
}
// Byte `e` as byte kByte of the mantissa of 2^23: 2^23 + byte * 2^(8 kByte).
template <int kByte>
__device__ inline float byte_in_two23(uint32_t bytes, int e) {
  const unsigned selector = kByte == 0 ? 0x7440 + e : 0x7404 + 16 * e;
  return float_of_bits(__byte_perm(bytes, kTwo23, selector));
}

// What the codes of a unit are multiplied with and what is added.
template <DType D>
struct Scales {
  static constexpr int kCount = D == DType::q4_k || D == DType::q5_k ? 2 : D == DType::q6_k ? 4 : 1;
  float factor[kCount], term[kCount];
};

// Scales and minima, six bits each, of sub-blocks 2 pair and 2 pair + 1: a byte each, in this order
// (models/dtype.h). words: the twelve bytes of them.
struct SubScales {
  uint32_t scales, minima;
};
__device__ inline SubScales sub_scales(const uint32_t* words, int pair) {
  const int shift = pair % 2 * 16;
  const uint32_t first = words[0] >> shift, second = words[1] >> shift, third = words[2] >> shift;
  const uint32_t late_scales = (third & 0x0f0f) | (first >> 2 & 0x3030);
  const uint32_t late_minima = (third >> 4 & 0x0f0f) | (second >> 2 & 0x3030);
  return {pair < 2 ? first & 0x3f3f : late_scales, pair < 2 ? second & 0x3f3f : late_minima};
}

template <DType D>
__device__ inline Scales<D> scales_of(const Unit<D>& unit, int u) {
  Scales<D> scales = {};
  const float d = float_of_half(unit.scales[D == DType::q6_k ? 2 : 0] & 0xffff);
  if constexpr (D == DType::q4_0) {
    // factor * (2^23 + code * 2^8) + term = d * (code - 8): every product is exact, d has 11 bits.
    scales.factor[0] = d * 0x1p-8f;
    scales.term[0] = d * -(0x1p15f + 8);
  } else if constexpr (D == DType::q4_k || D == DType::q5_k) {
    const float d_minimum = float_of_half(unit.scales[0] >> 16);
    const SubScales sub = sub_scales(unit.scales + 1, u % 8 / 2);
    for (int i = 0; i < 2; ++i) {
      scales.factor[i] = d * (byte_in_two23<0>(sub.scales, i) - 0x1p23f);
      scales.term[i] = -(d_minimum * (byte_in_two23<0>(sub.minima, i) - 0x1p23f));
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

// The codes of a quad, a byte each; those of q8_0 plus 128.
template <DType D>
__device__ inline uint32_t code_bytes(const Unit<D>& unit, int u, int quad) {
  if constexpr (D == DType::q8_0) return unit.codes[quad] ^ 0x80808080;
  if constexpr (D == DType::q6_k) {
    const int group = quad / 4;
    const uint32_t low = unit.codes[group % 2 * 4 + quad % 4] >> group / 2 * 4;
    const uint32_t pairs = unit.high[quad % 4];
    const uint32_t high = group < 2 ? pairs << (4 - 2 * group) : pairs >> (2 * group - 4);
    return (low & 0x0f0f0f0f) | (high & 0x30303030);
  }
  const uint32_t low = unit.codes[quad % 4] >> quad / 4 * 4 & 0x0f0f0f0f;
  if constexpr (D == DType::q5_k)
    return low | (unit.high[quad % 4] >> (u % 8 / 2 * 2 + quad / 4) & 0x01010101) << 4;
  // Bit e of four goes to byte e.
  if constexpr (kHasFifths<D>)
    return low | ((unit.high[0] >> 4 * quad & 15) * 0x204081 & 0x01010101) << 4;
  return low;
}

template <DType D>
inline constexpr float kZeroCode = D == DType::q8_0   ? 128
                                   : D == DType::q6_k ? 32
                                   : D == DType::q5_0 ? 16
                                                      : 0;

template <DType D>
__device__ inline void decode_quad(const Unit<D>& unit, const Scales<D>& scales, int u, int quad,
                                   float (&w)[kQuad]) {
  if constexpr (kIsPlain<D>) {
#pragma unroll
    for (int e = 0; e < kQuad; ++e) w[e] = plain_weight(unit, quad * kQuad + e);
    return;
  }
  const uint32_t bytes = code_bytes(unit, u, quad);
  const int which = Scales<D>::kCount == 1 ? 0 : quad / 4;
  const float factor = scales.factor[which], term = scales.term[which];
#pragma unroll
  for (int e = 0; e < kQuad; ++e) {
    if constexpr (D == DType::q4_0) {
      w[e] = fmaf(byte_in_two23<1>(bytes, e), factor, term);
    } else {
      const float code = byte_in_two23<0>(bytes, e) - (0x1p23f + kZeroCode<D>);
      w[e] = kZeroCode<D> != 0 ? code * factor : fmaf(code, factor, term);
    }
  }
}

__device__ inline bool bit_is_set(uint64_t word, int bit) { return (word >> bit & 1) != 0; }

}  // namespace TC_CUDA_NAMESPACE
