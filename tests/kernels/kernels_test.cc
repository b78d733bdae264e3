// Every CPU kernel, in every instruction set that this machine has, against double precision; and
// the promise that results are the same bits however the work is split, in every instruction set.
#include "runtime/kernels/kernels.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <limits>

#include "models/quantize.h"
#include "runtime/kernels/bandwidth.h"
#include "runtime/kernels/cpu_fixed.h"
#include "tests/emulated/avx512.h"
#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// f32 sums in 16 lanes: each lane rounds once per 16 columns, so the error stays below
// (cols / 16 + 5) half-ulps (2^-24 each) of the sum of the terms' sizes.
double dot_tolerance(int cols) { return (cols / 16 + 6) * 0x1p-24; }

// Fixed point moves an input by at most half a unit, 1 / 65278 of the largest of its block: the sum
// over the row of |w| times that. The scales' product, its own rounding and the minimum's add 4
// half-ulps, and codes whose zero is not 0 pass through terms up to 16 / 15 + 1 times as large.
double fixed_tolerance(const Matrix& w, int r, const float* x) {
  double moved = 0, sizes = 0;
  for (int begin = 0; begin < w.cols; begin += kBlock) {
    double largest = 0;
    for (int c = begin; c < begin + kBlock; ++c)
      largest = std::max<double>(largest, std::fabs(x[c]));
    for (int c = begin; c < begin + kBlock; ++c) {
      moved += std::fabs(w.at(r, c)) * largest / 65278;
      sizes += largest_value(w, r, c) * largest;
    }
  }
  return moved + (w.cols / 32 + 12) * 0x1p-24 * sizes;
}

// weighted_rows rounds at most twice per row, and once for a times the scale.
double rows_tolerance(int rows) { return (2 * rows + 3) * 0x1p-24; }

std::vector<const Kernels*> all_kernels() {
  std::vector<const Kernels*> found;
  for (const char* name : {"portable", "avx2", "avx512", "avx512-zen5"})
    if (const Kernels* kernels = kernels_by_name(name)) found.push_back(kernels);
  if (kernels_by_name("avx2") != nullptr && kernels_by_name("avx512") == nullptr)
    found.push_back(emulated_avx512_kernels());
  return found;
}

std::vector<int> widths_of(DType dtype) {
  if (facts(dtype).items_per_block == 1) return {1, 17, 32, 33, 100, 331};
  if (facts(dtype).items_per_block == 32) return {32, 96, 128, 352, 544};
  return {256, 768};
}

// Same bits, or both NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], 4) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return true;
}

constexpr float kUntouched = -12345;

// x, also in fixed point where the weights' type takes it. Rows of x are `stride` floats apart.
struct FixedInputs {
  std::vector<std::byte> fixed;
  Inputs inputs;

  FixedInputs(const Kernels& k, DType dtype, const std::vector<float>& x, int stride, int cols,
              int token_count) {
    inputs = {x.data(), stride, nullptr};
    if (!takes_fixed(dtype)) return;
    fixed.resize(token_count * fixed_bytes(cols));
    for (int t = 0; t < token_count; ++t)
      k.to_fixed(x.data() + static_cast<size_t>(t) * stride, cols,
                 fixed.data() + t * fixed_bytes(cols));
    inputs.fixed = fixed.data();
  }
};

// Rows of the file formats in the order that the kernels want them.
std::vector<std::byte> packed(const Matrix& w) {
  std::vector<std::byte> rows(w.bytes.size());
  for (int r = 0; r < w.rows; ++r)
    cpu_pack_row(w.dtype, w.cols, w.row(r), rows.data() + r * bytes_of(w.dtype, w.cols));
  return rows;
}

// One problem: weights, tokens with a stride, room for the result with a stride.
struct Problem {
  Matrix w;
  std::vector<std::byte> rows;  // of w, as the kernels want them
  int token_count, x_stride, y_stride, mask_stride;
  std::vector<float> x;        // (token_count, x_stride), for matmul
  std::vector<float> a;        // (token_count, y_stride), for weighted_rows
  std::vector<uint64_t> mask;  // (token_count, mask_stride), over rows

  Problem(DType dtype, int row_count, int cols, int tokens, double density, std::mt19937_64& random)
      : w(random_matrix(dtype, row_count, cols, random)),
        rows(packed(w)),
        token_count(tokens),
        x_stride(cols + 3),
        y_stride(row_count + 5),
        mask_stride(row_count / 64 + 2),
        x(random_floats(static_cast<size_t>(tokens) * x_stride, random)),
        a(random_floats(static_cast<size_t>(tokens) * y_stride, random)),
        mask(random_mask(tokens, mask_stride, density, random)) {}

