// Shares of the rows that a mask chooses: whole words, as even as those allow.
#include "runtime/bit_shares.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

using namespace thermocline;

namespace {

struct Case {
  std::vector<uint64_t> words;  // (tokens, stride)
  size_t stride;
  int rows, tokens;

  int chosen(int begin, int end) const {
    int count = 0;
    for (int r = begin; r < end; ++r) {
      bool any = false;
      for (int t = 0; t < tokens; ++t)
        any |= (words[static_cast<size_t>(t) * stride + static_cast<size_t>(r) / 64] >> r % 64 & 1);
      count += any ? 1 : 0;
    }
    return count;
  }
};

// More of them the further down, bits beyond the last row among them.
Case random_case(uint32_t seed) {
  std::mt19937 random(seed);
  Case result;
  result.rows = static_cast<int>(random() % 4000 + 1);
  result.tokens = static_cast<int>(random() % 3 + 1);
  result.stride = static_cast<size_t>(result.rows + 63) / 64 + random() % 2;
  result.words.resize(result.stride * static_cast<size_t>(result.tokens));
  for (size_t i = 0; i < result.words.size(); ++i)
    for (int bit = 0; bit < 64; ++bit)
      if (random() % result.stride <= i % result.stride) result.words[i] |= uint64_t{1} << bit;
  return result;
}

}  // namespace

TEST_CASE("shares follow one another, in whole words, and none has a word's rows too many") {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    const Case mask = random_case(seed);
    const int share_count = static_cast<int>(seed % 7 + 1);
    BitShares shares;
    shares.cut({mask.words.data(), mask.stride}, mask.rows, mask.tokens, share_count);
    CAPTURE(seed, mask.rows, mask.tokens, share_count);
    REQUIRE(shares.begin(0) == 0);
    REQUIRE(shares.begin(share_count) == mask.rows);
    const double wanted = static_cast<double>(mask.chosen(0, mask.rows)) / share_count;
    for (int i = 0; i < share_count; ++i) {
      const int begin = shares.begin(i), end = shares.begin(i + 1);
      REQUIRE(begin <= end);
      CHECK((begin % 64 == 0 || begin == mask.rows));
      // Each of its two borders lies half a word from where it should.
      CHECK(std::abs(mask.chosen(begin, end) - wanted) <= 64 + 1);
    }
  }
}

TEST_CASE("where all that is chosen lies together, every share has some of it") {
  std::vector<uint64_t> words(100);
  for (size_t w = 10; w < 18; ++w) words[w] = ~uint64_t{0};
  BitShares shares;
  shares.cut({words.data(), 0}, 6400, 1, 4);
  for (int i = 1; i < 4; ++i) CHECK(shares.begin(i) == 640 + 128 * i);
}

TEST_CASE("nothing to share is shared") {
  const std::vector<uint64_t> words(3);
  BitShares shares;
  shares.cut({words.data(), 0}, 130, 1, 3);
  CHECK(shares.begin(0) == 0);
  CHECK(shares.begin(3) == 130);
}
