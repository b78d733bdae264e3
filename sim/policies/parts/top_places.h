// The places with the largest scores, of a layer or of a whole pool, as bits.
//
// Scores are 16 bits by place (parts/dense_scores.h). The k-th largest is found by bisection: each
// try counts the scores that reach it, in wide instructions.
// Goals: exact; ties by place; the same bits from every machine; allocates nothing.
// Thread-safety: pure functions over their arguments.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "models/bit_sums.h"
#include "sim/policies/parts/dense_scores.h"

namespace thermocline {

// A bit for every neuron of the pool: spare bits of words have places, but no neuron.
inline std::vector<uint64_t> bits_of_neurons(const NeuronPool& pool) {
  std::vector<uint64_t> bits(pool.words_per_step(), ~uint64_t{0});
  const uint32_t stride = pool.words_per_layer(), in_last = pool.neuron_count % 64;
  for (size_t last = stride; in_last != 0 && last <= bits.size(); last += stride) {
    bits[last - 1] = (uint64_t{1} << in_last) - 1;
  }
  return bits;
}

// How many places of `among` (words) have scores (64 * words) >= least.
inline uint64_t count_at_least(std::span<const uint16_t> scores, std::span<const uint64_t> among,
                               uint16_t least) {
  uint64_t sum = 0;
  for_each_score_block(among.size(), [&](size_t first, size_t count) {
    std::array<uint64_t, kScoreBlockWords> bits;
    dense_score_ops<uint16_t>().at_least(scores.data() + 64 * first, count, least, bits.data());
    sum += bit_sums().count_both(bits.data(), among.data() + first, count);
  });
  return sum;
}

// The largest score that `wanted` places of `among` reach; 0 where there are fewer. A guess near to
// it halves the tries.
inline uint16_t border_score(std::span<const uint16_t> scores, std::span<const uint64_t> among,
                             uint64_t wanted, uint16_t guess) {
  const auto reached = [&](uint32_t least) {
    return count_at_least(scores, among, static_cast<uint16_t>(least)) >= wanted;
  };
  uint32_t low = 0, high = 1u << 16;  // low is reached, high is not
  if (guess > 0) {
    const bool above = reached(guess);
    (above ? low : high) = guess;
    for (uint32_t stride = 64; high - low > stride; stride *= 4) {
      const uint32_t least = above ? low + stride : high - stride;
      const bool is_reached = reached(least);
      (is_reached ? low : high) = least;
      if (is_reached != above) break;
    }
  }
  while (high - low > 1) {
    const uint32_t least = low + (high - low) / 2;
    (reached(least) ? low : high) = least;
  }
  return static_cast<uint16_t>(low);
}

// Marks in `top` (words) the `wanted` places of `among` with the largest scores, or all of them.
// Returns the least score among the marked; 65535 where none is.
inline uint16_t mark_top(std::span<const uint16_t> scores, std::span<const uint64_t> among,
                         uint64_t wanted, std::span<uint64_t> top, uint16_t guess = 0) {
  std::fill(top.begin(), top.end(), 0);
  if (wanted == 0) return UINT16_MAX;
  const uint16_t least = border_score(scores, among, wanted, guess);
  const uint64_t above =
      least == UINT16_MAX ? 0 : count_at_least(scores, among, static_cast<uint16_t>(least + 1));
  uint64_t at_border = wanted - above;  // of those with just that score
  for_each_score_block(among.size(), [&](size_t first, size_t count) {
    std::array<uint64_t, kScoreBlockWords> reach, exceed{};
    const auto& ops = dense_score_ops<uint16_t>();
    const uint16_t* of_block = scores.data() + 64 * first;
    ops.at_least(of_block, count, least, reach.data());
    if (least < UINT16_MAX) {
      ops.at_least(of_block, count, static_cast<uint16_t>(least + 1), exceed.data());
    }
    for (size_t i = 0; i < count; ++i) {
      uint64_t border_word = reach[i] & ~exceed[i] & among[first + i];
      const auto size = static_cast<uint64_t>(std::popcount(border_word));
      for (uint64_t more = size; more > at_border; --more)
        border_word &= ~std::bit_floor(border_word);
      at_border -= std::min(size, at_border);
      top[first + i] = (exceed[i] & among[first + i]) | border_word;
    }
  });
  return least;
}

}  // namespace thermocline