  const uint64_t* mask_of(int t) const { return mask.data() + t * mask_stride; }

  WeightView view() const {
    return {w.dtype, w.rows, w.cols, bytes_of(w.dtype, w.cols), rows.data()};
  }

  std::vector<float> matmul(const Kernels& k, const std::vector<int>& row_splits) const {
    std::vector<float> y(static_cast<size_t>(token_count) * y_stride, kUntouched);
    const FixedInputs fixed(k, w.dtype, x, x_stride, w.cols, token_count);
    for (size_t i = 0; i + 1 < row_splits.size(); ++i)
      k.matmul(view(), row_splits[i], row_splits[i + 1], fixed.inputs, token_count, y.data(),
               y_stride);
    return y;
  }
  std::vector<float> masked(const Kernels& k, const std::vector<int>& row_splits) const {
    std::vector<float> y(static_cast<size_t>(token_count) * y_stride, kUntouched);
    const FixedInputs fixed(k, w.dtype, x, x_stride, w.cols, token_count);
    for (size_t i = 0; i + 1 < row_splits.size(); ++i)
      k.matmul_masked(view(), row_splits[i], row_splits[i + 1], mask.data(), mask_stride,
                      fixed.inputs, token_count, y.data(), y_stride);
    return y;
  }
  // Adds to x, as a residual connection does.
  std::vector<float> weighted(const Kernels& k, const std::vector<int>& col_splits) const {
    std::vector<float> y = x;
    for (size_t i = 0; i + 1 < col_splits.size(); ++i)
      k.weighted_rows(view(), col_splits[i], col_splits[i + 1], mask.data(), mask_stride, a.data(),
                      y_stride, token_count, y.data(), x_stride);
    return y;
  }
};

std::vector<int> split(int count, int unit) {
  std::vector<int> at{0};
  for (int piece = unit; at.back() < count; piece += 2 * unit)
    at.push_back(std::min(count, at.back() + piece));
  return at;
}

// Runs check(problem, label) over types, odd sizes, token counts and mask densities.
template <class Check>
void for_each_problem(Check check) {
  std::mt19937_64 random(1);
  for (const DType dtype : kAllTypes)
    for (const int cols : widths_of(dtype))
      for (const int rows : {1, 4, 5, 67})
        for (const int tokens : {1, 2, 3, 4, 7, 8, 67}) {
          if (tokens == 67 && rows != 5) continue;  // more than a panel takes
          if (kFewProblems && (rows == 4 || rows == 67 || tokens == 2 || tokens == 4)) continue;
          const double density = tokens % 4 == 0 ? 1 : tokens == 7 ? 0 : 0.4;
          INFO(facts(dtype).name << " " << rows << "x" << cols << ", " << tokens << " tokens");
          check(Problem(dtype, rows, cols, tokens, density, random));
        }
}

}  // namespace

TEST_CASE("matmul and matmul_masked agree with double precision", "[long]") {
  for (const Kernels* kernels : all_kernels()) {
    INFO(kernels->name);
    for_each_problem([&](const Problem& p) {
      const auto dense = p.matmul(*kernels, {0, p.w.rows});
      const auto masked = p.masked(*kernels, {0, p.w.rows});
      bool close = true, chosen = true;
      for (int t = 0; t < p.token_count; ++t)
        for (int r = 0; r < p.y_stride; ++r) {
          const float y = dense[t * p.y_stride + r], y_masked = masked[t * p.y_stride + r];
          const bool inside = r < p.w.rows;
          const float* x = p.x.data() + t * p.x_stride;
          const Sum sum = inside ? dot(p.w, r, x) : Sum{kUntouched, 0};
          const double tolerance = inside && takes_fixed(p.w.dtype)
                                       ? fixed_tolerance(p.w, r, x)
                                       : dot_tolerance(p.w.cols) * sum.size;
          close &= std::fabs(y - sum.value) <= tolerance;
          chosen &= y_masked == (inside && bit_of(p.mask_of(t), r) ? y : kUntouched);
        }
      REQUIRE(close);
      REQUIRE(chosen);
    });
  }
}

