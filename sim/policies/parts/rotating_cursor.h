// RotatingCursor: takes neurons of a step that are as good as each other, a few each step, in turn.
//
// Where more missed neurons want to enter than may move, the lowest indices would always win and
// the first layers be served alone. The cursor begins behind the last neuron that it took.
// Goals: work in proportion to what is taken and the words in between. Non-goals: what is taken.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <bit>
#include <cstdint>

namespace thermocline {

class RotatingCursor {
 public:
  // Offers each place (see dense_scores.h) whose bit is set in word(w), w < word_count, once at
  // most, until take(place) returns false.
  template <class Word, class Take>
  void go(uint64_t word_count, Word word, Take take) {
    if (word_count == 0) return;
    const uint64_t first = next_ / 64 % word_count;
    const uint64_t from_next = ~uint64_t{0} << (next_ % 64);
    if (!offer(first, word(first) & from_next, take)) return;
    for (uint64_t w = first + 1; w < word_count; ++w) {
      if (!offer(w, word(w), take)) return;
    }
    for (uint64_t w = 0; w < first; ++w) {
      if (!offer(w, word(w), take)) return;
    }
    offer(first, word(first) & ~from_next, take);
  }

 private:
  template <class Take>
  bool offer(uint64_t w, uint64_t word, Take& take) {
    for (; word != 0; word &= word - 1) {
      const auto place = 64 * w + static_cast<uint64_t>(std::countr_zero(word));
      if (!take(static_cast<uint32_t>(place))) return false;
      next_ = place + 1;
    }
    return true;
  }

  uint64_t next_ = 0;  // where to begin
};

}  // namespace thermocline
