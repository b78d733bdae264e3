#include "models/counter_random.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace thermocline {
namespace {

using Words = std::array<uint32_t, 4>;

// The three vectors of Random123's kat_vectors for philox4x32, 10 rounds.
TEST_CASE("philox gives the known answers of its authors") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint32_t ones = 0xffffffff;
  CHECK(philox4x32({ones, ones, ones, ones}, {ones, ones}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

std::vector<uint8_t> blocks(const RandomStream& stream, uint32_t row, uint32_t begin,
                            uint32_t count) {
  std::vector<uint8_t> bytes(count * RandomStream::kBytesPerBlock);
  stream.blocks(row, begin, count, bytes.data());
  return bytes;
}

TEST_CASE("a block is philox of its address, whatever is drawn around it") {
  const RandomStream stream(0x123456789abcdef0, 7);
  const auto whole = blocks(stream, 5, 0, 100);
  for (const uint32_t begin : {0u, 1u, 33u, 99u}) {
    const auto one = blocks(stream, 5, begin, 1);
    CHECK(std::equal(one.begin(), one.end(), whole.begin() + begin * one.size()));
  }
  const Words half = philox4x32({2 * 33 + 1, 5, 7, 0}, {0x9abcdef0, 0x12345678});
  CHECK(whole[33 * 32 + 16] == (half[0] & 255));
  CHECK(whole[33 * 32 + 31] == half[3] >> 24);
}

TEST_CASE("seed, stream, row and block each change everything") {
  std::set<std::vector<uint8_t>> seen;
  for (const uint64_t seed : {1ull, 2ull, 1ull << 32}) {
    for (const uint32_t stream : {0u, 1u}) {
      for (const uint32_t row : {0u, 1u}) {
        for (const uint32_t block : {0u, 1u}) {
          seen.insert(blocks(RandomStream(seed, stream), row, block, 1));
        }
      }
    }
  }
  CHECK(seen.size() == 3 * 2 * 2 * 2);
}

TEST_CASE("bytes are even") {
  constexpr uint32_t kBlocks = 20000;
  std::vector<double> count(256);
  for (const uint8_t byte : blocks(RandomStream(1, 0), 0, 0, kBlocks)) ++count[byte];
  const double expected = kBlocks * 32 / 256.0;
  double chi_squared = 0;
  for (const double n : count) chi_squared += (n - expected) * (n - expected) / expected;
  CHECK(chi_squared > 255 - 5 * std::sqrt(2 * 255.0));
  CHECK(chi_squared < 255 + 5 * std::sqrt(2 * 255.0));
}

TEST_CASE("a permutation takes each place once, in an order of its own") {
  for (const uint32_t size : {1u, 2u, 3u, 5u, 64u, 65u, 1000u, 28672u}) {
    std::vector<int> taken(size);
    double order = 0;  // sum of index * place: a random order puts it near its mean
    for (uint32_t i = 0; i < size; ++i) {
      const uint32_t place = RandomStream(3, 1).permuted(i, size);
      REQUIRE(place < size);
      ++taken[place];
      order += (i - (size - 1) / 2.0) * (place - (size - 1) / 2.0);
    }
    CHECK(taken == std::vector<int>(size, 1));
    const double variance = (double(size) * size - 1) / 12;  // of a place
    if (size >= 64) CHECK(std::abs(order) < 4 * variance * std::sqrt(size - 1.0));
  }
  CHECK(RandomStream(3, 1).permuted(17, 28672) != RandomStream(4, 1).permuted(17, 28672));
}

}  // namespace
}  // namespace thermocline