TEST_CASE("weighted_rows agrees with double precision", "[long]") {
  for (const Kernels* kernels : all_kernels()) {
    INFO(kernels->name);
    for_each_problem([&](const Problem& p) {
      const auto y = p.weighted(*kernels, {0, p.w.cols});
      const double tolerance = rows_tolerance(p.w.rows);
      bool close = true;
      for (int t = 0; t < p.token_count; ++t)
        for (int c = 0; c < p.x_stride; ++c) {
          Sum sum;
          MovedFactors moved;
          sum.add(p.x[t * p.x_stride + c]);
          for (int r = 0; c < p.w.cols && r < p.w.rows; ++r)
            if (bit_of(p.mask_of(t), r)) {
              const float a = p.a[t * p.y_stride + r];
              sum.add(p.w.at(r, c) * a);
              if (!takes_fixed(p.w.dtype)) continue;
              // A minimum is added apart: what rounds is as large as code and minimum are.
              const double largest = largest_value(p.w, r, c) * std::fabs(a);
              sum.size += largest;
              moved.add(largest);
            }
          close &=
              std::fabs(y[t * p.x_stride + c] - sum.value) <= tolerance * sum.size + moved.total();
        }
      REQUIRE(close);
    });
  }
}

TEST_CASE("results are the same bits for every split, token count and instruction set") {
  const Kernels& portable = *kernels_by_name("portable");
  for_each_problem([&](const Problem& p) {
    const auto dense = p.matmul(portable, {0, p.w.rows});
    const auto masked = p.masked(portable, {0, p.w.rows});
    const auto weighted = p.weighted(portable, {0, p.w.cols});
    Problem first = p;
    first.token_count = 1;
    for (const Kernels* kernels : all_kernels()) {
      INFO(kernels->name);
      REQUIRE(same(p.matmul(*kernels, split(p.w.rows, 1)), dense));
      REQUIRE(same(p.masked(*kernels, split(p.w.rows, 1)), masked));
      REQUIRE(same(p.weighted(*kernels, split(p.w.cols, kChunk)), weighted));
      const auto beginning = [](std::vector<float> y, size_t count) {
        y.resize(count);
        return y;
      };
      REQUIRE(same(first.matmul(*kernels, {0, p.w.rows}), beginning(dense, p.y_stride)));
      REQUIRE(same(first.masked(*kernels, {0, p.w.rows}), beginning(masked, p.y_stride)));
      REQUIRE(same(beginning(first.weighted(*kernels, {0, p.w.cols}), p.x_stride),
                   beginning(weighted, p.x_stride)));
    }
  });
}

TEST_CASE("nothing outside the asked rows and columns is touched") {
  std::mt19937_64 random(7);
  for (const Kernels* kernels : all_kernels())
    for (const int tokens : {1, 2, 5}) {
      const Problem p(DType::q8_0, 200, 640, tokens, 0.7, random);
      const auto dense = p.matmul(*kernels, {70, 100});
      const auto masked = p.masked(*kernels, {70, 100});
      const auto sums = p.weighted(*kernels, {256, 512});
      bool kept = true, written = true;
      for (int t = 0; t < tokens; ++t) {
        for (int r = 0; r < p.y_stride; ++r) {
          const bool inside = r >= 70 && r < 100;
          const size_t at = static_cast<size_t>(t) * p.y_stride + r;
          written &= (dense[at] != kUntouched) == inside;
          kept &= (masked[at] == kUntouched) == !(inside && bit_of(p.mask_of(t), r));
        }
        for (int c = 0; c < p.x_stride; ++c) {
          const size_t at = static_cast<size_t>(t) * p.x_stride + c;
          kept &= (sums[at] == p.x[at]) == (c < 256 || c >= 512);
        }
      }
      REQUIRE(kept);
      REQUIRE(written);
    }
}

