// PlaceBits: a set of places (see dense_scores.h) as the words of a step.
//
// Goals: operations by word with a step's own words. Non-goals: counting.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thermocline {

class PlaceBits {
 public:
  PlaceBits() = default;
  explicit PlaceBits(uint64_t word_count) : words_(word_count) {}
  explicit PlaceBits(std::span<const uint64_t> words) : words_(words.begin(), words.end()) {}

  bool contains(uint32_t place) const { return words_[place / 64] >> (place % 64) & 1; }
  void insert(uint32_t place) { words_[place / 64] |= uint64_t{1} << (place % 64); }
  void erase(uint32_t place) { words_[place / 64] &= ~(uint64_t{1} << (place % 64)); }
  uint64_t word(uint64_t w) const { return words_[w]; }
  uint64_t& word(uint64_t w) { return words_[w]; }
  std::span<const uint64_t> words() const { return words_; }

 private:
  std::vector<uint64_t> words_;
};

}  // namespace thermocline
