// What the kernel tests compare with: random weights of every element type and double-precision
// arithmetic written as the contracts of runtime/kernels/kernels.h read.
//
// Goals: share no code with the kernels or the converters. Non-goals: speed.
// Thread-safety: none needed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "models/dtype.h"

namespace thermocline::test {

inline constexpr DType kAllTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                                      DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                                      DType::q4_k, DType::q5_k, DType::q6_k};

// Random matrices are made of random bits: every value that a type can hold in [-2, 2] or so.
struct Matrix {
  DType dtype;
  int rows, cols;
  std::vector<std::byte> bytes;

  const std::byte* row(int r) const { return bytes.data() + r * bytes_of(dtype, cols); }
  double at(int r, int c) const;
};

inline double value_of_f16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31  ? (fraction == 0 ? INFINITY : NAN)
                      : exponent == 0 ? std::ldexp(fraction, -24)
                                      : std::ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -size : size;
}

template <class T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Element j of a quantised block as the formats' documents read. Adding a minimum rounds to f32, as
// every dequantiser does.
inline double value_in_block(DType dtype, const std::byte* block, int j) {
  const auto byte = [block](int at) { return static_cast<int>(read<uint8_t>(block + at)); };
  const auto f16 = [block](int at) { return value_of_f16(read<uint16_t>(block + at)); };
  const int low = byte(facts(dtype).bytes_per_block - 16 + j % 16) >> (j < 16 ? 0 : 4) & 15;
  const auto fifth = [&](int at) { return low + 16 * (byte(at + j / 8) >> j % 8 & 1); };
  const auto sub_scale = [&](int sub) {
    return sub < 4 ? byte(4 + sub) & 63 : (byte(8 + sub) & 15) + 16 * (byte(sub) >> 6);
  };
  const auto sub_minimum = [&](int sub) {
    return sub < 4 ? byte(8 + sub) & 63 : (byte(8 + sub) >> 4) + 16 * (byte(4 + sub) >> 6);
  };
  const auto k_value = [&](int code) {
    return static_cast<float>(f16(0) * sub_scale(j / 32) * code - f16(2) * sub_minimum(j / 32));
  };
  const auto k_low = [&](int at) { return byte(at + j / 64 * 32 + j % 32) >> j / 32 % 2 * 4 & 15; };
  switch (dtype) {
    case DType::q8_0:
      return f16(0) * read<int8_t>(block + 2 + j);
    case DType::q4_0:
      return f16(0) * (low - 8);
    case DType::q4_1:
      return static_cast<float>(f16(0) * low + f16(2));
    case DType::q5_0:
      return f16(0) * (fifth(2) - 16);
    case DType::q5_1:
      return static_cast<float>(f16(0) * fifth(4) + f16(2));
    case DType::q4_k:
      return k_value(k_low(16));
    case DType::q5_k:
      return k_value(k_low(48) + 16 * (byte(16 + j % 32) >> j / 32 & 1));
    case DType::q6_k: {
      const int l = j % 32, group = j / 32 % 4, half = j / 128;
      const int nibbles = byte(64 * half + 32 * (group % 2) + l);
      const int upper = byte(128 + 32 * half + l) >> 2 * group & 3;
      const int code = (group < 2 ? nibbles & 15 : nibbles >> 4) + 16 * upper;
      return f16(208) * read<int8_t>(block + 192 + j / 16) * (code - 32);
    }
    default:
      return NAN;
  }
}

inline double Matrix::at(int r, int c) const {
  const std::byte* from = row(r);
  if (dtype == DType::f32) return read<float>(from + 4 * c);
  if (dtype == DType::f16) return value_of_f16(read<uint16_t>(from + 2 * c));
  if (dtype == DType::bf16) {
    const uint32_t bits = static_cast<uint32_t>(read<uint16_t>(from + 2 * c)) << 16;
    return read<float>(reinterpret_cast<const std::byte*>(&bits));
  }
  const int items = facts(dtype).items_per_block;
  return value_in_block(dtype, from + c / items * facts(dtype).bytes_per_block, c % items);
}

inline uint16_t random_f16(std::mt19937_64& random, int exponent_min, int exponent_max) {
  const int exponent =
      exponent_min + static_cast<int>(random() % (exponent_max - exponent_min + 1));
  return static_cast<uint16_t>((random() & 1) << 15 | exponent << 10 | (random() & 1023));
}