TEST_CASE("weights are decoded exactly") {
  // One column set to one picks out a weight; all scales that f16 has, infinities and NaN too.
  for (const Kernels* kernels : all_kernels()) {
    INFO(kernels->name);
    for (const DType dtype : kAllTypes) {
      if (dtype == DType::f32 || dtype == DType::bf16) continue;
      const int cols = facts(dtype).items_per_block == 256 ? 256 : 32;
      const int row_count = cols == 256 ? 8192 : 65536;  // every eighth scale, all of the others
      Matrix w{dtype, row_count, cols, std::vector<std::byte>(row_count * bytes_of(dtype, cols))};
      for (int r = 0; r < w.rows; ++r) {
        const auto bits = static_cast<uint16_t>(r * (65536 / row_count) + r % 8);
        std::byte* block = w.bytes.data() + r * bytes_of(dtype, cols);
        for (size_t i = 0; i < bytes_of(dtype, cols); ++i) block[i] = std::byte(31 * r + 7 * i);
        for (int c = 0; c < (dtype == DType::f16 ? cols : 1); ++c)
          std::memcpy(block + 2 * c + (dtype == DType::q6_k ? 208 : 0), &bits, 2);
      }
      const std::vector<std::byte> rows = packed(w);
      std::vector<float> y(cols);
      bool exact = true;
      for (int r = 0; r < w.rows; ++r) {
        kernels->decode_row({dtype, w.rows, cols, bytes_of(dtype, cols), rows.data()}, r, y.data());
        for (int c = 0; c < cols; ++c) {
          const double expected = w.at(r, c);
          exact &= y[c] == expected || (std::isnan(y[c]) && std::isnan(expected));
        }
      }
      REQUIRE(exact);
    }
  }
}

// The code of column c.
int code_of(const FixedRow& row, int c) {
  const int second = c / 16 % 2, place = 64 * second + c % kGroup / kBlock * 16 + c % 16;
  const int8_t* group = row.codes() + c / kGroup * 2 * kGroup;
  return 256 * group[place] + group[kGroup + place];
}

TEST_CASE(
    "fixed point is within half a unit, exact for zeros, and NaN where a block is not finite") {
  std::mt19937_64 random(8);
  const int cols = 8 * kBlock;
  auto x = random_floats(cols, random);
  std::fill_n(x.begin() + kBlock, kBlock, 0.0f);
  for (int i = 0; i < kBlock; ++i) x[2 * kBlock + i] *= 1e30f;
  for (int i = 0; i < kBlock; ++i) x[3 * kBlock + i] *= 1e-28f;
  for (int i = 0; i < kBlock; ++i) x[4 * kBlock + i] *= 1e-42f;  // below what it resolves
  x[5 * kBlock + 7] = std::nanf("");
  x[6 * kBlock + 31] = -std::numeric_limits<float>::infinity();
  x[7 * kBlock] = -1e36f;
  for (const Kernels* kernels : all_kernels()) {
    INFO(kernels->name);
    const FixedInputs inputs(*kernels, DType::q8_0, x, cols, cols, 1);
    const FixedRow fixed{inputs.inputs.fixed, cols};
    for (int block = 0; block < 8; ++block) {
      const float scale = fixed.scales()[block];
      double sum = 0;
      float largest = 0;
      for (int i = 0; i < kBlock; ++i) {
        sum += code_of(fixed, block * kBlock + i);
        largest = std::max(largest, std::fabs(x[block * kBlock + i]));
      }
      const bool finite = block != 5 && block != 6;
      REQUIRE(std::isnan(scale) == !finite);
      if (!finite) continue;
      REQUIRE(std::fabs(fixed.scaled_sums()[block] - scale * sum) <=
              0x1p-23 * std::fabs(scale * sum));
      if (block == 4) REQUIRE(scale == 0);
      for (int i = 0; i < kBlock; ++i) {
        const double moved =
            code_of(fixed, block * kBlock + i) * double(scale) - x[block * kBlock + i];
        REQUIRE(std::fabs(moved) <= std::max(largest / 65278 * 1.01, 1e-30));
      }
    }
  }
}

TEST_CASE("rows of a bundle are found by their stride") {
  std::mt19937_64 random(9);
  for (const Kernels* kernels : all_kernels())
    for (const DType dtype : kAllTypes)
      for (const int tokens : {1, 3, 9}) {
        INFO(kernels->name << " " << facts(dtype).name << ", " << tokens << " tokens");
        const int rows = 41, cols = facts(dtype).items_per_block == 256 ? 512 : 96;
        const Problem p(dtype, rows, cols, tokens, 0.5, random);
        const uint64_t row_bytes = bytes_of(dtype, cols), stride = 3 * row_bytes + 2;
        std::vector<std::byte> spread(rows * stride, std::byte{0x7f});
        for (int r = 0; r < rows; ++r)
          std::memcpy(spread.data() + r * stride, p.rows.data() + r * row_bytes, row_bytes);
        const WeightView view{dtype, rows, cols, stride, spread.data()};
        const FixedInputs fixed(*kernels, dtype, p.x, p.x_stride, cols, tokens);
        std::vector<float> y(static_cast<size_t>(tokens) * p.y_stride, kUntouched), masked = y;
        kernels->matmul(view, 0, rows, fixed.inputs, tokens, y.data(), p.y_stride);
        REQUIRE(same(y, p.matmul(*kernels, {0, rows})));
        kernels->matmul_masked(view, 0, rows, p.mask.data(), p.mask_stride, fixed.inputs, tokens,
                               masked.data(), p.y_stride);
        REQUIRE(same(masked, p.masked(*kernels, {0, rows})));
        std::vector<float> sums = p.x;
        kernels->weighted_rows(view, 0, cols, p.mask.data(), p.mask_stride, p.a.data(), p.y_stride,
                               tokens, sums.data(), p.x_stride);
        REQUIRE(same(sums, p.weighted(*kernels, {0, cols})));
      }
}

