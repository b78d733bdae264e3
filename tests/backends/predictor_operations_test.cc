// What activation predictors ask of a backend: on each that can be used here, and on CUDA's
// emulated on the host, against the definitions.
#include <catch2/catch.hpp>
#include <cmath>
#include <random>
#include <vector>

#include "runtime/kernels/signs.h"
#include "tests/backends/all_backends.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

constexpr uint64_t kUntouched = 0x5555'5555'5555'5555;

void begin(Backend& backend, std::vector<TokenRow>& rows, int count) {
  rows.clear();
  for (int t = 0; t < count; ++t) rows.push_back({t, static_cast<uint32_t>(t), 0});
  backend.begin(rows);
}

std::vector<float> random_values(size_t count, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

bool bit(const std::vector<uint64_t>& words, uint64_t stride, int t, int i) {
  return words[static_cast<size_t>(t) * stride + static_cast<size_t>(i / 64)] >> i % 64 & 1;
}

// Bits beyond `width` are zero in its last word, and untouched behind it.
bool ends_well(const std::vector<uint64_t>& words, uint64_t stride, int tokens, int width) {
  bool right = true;
  const int words_used = (width + 63) / 64;
  for (int t = 0; t < tokens; ++t) {
    for (int i = width; i < words_used * 64; ++i) right &= !bit(words, stride, t, i);
    for (uint64_t w = static_cast<uint64_t>(words_used); w < stride; ++w)
      right &= words[static_cast<size_t>(t) * stride + w] == kUntouched;
  }
  return right;
}

void check_signs(Backend& backend, int rows, int cols, int tokens, std::mt19937_64& random) {
  INFO(rows << " rows of " << cols << ", " << tokens << " tokens");
  const auto w = random_values(static_cast<size_t>(rows) * cols, random);
  const auto x = random_values(static_cast<size_t>(tokens) * cols, random);
  std::vector<uint64_t> signs(static_cast<size_t>(rows) * sign_words(cols));
  for (int r = 0; r < rows; ++r)
    signs_of(w.data() + static_cast<size_t>(r) * cols, cols,
             signs.data() + static_cast<size_t>(r) * sign_words(cols));
  const uint64_t stride = static_cast<uint64_t>(rows / 64) + 2;
  const Placed<uint64_t> placed(backend, signs);
  const Placed<float> inputs(backend, x);
  const Placed<uint64_t> bits(backend, std::vector<uint64_t>(tokens * stride, kUntouched));
  std::vector<TokenRow> token_rows;
  begin(backend, token_rows, tokens);
  backend.match_signs({placed.data(), rows, cols, cols / 2, inputs.data(), bits.data(), stride});
  const auto found = bits.fetch();
  bool right = ends_well(found, stride, tokens, rows);
  for (int t = 0; t < tokens; ++t)
    for (int r = 0; r < rows; ++r) {
      int agreeing = 0;
      for (int c = 0; c < cols; ++c)
        agreeing += (w[static_cast<size_t>(r) * cols + c] < 0) ==
                    (x[static_cast<size_t>(t) * cols + c] < 0);
      right &= bit(found, stride, t, r) == (agreeing >= cols - cols / 2);
    }
  REQUIRE(right);
}

}  // namespace

TEST_CASE("rows whose signs agree with an input's", "[backend]") {
  for (const NamedBackend& named : all_backends()) {
    INFO(named.name);
    std::mt19937_64 random(51);
    for (const int cols : {48, 256, 320})
      for (const int tokens : {1, 5}) check_signs(*named.backend, 131, cols, tokens, random);
  }
}

TEST_CASE("relu, and scores that reach a threshold", "[backend]") {
  for (const NamedBackend& named : all_backends()) {
    INFO(named.name);
    Backend& backend = *named.backend;
    std::mt19937_64 random(52);
    for (const int width : {1, 64, 131})
      for (const int tokens : {1, 5}) {
        auto scores = random_values(static_cast<size_t>(tokens) * width, random);
        scores[0] = std::nanf("");
        if (width > 2) scores[1] = 0.25f, scores[2] = -INFINITY;
        const uint64_t stride = static_cast<uint64_t>(width / 64) + 2;
        const Placed<float> placed(backend, scores);
        const Placed<uint64_t> bits(backend, std::vector<uint64_t>(tokens * stride, kUntouched));
        std::vector<TokenRow> rows;
        begin(backend, rows, tokens);
        backend.mark_reached(placed.data(), width, 0.25f, bits.data(), stride);
        backend.relu(placed.data(), scores.size());
        const auto found = bits.fetch();
        const auto positive = placed.fetch();
        bool right = ends_well(found, stride, tokens, width);
        for (int t = 0; t < tokens; ++t)
          for (int i = 0; i < width; ++i) {
            const float score = scores[static_cast<size_t>(t) * width + i];
            right &= bit(found, stride, t, i) == (score >= 0.25f);
            right &= positive[static_cast<size_t>(t) * width + i] == (score > 0 ? score : 0.0f);
          }
        REQUIRE(right);
      }
  }
}
