// BitCursor: takes the bits of a set in index order, going on where it stopped, wrapping around.
//
// Goals: whoever is equal gets its turn, in whatever layer; a round costs one look at each word.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace thermocline {

class BitCursor {
 public:
  BitCursor() = default;
  // Over words [first, end).
  BitCursor(size_t first, size_t end) : first_(first), end_(end), at_(first) {}

  // The place (parts/dense_scores.h) of the next bit, which is cleared; one must be set.
  uint32_t take(std::vector<uint64_t>& words) {
    while (words[at_] == 0) at_ = at_ + 1 == end_ ? first_ : at_ + 1;
    const auto place =
        static_cast<uint32_t>(64 * at_) + static_cast<uint32_t>(std::countr_zero(words[at_]));
    words[at_] &= words[at_] - 1;
    return place;
  }

 private:
  size_t first_ = 0, end_ = 0, at_ = 0;
};

}  // namespace thermocline
