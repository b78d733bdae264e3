#include "models/counter_random.h"

#include <bit>
#include <cstring>

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "words are stored as bytes");

using Counter = std::array<uint64_t, 2>;

constexpr uint64_t kMultiplier = 0xD2B74407B1CE6E93u;  // table 2 of the paper
constexpr uint64_t kWeyl = 0x9E3779B97F4A7C15u;        // the key's step: the golden ratio
constexpr int kRounds = 10;

inline Counter philox(Counter counter, uint64_t key) {
  for (int round = 0; round < kRounds; ++round) {
    const auto product = static_cast<unsigned __int128>(kMultiplier) * counter[0];
    counter = {static_cast<uint64_t>(product >> 64) ^ key ^ counter[1],
               static_cast<uint64_t>(product)};
    key += kWeyl;
  }
  return counter;
}

// What a stream draws is kept apart in the upper half of the second counter word.
enum class Draw : uint64_t { block, permutation };

inline Counter counter_of(uint32_t row, uint32_t index, uint32_t stream, Draw draw) {
  return {uint64_t{row} << 32 | index, static_cast<uint64_t>(draw) << 32 | stream};
}

}  // namespace

Counter philox2x64(Counter counter, uint64_t key) { return philox(counter, key); }

void RandomStream::blocks(uint32_t row, uint32_t block_begin, uint32_t block_count,
                          uint8_t* out) const {
  for (uint32_t half = 2 * block_begin; half < 2 * (block_begin + block_count); ++half) {
    const Counter words = philox(counter_of(row, half, stream_, Draw::block), seed_);
    std::memcpy(out, words.data(), sizeof words);
    out += sizeof words;
  }
}

// A Feistel network over the smallest even number of bits that holds `size`, walked until it lands
// below `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002): at most
// four walks on average.
uint32_t RandomStream::permuted(uint32_t index, uint32_t size) const {
  const int half_bits = (std::bit_width(size - 1) + 1) / 2;
  const uint32_t half_mask = (1u << half_bits) - 1;
  uint32_t left = index >> half_bits, right = index & half_mask;
  do {
    for (uint32_t round = 0; round < 4; ++round) {
      const Counter words = philox(counter_of(right, round, stream_, Draw::permutation), seed_);
      const uint32_t next = left ^ (static_cast<uint32_t>(words[0]) & half_mask);
      left = right;
      right = next;
    }
  } while ((left << half_bits | right) >= size);
  return left << half_bits | right;
}

}  // namespace thermocline