inline Matrix random_matrix(DType dtype, int rows, int cols, std::mt19937_64& random) {
  Matrix matrix{dtype, rows, cols, {}};
  matrix.bytes.resize(rows * bytes_of(dtype, cols));
  for (std::byte& byte : matrix.bytes) byte = static_cast<std::byte>(random());
  std::uniform_real_distribution<float> uniform(-2, 2);
  const size_t unit = facts(dtype).bytes_per_block;
  for (size_t at = 0; at < matrix.bytes.size(); at += unit) {
    std::byte* to = matrix.bytes.data() + at;
    const float value = uniform(random);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const bool super = facts(dtype).items_per_block == 256;  // its scales are of up to 7 bits more
    const auto scale = [&] { return random_f16(random, 0, super ? 6 : 12); };
    const uint16_t half = dtype == DType::bf16  ? static_cast<uint16_t>(bits >> 16)
                          : dtype == DType::f16 ? random_f16(random, 0, 15)
                                                : scale();
    if (dtype == DType::f32)
      std::memcpy(to, &value, 4);
    else
      std::memcpy(to + (dtype == DType::q6_k ? 208 : 0), &half, 2);
    const bool has_minimum = dtype == DType::q4_1 || dtype == DType::q5_1 || dtype == DType::q4_k ||
                             dtype == DType::q5_k;
    const uint16_t minimum = has_minimum ? scale() : half;
    if (has_minimum) std::memcpy(to + 2, &minimum, 2);
  }
  return matrix;
}

inline std::vector<float> random_floats(size_t count, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Masks with each bit set with the given probability; bits beyond `rows` are set too, so that a
// kernel that reads past its rows is caught.
inline std::vector<uint64_t> random_mask(int token_count, int stride, double density,
                                         std::mt19937_64& random) {
  std::bernoulli_distribution coin(density);
  std::vector<uint64_t> words(static_cast<size_t>(token_count) * stride, 0);
  for (uint64_t& word : words)
    for (int bit = 0; bit < 64; ++bit) word |= static_cast<uint64_t>(coin(random)) << bit;
  return words;
}

inline bool bit_of(const uint64_t* mask, int index) { return mask[index / 64] >> (index % 64) & 1; }

// Instrumented code is slow: fewer sizes of what the release build tries in full. No compiler's own
// macro, which the others lack.
#ifdef THERMOCLINE_SANITIZED
constexpr bool kFewProblems = true;
#else
constexpr bool kFewProblems = false;
#endif

// A sum and the sum of its terms' sizes: rounding errors are proportional to the latter.
struct Sum {
  double value = 0, size = 0;
  void add(double term) {
    value += term;
    size += std::fabs(term);
  }
};

// What a code of this element's block can stand for at most; where there are codes, rounding errors
// grow with it.
inline double largest_value(const Matrix& w, int r, int c) {
  const int items = facts(w.dtype).items_per_block, first = c / items * items;
  const int begin = items == 256 ? first + (c - first) / 32 * 32 : first;
  const std::byte* block = w.row(r) + c / items * facts(w.dtype).bytes_per_block;
  const auto f16 = [block](int at) { return std::fabs(value_of_f16(read<uint16_t>(block + at))); };
  const bool adds = w.dtype == DType::q4_1 || w.dtype == DType::q5_1;
  if (w.dtype == DType::q6_k) return f16(208) * 128 * 32;
  if (w.dtype == DType::q8_0) return f16(0) * 128;
  if (items == 32) return f16(0) * 32 + (adds ? f16(2) : 0);
  double largest = 0;
  for (int i = begin; i < begin + 32; ++i) largest = std::max(largest, std::fabs(w.at(r, i)));
  return largest + 2 * f16(2) * 63;  // a minimum of 63 steps, taken off a code times scale
}

// A weighted sum of quantised rows in fixed point moves the factors, a times scale, of 16 chosen
// rows by at most half a unit, 1 / 65278 of the largest of them. A code times the largest factor is
// no more than largest_value times |a| of one of the rows, which are added here.
class MovedFactors {
 public:
  void add(double value) {
    largest_ = std::max(largest_, value);
    if (++count_ == 16) close();
  }
  double total() {
    close();
    return total_;
  }

 private:
  void close() {
    total_ += count_ * largest_ / 65278;
    largest_ = 0;
    count_ = 0;
  }
  double largest_ = 0, total_ = 0;
  int count_ = 0;
};

inline Sum dot(const Matrix& w, int r, const float* x) {
  Sum sum;
  for (int c = 0; c < w.cols; ++c) sum.add(w.at(r, c) * x[c]);
  return sum;
}

}  // namespace thermocline::test