TEST_CASE("NaN and infinity reach the results that they belong to, and no others") {
  const float kInfinity = std::numeric_limits<float>::infinity();
  std::mt19937_64 random(2);
  for (const Kernels* kernels : all_kernels()) {
    INFO(kernels->name);
    for (const int bad : {0, 15, 16, 31, 32, 36}) {
      Problem p(DType::f32, 9, 37, 3, 1, random);
      const float nan = std::nanf("");
      std::memcpy(p.rows.data() + 4 * bytes_of(DType::f32, 37) + 4 * bad, &nan, 4);
      p.x[p.x_stride + bad] = kInfinity;
      const auto y = p.matmul(*kernels, {0, 9});
      const auto masked = p.masked(*kernels, {0, 9});
      REQUIRE(same(y, masked));
      for (int t = 0; t < 3; ++t)
        for (int r = 0; r < 9; ++r) {
          const float value = y[t * p.y_stride + r];
          CHECK(std::isnan(value) == (r == 4));
          if (r != 4) CHECK(std::isinf(value) == (t == 1));
        }
      const auto sums = p.weighted(*kernels, {0, 37});
      for (int t = 0; t < 3; ++t)
        for (int c = 0; c < 37; ++c) CHECK(std::isnan(sums[t * p.x_stride + c]) == (c == bad));
      for (int t = 0; t < 3; ++t) p.mask[t * p.mask_stride] &= ~uint64_t{1 << 4};
      for (const float value : p.weighted(*kernels, {0, 37})) CHECK(!std::isnan(value));
    }
  }
}

TEST_CASE("rms_norm agrees with double precision") {
  std::mt19937_64 random(3);
  for (const Kernels* kernels : all_kernels())
    for (const int dim : {1, 3, 8, 64, 100, 8192}) {
      const auto x = random_floats(dim, random), weight = random_floats(dim, random);
      std::vector<float> y(dim);
      kernels->rms_norm(x.data(), weight.data(), dim, 1e-5f, y.data());
      double squares = 0;
      for (const float value : x) squares += static_cast<double>(value) * value;
      for (int i = 0; i < dim; ++i) {
        const double expected = x[i] * weight[i] / std::sqrt(squares / dim + 1e-5f);
        REQUIRE(std::fabs(y[i] - expected) <= 4 * 0x1p-24 * std::fabs(expected));
      }
    }
}

TEST_CASE("rope turns pairs by position times frequency") {
  std::mt19937_64 random(4);
  for (const Kernels* kernels : all_kernels())
    for (const int position : {0, 1, 17, 4095, 131071}) {
      const int heads = 3, dim = 10;
      const auto before = random_floats(heads * dim, random);
      auto x = before;
      std::vector<double> frequencies;
      for (int i = 0; i < dim; i += 2) {
        frequencies.push_back(std::pow(10000.0, -double(i) / dim));
      }
      kernels->rope(x.data(), heads, dim, position, frequencies.data());
      if (position == 0) REQUIRE(x == before);
      for (int i = 0; i < heads * dim; i += 2) {
        const double angle = position * std::pow(10000.0, -double(i % dim) / dim);
        const double first = before[i] * std::cos(angle) - before[i + 1] * std::sin(angle);
        const double second = before[i] * std::sin(angle) + before[i + 1] * std::cos(angle);
        const double tolerance = 4 * 0x1p-24 * (std::fabs(before[i]) + std::fabs(before[i + 1]));
        REQUIRE(std::fabs(x[i] - first) <= tolerance);
        REQUIRE(std::fabs(x[i + 1] - second) <= tolerance);
      }
    }
}

