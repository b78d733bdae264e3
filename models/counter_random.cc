#include "models/counter_random.h"

#include <bit>
#include <cstring>

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "words are stored as bytes");

using Counter = std::array<uint32_t, 4>;
using Key = std::array<uint32_t, 2>;

// Multipliers and Weyl increments of the paper's table 2.
constexpr uint32_t kMultiplier[] = {0xD2511F53u, 0xCD9E8D57u};
constexpr uint32_t kWeyl[] = {0x9E3779B9u, 0xBB67AE85u};
constexpr int kRounds = 10;

inline Counter philox(Counter c, Key key) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier[0]} * c[0];
    const uint64_t product1 = uint64_t{kMultiplier[1]} * c[2];
    c = {static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key[0], static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + kWeyl[0], key[1] + kWeyl[1]};
  }
  return c;
}

Key key_of(uint64_t seed) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
}

// The last counter word keeps what a stream draws apart.
constexpr uint32_t kBlockDraw = 0, kPermutationDraw = 1;

}  // namespace

Counter philox4x32(Counter counter, Key key) { return philox(counter, key); }

void RandomStream::blocks(uint32_t row, uint32_t block_begin, uint32_t block_count,
                          uint8_t* out) const {
  const Key key = key_of(seed_);
  for (uint32_t half = 2 * block_begin; half < 2 * (block_begin + block_count); ++half) {
    const Counter words = philox({half, row, stream_, kBlockDraw}, key);
    std::memcpy(out, words.data(), sizeof words);
    out += sizeof words;
  }
}

// A Feistel network over the smallest even number of bits that holds `size`, walked until it lands
// below `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002): at most
// four walks on average.
uint32_t RandomStream::permuted(uint32_t index, uint32_t size) const {
  const Key key = key_of(seed_);
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const uint32_t half_mask = (1u << half_bits) - 1;
  uint32_t left = index >> half_bits, right = index & half_mask;
  do {
    for (uint32_t round = 0; round < 4; ++round) {
      const uint32_t mixed = philox({right, round, stream_, kPermutationDraw}, key)[0];
      const uint32_t next = left ^ (mixed & half_mask);
      left = right;
      right = next;
    }
  } while ((left << half_bits | right) >= size);
  return left << half_bits | right;
}

}  // namespace thermocline
