#include "models/counter_random.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <string>
#include <vector>

namespace thermocline {
namespace {

using Words = std::array<uint64_t, 2>;

// The three vectors of Random123's kat_vectors for philox2x64, 10 rounds.
TEST_CASE("philox gives the known answers of its authors") {
  CHECK(philox2x64({0, 0}, 0) == Words{0xca00a0459843d731, 0x66c24222c9a845b5});
  const uint64_t ones = UINT64_MAX;
  CHECK(philox2x64({ones, ones}, ones) == Words{0x65b021d60cd8310f, 0x4d02f3222f86df20});
  CHECK(philox2x64({0x243f6a8885a308d3, 0x13198a2e03707344}, 0xa4093822299f31d0) ==
        Words{0x0a5e742c2997341c, 0xb0f883d38000de5d});
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
  const Words half = philox2x64({uint64_t{5} << 32 | (2 * 33 + 1), 7}, 0x123456789abcdef0);
  CHECK(whole[33 * 32 + 16] == (half[0] & 255));
  CHECK(whole[33 * 32 + 31] == half[1] >> 56);
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