namespace {

// Scores and weights of `head_count` query heads that share keys and values.
struct Attention {
  int head_count, positions, dim, stride;
  std::vector<float> q, keys, values;

  Attention(int heads, int position_count, int head_dim, int gap, float sharpness,
            std::mt19937_64& random)
      : head_count(heads),
        positions(position_count),
        dim(head_dim),
        stride(head_dim + gap),
        q(random_floats(static_cast<size_t>(heads) * head_dim, random)),
        keys(random_floats(static_cast<size_t>(position_count) * stride, random)),
        values(random_floats(static_cast<size_t>(position_count) * stride, random)) {
    for (float& value : q) value *= sharpness;
    // Nothing past the last row's columns may be read: memory checkers see the end of the vector.
    keys.resize(keys.size() - gap);
    values.resize(values.size() - gap);
  }
  // Heads [first, first + count) over the first `position_count` positions.
  std::vector<float> run(const Kernels& kernels, int first, int count, int position_count) const {
    const size_t wanted = attend_scratch(count, position_count, dim), width = count * dim;
    std::vector<float> scratch(wanted + 1, kUntouched), out(width + 1, kUntouched);
    kernels.attend(q.data() + first * dim, count, keys.data(), values.data(), position_count,
                   stride, dim, scratch.data(), out.data());
    REQUIRE(scratch.back() == kUntouched);
    REQUIRE(out.back() == kUntouched);
    out.pop_back();
    return out;
  }
  std::vector<float> run(const Kernels& kernels) const {
    return run(kernels, 0, head_count, positions);
  }
  std::vector<double> expected(int head) const {
    std::vector<double> scores(positions), out(dim);
    double largest = -INFINITY, total = 0;
    for (int p = 0; p < positions; ++p) {
      for (int i = 0; i < dim; ++i)
        scores[p] +=
            static_cast<double>(q[head * dim + i]) * keys[static_cast<size_t>(p) * stride + i];
      scores[p] /= std::sqrt(dim);
      largest = std::max(largest, scores[p]);
    }
    for (double& score : scores) total += score = std::exp(score - largest);
    for (int p = 0; p < positions; ++p)
      for (int i = 0; i < dim; ++i)
        out[i] += scores[p] / total * values[static_cast<size_t>(p) * stride + i];
    return out;
  }
};

std::vector<float> part_of(const std::vector<float>& all, int first, int count) {
  return {all.begin() + first, all.begin() + first + count};
}

// Runs check(problem, sharpness) over groups, odd sizes, and rows with and without gaps.
template <class Check>
void for_each_attention(Check check) {
  std::mt19937_64 random(5);
  int gap = 0;
  for (const int heads : {1, 2, 3, 8, 13})
    for (const int dim : {2, 8, 30, 48, 64, 128})
      for (const int positions : {1, 2, 5, 16, 17, 100, 300, 2049}) {
        const bool more = dim == 8 || dim == 48 || positions == 2 || positions == 300;
        if (kFewProblems && (more || heads == 2 || dim == 64 || positions == 2049)) continue;
        for (const float sharpness : {0.0f, 1.0f, 30.0f}) {
          if (kFewProblems && sharpness != 1) continue;
          gap = (gap + 7) % 21;
          INFO(heads << " heads of " << dim << ", " << positions << " positions, " << sharpness);
          check(Attention(heads, positions, dim, gap, sharpness, random), sharpness);
        }
      }
}

}  // namespace

TEST_CASE("attend agrees with double precision, in the same bits for every instruction set") {
  // The error of a score of size s shifts its weight by s * 2^-22 or so; values are of size 1.
  for_each_attention([](const Attention& problem, float sharpness) {
    const auto portable = problem.run(*kernels_by_name("portable"));
    bool close = true;
    for (int head = 0; head < problem.head_count; ++head) {
      const auto expected = problem.expected(head);
      for (int i = 0; i < problem.dim; ++i)
        close &= std::fabs(portable[head * problem.dim + i] - expected[i]) <=
                 4e-6 * (1 + 10 * sharpness);
    }
    REQUIRE(close);
    for (const Kernels* kernels : all_kernels()) {
      INFO(kernels->name);
      REQUIRE(same(problem.run(*kernels), portable));
    }
  });
}

