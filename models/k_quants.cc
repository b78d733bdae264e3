#include "models/k_quants.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "models/dtype.h"
#include "models/half.h"
#include "models/lanes.h"

namespace thermocline {
namespace {

static_assert(facts(DType::q4_k).items_per_block == kSuperBlock);
static_assert(facts(DType::q5_k).items_per_block == kSuperBlock);
static_assert(facts(DType::q6_k).items_per_block == kSuperBlock);

// Sums run in four lanes, added in one order, so that they are the same bits everywhere.
using IntLanes [[gnu::vector_size(16)]] = int;

inline float total(const Lanes& a) { return (a[0] + a[1]) + (a[2] + a[3]); }

// round(value * inverse + zero) within [0, code_max]; NaN becomes 0.
inline Lanes codes_of(const Lanes& values, float inverse, float zero, float code_max) {
  const Lanes least = {}, most = least + code_max;
  Lanes code = values * inverse + (zero + 0.5f);
  code = code > least ? code : least;
  code = code < most ? code : most;
  return __builtin_convertvector(__builtin_convertvector(code, IntLanes), Lanes);
}

// What least squares needs to know about codes q of values x.
struct CodeSums {
  double q, qq, qx;
};

template <int kCount>
CodeSums sums_of(const float* x, float inverse, float zero, float code_max, float shift) {
  Lanes q = {}, qq = {}, qx = {};
  for (int i = 0; i < kCount; i += kLaneCount) {
    const Lanes value = load_lanes(x + i);
    const Lanes code = codes_of(value, inverse, zero, code_max) - shift;
    q += code;
    qq += code * code;
    qx += code * value;
  }
  return {total(q), total(qq), total(qx)};
}

// The least f16 at or beyond a scale, so that no multiple of it falls short; at most f16's largest.
uint16_t f16_scale(float scale) {
  constexpr float kF16Max = 65504;
  const float held = clamped(scale, -kF16Max, kF16Max);
  const uint16_t nearest = f16_of(held);
  return static_cast<uint16_t>(nearest + (std::fabs(of_f16(nearest)) < std::fabs(held)));
}

// --- Q4_K, Q5_K: eight sub-blocks of 32, value = scale * code - minimum -------------------------

constexpr int kSubBlock = 32;
constexpr int kSubBlocks = kSuperBlock / kSubBlock;
constexpr int kSixBits = 63;

// `minimum` is what is subtracted, at least 0.
struct Fit {
  double scale, minimum;
};

// The steps that are tried, as codes that the range of a sub-block spans beyond the plain ones:
// fewer waste codes, more cut the largest values off. Eight of them come within 1 % of the error
// of sixteen.
constexpr float kWidths[] = {-0.9f, -0.6f, -0.3f, 0, 0.3f, 0.6f, 0.9f, 1.2f};

// Least squares for value = scale * code - minimum; a minimum below 0 cannot be stored.
Fit solve(const CodeSums& sums, double sum_x) {
  const double determinant = kSubBlock * sums.qq - sums.q * sums.q;
  if (determinant > 0) {
    const double scale = (kSubBlock * sums.qx - sums.q * sum_x) / determinant;
    const double minimum = (scale * sums.q - sum_x) / kSubBlock;
    if (minimum >= 0) return {scale, minimum};
  }
  return {sums.qq > 0 ? sums.qx / sums.qq : 0, 0};
}

// The scale and minimum with the least squared error among those that codes of some width ask for.
Fit fit_with_minimum(const float* x, float code_max) {
  const auto [low, high] = extremes<kSubBlock>(x, {0, -std::numeric_limits<float>::max()});
  Lanes sum = {};
  for (int i = 0; i < kSubBlock; i += kLaneCount) sum += load_lanes(x + i);
  const double sum_x = total(sum);
  Fit best{0, std::max(0.0, -sum_x / kSubBlock)};              // all values equal
  double best_gain = kSubBlock * best.minimum * best.minimum;  // below the sum of squares of x
  for (const float width : kWidths) {
    const float inverse = (code_max + width) * inverse_of(high - low);
    const CodeSums sums = sums_of<kSubBlock>(x, inverse, -low * inverse, code_max, 0);
    const Fit fit = solve(sums, sum_x);
    const double gain = fit.scale * sums.qx - fit.minimum * sum_x;
    if (fit.scale < 0 || !(gain > best_gain)) continue;
    best_gain = gain;
    best = fit;
  }
  return best;
}

// 12 bytes of eight pairs of six bits: the first four pairs in bytes 0..3 and 4..7, whose upper two
// bits are those of the last four; the lower four bits of these share bytes 8..11.
struct SubScales {
  uint8_t scale[kSubBlocks], minimum[kSubBlocks];
};

void pack_scales(const SubScales& from, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    const int scale = from.scale[j + 4], minimum = from.minimum[j + 4];
    out[j] = static_cast<uint8_t>(from.scale[j] | scale >> 4 << 6);
    out[j + 4] = static_cast<uint8_t>(from.minimum[j] | minimum >> 4 << 6);
    out[j + 8] = static_cast<uint8_t>((scale & 15) | (minimum & 15) << 4);
  }
}

SubScales unpack_scales(const uint8_t* from) {
  SubScales to;
  for (int j = 0; j < 4; ++j) {
    to.scale[j] = from[j] & 63;
    to.minimum[j] = from[j + 4] & 63;
    to.scale[j + 4] = static_cast<uint8_t>((from[j + 8] & 15) | from[j] >> 6 << 4);
    to.minimum[j + 4] = static_cast<uint8_t>(from[j + 8] >> 4 | from[j + 4] >> 6 << 4);
  }
  return to;
}

struct SuperScales {
  uint16_t d, minimum;  // f16
  SubScales sub;
};

// Fits every sub-block, then rounds the fits to six bits of the largest.
SuperScales fit_super_block(const float* x, float code_max) {
  Fit fits[kSubBlocks];
  double scale_max = 0, minimum_max = 0;
  for (int j = 0; j < kSubBlocks; ++j) {
    fits[j] = fit_with_minimum(x + j * kSubBlock, code_max);
    scale_max = std::max(scale_max, fits[j].scale);
    minimum_max = std::max(minimum_max, fits[j].minimum);
  }
  SuperScales scales;
  scales.d = f16_scale(static_cast<float>(scale_max / kSixBits));
  scales.minimum = f16_scale(static_cast<float>(minimum_max / kSixBits));
  const auto six_bits = [](double value, uint16_t unit) {
    const float steps = static_cast<float>(value) * inverse_of(of_f16(unit));
    return static_cast<uint8_t>(clamped(steps + 0.5f, 0, kSixBits));
  };
  for (int j = 0; j < kSubBlocks; ++j) {
    scales.sub.scale[j] = six_bits(fits[j].scale, scales.d);
    scales.sub.minimum[j] = six_bits(fits[j].minimum, scales.minimum);
  }
  return scales;
}

// The part that Q4_K and Q5_K share: writes 16 bytes of scales, and the codes apart.
void encode_with_minimum(const float* x, float code_max, std::byte* out, uint8_t* codes) {
  const SuperScales scales = fit_super_block(x, code_max);
  const float d = of_f16(scales.d), d_minimum = of_f16(scales.minimum);
  for (int j = 0; j < kSubBlocks; ++j) {
    const float inverse = inverse_of(d * scales.sub.scale[j]);
    const float zero = d_minimum * scales.sub.minimum[j] * inverse;
    for (int i = j * kSubBlock; i < (j + 1) * kSubBlock; i += kLaneCount) {
      const Lanes code = codes_of(load_lanes(x + i), inverse, zero, code_max);
      for (int lane = 0; lane < kLaneCount; ++lane)
        codes[i + lane] = static_cast<uint8_t>(code[lane]);
    }
  }
  store(out, scales.d);
  store(out + 2, scales.minimum);
  pack_scales(scales.sub, reinterpret_cast<uint8_t*>(out + 4));
}

void decode_with_minimum(const std::byte* bytes, const uint8_t* codes, float* out) {
  const float d = of_f16(load<uint16_t>(bytes)), d_minimum = of_f16(load<uint16_t>(bytes + 2));
  const SubScales sub = unpack_scales(reinterpret_cast<const uint8_t*>(bytes + 4));
  for (int j = 0; j < kSubBlocks; ++j) {
    const float scale = d * sub.scale[j], minimum = d_minimum * sub.minimum[j];
    for (int i = j * kSubBlock; i < (j + 1) * kSubBlock; ++i) out[i] = scale * codes[i] - minimum;
  }
}

// Low four bits: those of sub-blocks 2k and 2k + 1 share 32 bytes.
void pack_low_halves(const uint8_t* codes, uint8_t* out) {
  for (int k = 0; k < kSubBlocks / 2; ++k) {
    for (int i = 0; i < kSubBlock; ++i) {
      const int low = codes[2 * k * kSubBlock + i], high = codes[(2 * k + 1) * kSubBlock + i];
      out[k * kSubBlock + i] = static_cast<uint8_t>((low & 15) | (high & 15) << 4);
    }
  }
}

void unpack_low_halves(const uint8_t* from, uint8_t* codes) {
  for (int k = 0; k < kSubBlocks / 2; ++k) {
    for (int i = 0; i < kSubBlock; ++i) {
      codes[2 * k * kSubBlock + i] = from[k * kSubBlock + i] & 15;
      codes[(2 * k + 1) * kSubBlock + i] = from[k * kSubBlock + i] >> 4;
    }
  }
}

constexpr int kCodesAt = 16;  // after d, dmin and 12 bytes of scales
constexpr int kFifthsBytes = kSuperBlock / 8;

// --- Q6_K: sixteen sub-blocks of 16, value = scale * (code - 32) ---------------------------------

constexpr int kSmallBlock = 16;
constexpr int kSmallBlocks = kSuperBlock / kSmallBlock;
constexpr float kZero6 = 32, kCodeMax6 = 63;

// Codes that the peak gets beyond the plain 32. Scales of eight bits round so little that a wider
// search pays.
constexpr float kWidths6[] = {-2, -1, 0, 1, 2, 3};

template <int kCount>
float signed_peak(const float* x) {
  const auto [low, high] = extremes<kCount>(x, {0, 0});
  return high >= -low ? high : low;
}

// The scale with the least squared error among those that codes of some width ask for. The peak
// gets the sign that has a code more.
float fit_around_zero(const float* x) {
  const float peak = signed_peak<kSmallBlock>(x);
  float best = 0;
  double best_gain = 0;
  for (const float width : kWidths6) {
    if (peak == 0) break;
    const float inverse = -(kZero6 + width) / peak;
    const CodeSums sums = sums_of<kSmallBlock>(x, inverse, kZero6, kCodeMax6, kZero6);
    const double gain = sums.qx * sums.qx / sums.qq;
    if (!(gain > best_gain)) continue;
    best_gain = gain;
    best = static_cast<float>(sums.qx / sums.qq);
  }
  return best;
}

// The codes of 128 elements, four groups of 32: the low halves of groups 0 and 2, 1 and 3 share 32
// bytes each; the upper pairs of bits of all four share 32.
constexpr int kGroup = 32;
constexpr int kHalfBlock = 128;

void pack_six_bits(const uint8_t* codes, uint8_t* low, uint8_t* high) {
  for (int i = 0; i < kGroup; ++i) {
    const uint8_t* c = codes + i;
    low[i] = static_cast<uint8_t>((c[0] & 15) | (c[2 * kGroup] & 15) << 4);
    low[i + kGroup] = static_cast<uint8_t>((c[kGroup] & 15) | (c[3 * kGroup] & 15) << 4);
    high[i] = static_cast<uint8_t>(c[0] >> 4 | c[kGroup] >> 4 << 2 | c[2 * kGroup] >> 4 << 4 |
                                   c[3 * kGroup] >> 4 << 6);
  }
}

void unpack_six_bits(const uint8_t* low, const uint8_t* high, uint8_t* codes) {
  for (int i = 0; i < kGroup; ++i) {
    codes[i] = static_cast<uint8_t>((low[i] & 15) | (high[i] & 3) << 4);
    codes[i + kGroup] = static_cast<uint8_t>((low[i + kGroup] & 15) | (high[i] >> 2 & 3) << 4);
    codes[i + 2 * kGroup] = static_cast<uint8_t>(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
    codes[i + 3 * kGroup] = static_cast<uint8_t>(low[i + kGroup] >> 4 | high[i] >> 6 << 4);
  }
}

constexpr int kLow6At = 0, kHigh6At = 128, kScales6At = 192, kD6At = 208;

}  // namespace

void encode_q4_k(const float* values, std::byte* out) {
  uint8_t codes[kSuperBlock];
  encode_with_minimum(values, 15, out, codes);
  pack_low_halves(codes, reinterpret_cast<uint8_t*>(out + kCodesAt));
}

void decode_q4_k(const std::byte* bytes, float* out) {
  uint8_t codes[kSuperBlock];
  unpack_low_halves(reinterpret_cast<const uint8_t*>(bytes + kCodesAt), codes);
  decode_with_minimum(bytes, codes, out);
}

void encode_q5_k(const float* values, std::byte* out) {
  uint8_t codes[kSuperBlock], fifths[kFifthsBytes] = {};
  encode_with_minimum(values, 31, out, codes);
  for (int i = 0; i < kSuperBlock; ++i) {
    fifths[i % kSubBlock] |= static_cast<uint8_t>((codes[i] >> 4) << (i / kSubBlock));
  }
  std::memcpy(out + kCodesAt, fifths, sizeof fifths);
  pack_low_halves(codes, reinterpret_cast<uint8_t*>(out + kCodesAt + kFifthsBytes));
}

void decode_q5_k(const std::byte* bytes, float* out) {
  uint8_t codes[kSuperBlock], fifths[kFifthsBytes];
  std::memcpy(fifths, bytes + kCodesAt, sizeof fifths);
  unpack_low_halves(reinterpret_cast<const uint8_t*>(bytes + kCodesAt + kFifthsBytes), codes);
  for (int i = 0; i < kSuperBlock; ++i) {
    codes[i] |= static_cast<uint8_t>((fifths[i % kSubBlock] >> (i / kSubBlock) & 1) << 4);
  }
  decode_with_minimum(bytes, codes, out);
}

void encode_q6_k(const float* values, std::byte* out) {
  float scales[kSmallBlocks];
  for (int j = 0; j < kSmallBlocks; ++j) scales[j] = fit_around_zero(values + j * kSmallBlock);
  const uint16_t d_bits = f16_scale(signed_peak<kSmallBlocks>(scales) / -128);
  const float d = of_f16(d_bits);
  uint8_t codes[kSuperBlock];
  for (int j = 0; j < kSmallBlocks; ++j) {
    const int scale = static_cast<int>(clamped(scales[j] * inverse_of(d) + 128.5f, 0, 255)) - 128;
    out[kScales6At + j] = static_cast<std::byte>(scale);
    const float inverse = inverse_of(d * static_cast<float>(scale));
    for (int i = j * kSmallBlock; i < (j + 1) * kSmallBlock; ++i) {
      const float code = clamped(values[i] * inverse + (kZero6 + 0.5f), 0, kCodeMax6);
      codes[i] = static_cast<uint8_t>(code);
    }
  }
  uint8_t* bytes = reinterpret_cast<uint8_t*>(out);
  for (int half = 0; half < 2; ++half) {
    pack_six_bits(codes + half * kHalfBlock, bytes + kLow6At + half * 64,
                  bytes + kHigh6At + half * 32);
  }
  store(out + kD6At, d_bits);
}

void decode_q6_k(const std::byte* bytes, float* out) {
  const auto* from = reinterpret_cast<const uint8_t*>(bytes);
  uint8_t codes[kSuperBlock];
  for (int half = 0; half < 2; ++half) {
    unpack_six_bits(from + kLow6At + half * 64, from + kHigh6At + half * 32,
                    codes + half * kHalfBlock);
  }
  const float d = of_f16(load<uint16_t>(bytes + kD6At));
  for (int j = 0; j < kSmallBlocks; ++j) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(from[kScales6At + j]));
    for (int i = j * kSmallBlock; i < (j + 1) * kSmallBlock; ++i) {
      out[i] = scale * static_cast<float>(codes[i] - 32);
    }
  }
}

}  // namespace thermocline
