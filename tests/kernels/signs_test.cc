// Rows whose signs agree with an input's, by every set of kernels, against a bit at a time.
#include "runtime/kernels/signs.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace thermocline;

namespace {

constexpr uint64_t kUntouched = 0x5555'5555'5555'5555;

std::vector<uint64_t> random_signs(int rows, int cols, std::mt19937_64& random) {
  std::vector<uint64_t> signs(static_cast<size_t>(rows) * sign_words(cols));
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c)
      signs[static_cast<size_t>(r) * sign_words(cols) + c / 64] |= (random() & 1) << c % 64;
  return signs;
}

int differing(const uint64_t* a, const uint64_t* b, int cols) {
  int count = 0;
  for (int c = 0; c < cols; ++c) count += (a[c / 64] >> c % 64 & 1) != (b[c / 64] >> c % 64 & 1);
  return count;
}

}  // namespace

TEST_CASE("signs are of what is below zero, and end with zeros", "[signs]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x(70, 1.0f);
  x[0] = -1e-45f;
  x[1] = -0.0f;
  x[2] = nan;
  x[3] = -nan;
  x[63] = -INFINITY;
  x[69] = -2.0f;
  std::vector<uint64_t> words(2, kUntouched);
  signs_of(x.data(), 70, words.data());
  CHECK(words[0] == (uint64_t{1} | uint64_t{1} << 63));
  CHECK(words[1] == uint64_t{1} << 5);
}

TEST_CASE("rows match where few enough signs differ, the same by every set", "[signs]") {
  std::mt19937_64 random(7);
  for (const char* name : {"portable", "popcnt", "avx512"}) {
    const SignKernels* kernels = sign_kernels_by_name(name);
    if (kernels == nullptr) continue;
    for (const int cols : {1, 63, 64, 320, 512, 1000, 8192})
      for (const int rows : {1, 64, 131})
        for (const int tokens : {1, 3}) {
          INFO(name << ", " << rows << " rows of " << cols << ", " << tokens << " tokens");
          const int words = sign_words(cols), out_words = (rows + 63) / 64;
          const auto signs = random_signs(rows, cols, random);
          const auto x = random_signs(tokens, cols, random);
          for (const int most : {-1, 0, cols / 2, cols}) {
            const uint64_t stride = static_cast<uint64_t>(out_words) + 1;
            std::vector<uint64_t> bits(static_cast<size_t>(tokens) * stride, kUntouched);
            // In two parts, as two threads would.
            const int border = std::min(64, rows);
            kernels->match(signs.data(), words, 0, border, x.data(), tokens, most, bits.data(),
                           stride);
            kernels->match(signs.data(), words, 64, rows, x.data(), tokens, most, bits.data(),
                           stride);
            bool right = true;
            for (int t = 0; t < tokens; ++t) {
              const uint64_t* of_token = bits.data() + static_cast<size_t>(t) * stride;
              for (int r = 0; r < out_words * 64; ++r) {
                const bool found = of_token[r / 64] >> r % 64 & 1;
                const bool expected =
                    r < rows && differing(signs.data() + static_cast<size_t>(r) * words,
                                          x.data() + static_cast<size_t>(t) * words, cols) <= most;
                right &= found == expected;
              }
              right &= of_token[out_words] == kUntouched;
            }
            REQUIRE(right);
          }
        }
  }
}

TEST_CASE("a set of kernels that there is not has no name", "[signs]") {
  CHECK(sign_kernels_by_name("avx2") == nullptr);
  CHECK(sign_kernels_by_name("portable") != nullptr);
  CHECK(sign_kernels().match != nullptr);
}