TEST_CASE("what a head attends to does not depend on the heads beside it", "[long]") {
  for_each_attention([](const Attention& problem, float) {
    for (const Kernels* kernels : all_kernels()) {
      INFO(kernels->name);
      const auto all = problem.run(*kernels);
      for (int head = 0; head < problem.head_count; ++head)
        REQUIRE(same(problem.run(*kernels, head, 1, problem.positions),
                     part_of(all, head * problem.dim, problem.dim)));
    }
  });
}

TEST_CASE("attend reads no position past the last, whatever lies there") {
  std::mt19937_64 random(10);
  for (const Kernels* kernels : all_kernels())
    for (const int positions : {1, 3, 4, 31, 33}) {
      Attention longer(5, 40, 32, 0, 1, random);
      const auto before = longer.run(*kernels, 0, 5, positions);
      const size_t past = static_cast<size_t>(positions) * longer.stride;
      std::fill(longer.keys.begin() + past, longer.keys.end(), std::nanf(""));
      std::fill(longer.values.begin() + past, longer.values.end(), std::nanf(""));
      REQUIRE(same(longer.run(*kernels, 0, 5, positions), before));
    }
}

TEST_CASE("attend neither overflows nor hides NaN, and keeps it to the heads that it concerns") {
  std::mt19937_64 random(6);
  const float nan = std::nanf("");
  for (const Kernels* kernels : all_kernels())
    for (const int dim : {16, 30}) {
      INFO(kernels->name << ", " << dim << " columns");
      const Attention finite(3, 41, dim, 1, 1e18f, random);
      for (const float value : finite.run(*kernels)) REQUIRE(std::fabs(value) < 10);
      for (const int p : {7, 40}) {
        Attention problem = finite;
        problem.keys[p * problem.stride + dim - 1] = nan;
        for (const float value : problem.run(*kernels)) REQUIRE(std::isnan(value));
        problem = finite;
        problem.values[p * problem.stride + dim - 1] = nan;
        const auto one_column = problem.run(*kernels);
        for (int i = 0; i < 3 * dim; ++i)
          REQUIRE(std::isnan(one_column[i]) == (i % dim == dim - 1));
        problem = finite;
        problem.q[dim + 1] = nan;
        const auto one_head = problem.run(*kernels);
        for (int i = 0; i < 3 * dim; ++i) REQUIRE(std::isnan(one_head[i]) == (i / dim == 1));
      }
    }
}

TEST_CASE("largest finds a value wherever it is") {
  std::vector<float> x(512, -3);
  for (const Kernels* kernels : all_kernels())
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = -2;
      x[(i + 7) % x.size()] = std::nanf("");
      REQUIRE(kernels->largest(x.data(), x.size()) == -2);
      x[i] = x[(i + 7) % x.size()] = -3;
    }
}

TEST_CASE("read_bandwidth is a plausible figure for any thread count") {
  const std::vector<std::byte> buffer(8 << 20, std::byte{1});
  for (const int threads : {1, 2, 3}) {
    const double bandwidth = read_bandwidth(buffer.data(), buffer.size(), threads, 0.01);
    REQUIRE(bandwidth > 1e6);
    REQUIRE(bandwidth < 1e14);
  }
}

namespace {

// By what the system says of the machine's first core; a virtual machine may hide what it has.
bool is_zen5() {
  std::ifstream facts("/proc/cpuinfo");
  bool is_amd = false, has_its_mark = false;
  for (std::string line; std::getline(facts, line) && !line.empty();) {
    if (line.find("AuthenticAMD") != std::string::npos) is_amd = true;
    if (line.find(" avx512_vp2intersect") != std::string::npos) has_its_mark = true;
  }
  return is_amd && has_its_mark;
}

}  // namespace

TEST_CASE("kernels are found by name") {
  REQUIRE(kernels_by_name("portable") != nullptr);
  REQUIRE(kernels_by_name("portable")->name == std::string("portable"));
  REQUIRE(kernels_by_name("no such set") == nullptr);
  REQUIRE(kernels_by_name("") == nullptr);
  const Kernels* fastest = kernels_by_name("portable");
  for (const char* name : {"avx2", "avx512"})
    if (const Kernels* kernels = kernels_by_name(name)) fastest = kernels;
  if (const Kernels* kernels = kernels_by_name("avx512-zen5"); kernels != nullptr && is_zen5())
    fastest = kernels;
  if (std::getenv("TC_KERNELS") == nullptr) REQUIRE(&cpu_kernels() == fastest);
}
