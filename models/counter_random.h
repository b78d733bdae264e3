// Random numbers without state: a function of (seed, stream, row, block).
//
// Philox2x64-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//   SC 2011: ten rounds of multiply, exchange and xor turn a 128-bit counter and a 64-bit key into
//   128 random bits. Integers only, so the same bits on every machine; its one multiplication a
//   round makes it the fastest of its family without vector instructions.
// Goals: any rank makes any part of anything without making the rest. Non-goals: cryptography.
// Thread-safety: pure functions.
#pragma once

#include <array>
#include <cstdint>

namespace thermocline {

std::array<uint64_t, 2> philox2x64(std::array<uint64_t, 2> counter, uint64_t key);

// An unlimited table of random bytes in rows of 32-byte blocks. Streams do not overlap.
class RandomStream {
 public:
  static constexpr int kBytesPerBlock = 32;

  RandomStream(uint64_t seed, uint32_t stream) : seed_(seed), stream_(stream) {}

  // Blocks [block_begin, block_begin + block_count) of `row`; block_begin + block_count < 2^31.
  void blocks(uint32_t row, uint32_t block_begin, uint32_t block_count, uint8_t* out) const;
  // The place of `index` in a random order of 0..size-1: a bijection, without a table.
  uint32_t permuted(uint32_t index, uint32_t size) const;

 private:
  uint64_t seed_;
  uint32_t stream_;
};

}  // namespace thermocline
