// Selection: the few weakest or strongest neurons of a large set, in order.
//
// Counting in wide instructions finds the score up to which the wanted ones reach, starting from
// where it was found last; a pass collects those that it lets through, and a radix sort
// orders them. Equal scores come in the order of their words from `first_word` on, wrapping around:
// by index where it is 0; who rotates it serves all layers alike.
// Goals: exact; at 70B two to four passes over the scores, and work for what is wanted, not for
//   the set; nothing allocated once it has grown.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "models/bit_sums.h"
#include "sim/policies/parts/dense_scores.h"

namespace thermocline {

struct ScoredPlace {
  uint32_t score;
  uint32_t place;  // see dense_scores.h
};

// By rising score, equal ones as they were. `most`: no score is above it.
inline void sort_by_score(std::vector<ScoredPlace>& items, std::vector<ScoredPlace>& scratch,
                          uint32_t most) {
  scratch.resize(items.size());
  for (uint32_t shift = 0; shift < 32 && most >> shift != 0; shift += 8) {
    std::array<uint32_t, 257> begin{};
    for (const ScoredPlace& item : items) ++begin[(item.score >> shift & 255) + 1];
    for (size_t digit = 1; digit < 256; ++digit) begin[digit] += begin[digit - 1];
    for (const ScoredPlace& item : items) scratch[begin[item.score >> shift & 255]++] = item;
    std::swap(items, scratch);
  }
}

// How many neurons have a score, in buckets of one score each up to 127, and of a 64th of the score
// above.
class ScoreHistogram {
 public:
  static constexpr uint32_t kBuckets = 1728;

  static uint32_t bucket_of(uint32_t score) {
    if (score < 64) return score;
    const auto exponent = static_cast<uint32_t>(std::bit_width(score)) - 7;
    return exponent * 64 + (score >> exponent);
  }
  // The least score of a bucket; of the one after the last: 2^32.
  static uint64_t first_of(uint32_t bucket) {
    if (bucket < 128) return bucket;
    return uint64_t{bucket % 64 + 64} << (bucket / 64 - 1);
  }

  void clear() { counts_.fill(0); }
  void add(uint32_t score) { ++counts_[bucket_of(score)]; }
  // The bucket in which the sum of the counts from the first on reaches `wanted`, and the sum
  // before it; the last bucket where it never does.
  std::pair<uint32_t, uint64_t> bucket_reaching(uint64_t wanted) const {
    uint64_t below = 0;
    for (uint32_t bucket = 0; bucket + 1 < kBuckets; ++bucket) {
      if (below + counts_[bucket] >= wanted) return {bucket, below};
      below += counts_[bucket];
    }
    return {kBuckets - 1, below};
  }

 private:
  std::array<uint32_t, kBuckets> counts_{};
};

enum class Extreme : uint8_t { weakest, strongest };

template <class Score, Extreme kExtreme>  // Score: unsigned
class Selection {
 public:
  // The `wanted` most extreme of scores (64 * words) in the set: members(w) has its bits of word w.
  // Valid until the next call.
  template <class Members>
  std::span<const ScoredPlace> search(std::span<const Score> scores, uint64_t wanted,
                                      Members members, size_t first_word = 0) {
    items_.clear();
    if (wanted == 0) return {};
    scores_ = scores;
    const size_t words = scores.size() / 64;
    const Bound bound = find_bound(wanted, members);
    uint64_t of_border = bound.of_border;
    collect(bound, of_border, members, first_word, words);
    collect(bound, of_border, members, 0, first_word);
    sort_by_score(items_, scratch_,
                  static_cast<uint32_t>(std::min<uint64_t>(kMost, bound.end - 1)));
    if (items_.size() > wanted) items_.resize(wanted);
    if constexpr (kExtreme == Extreme::strongest) {
      for (ScoredPlace& item : items_) item.score = kMost - item.score;
    }
    return items_;
  }

 private:
  static constexpr uint32_t kMost = std::numeric_limits<Score>::max();

  // Keys rise from the most extreme score on; until they are sorted, items hold keys.
  static uint32_t key_of(Score score) {
    return kExtreme == Extreme::weakest ? uint32_t{score} : kMost - score;
  }

  // Collected are keys below `begin`, and of those from there to `end` the first `of_border`.
  struct Bound {
    uint64_t begin, end;
    uint64_t of_border = UINT64_MAX;
  };

  // Bits where keys are below `end`.
  void below(size_t first, size_t count, uint64_t end, uint64_t* bits) const {
    if (end > kMost) {
      std::fill_n(bits, count, ~uint64_t{0});
    } else if constexpr (kExtreme == Extreme::weakest) {
      at_least(first, count, static_cast<Score>(end), bits);
      for (size_t i = 0; i < count; ++i) bits[i] = ~bits[i];
    } else if (end == 0) {
      std::fill_n(bits, count, uint64_t{0});
    } else {
      at_least(first, count, static_cast<Score>(kMost - end + 1), bits);
    }
  }

  void at_least(size_t first, size_t count, Score least, uint64_t* bits) const {
    const Score* of_block = scores_.data() + 64 * first;
    if constexpr (sizeof(Score) <= 2) {
      dense_score_ops<Score>().at_least(of_block, count, least, bits);
    } else {
      for (size_t w = 0; w < count; ++w) {
        bits[w] = 0;
        for (size_t i = 0; i < 64; ++i) bits[w] |= uint64_t{of_block[64 * w + i] >= least} << i;
      }
    }
  }

  template <class Members>
  uint64_t count_below(uint64_t end, Members members) const {
    uint64_t sum = 0;
    std::array<uint64_t, kScoreBlockWords> bits;
    for_each_score_block(scores_.size() / 64, [&](size_t first, size_t count) {
      below(first, count, end, bits.data());
      for (size_t i = 0; i < count; ++i) bits[i] &= members(first + i);
      sum += bit_sums().count(bits.data(), count);
    });
    return sum;
  }

  // So many more than wanted cost less to sort than to tell apart.
  static uint64_t enough(uint64_t wanted) { return 2 * wanted + 64; }

  template <class Members>
  Bound find_bound(uint64_t wanted, Members members) {
    constexpr uint64_t kAll = uint64_t{kMost} + 1;
    if (count_below(kAll, members) <= enough(wanted)) return {0, kAll};
    // The bucket that reaches what is wanted is in [low, high], `before` are below it: from the
    // last one in growing steps, then by halves.
    const uint32_t last = ScoreHistogram::bucket_of(kMost);
    uint32_t low = 0, high = last, step = 1;
    uint64_t before = 0;
    for (;; step *= 2) {
      Bound bound{ScoreHistogram::first_of(bucket_), ScoreHistogram::first_of(bucket_ + 1)};
      const uint64_t count = count_below(bound.end, members);
      if (count < wanted) {
        low = bucket_ + 1;
        before = count;
      } else if (count <= enough(wanted)) {
        return bound;
      } else {
        const uint64_t under = bucket_ > low ? count_below(bound.begin, members) : before;
        if (under < wanted) return narrowed(bound, under, wanted, members);
        high = bucket_ - 1;
      }
      if (low > 0 && high < last) {
        bucket_ = low + (high - low) / 2;
      } else {
        bucket_ = low > 0 ? std::min(high, bucket_ + step) : bucket_ - std::min(bucket_, step);
      }
    }
  }

  // Too many have keys of this bucket, `under` are below it: halves it, down to one key, whose
  // first neurons do.
  template <class Members>
  Bound narrowed(Bound bound, uint64_t under, uint64_t wanted, Members members) const {
    while (bound.end - bound.begin > 1) {
      const uint64_t middle = bound.begin + (bound.end - bound.begin) / 2;
      const uint64_t count = count_below(middle, members);
      if (count < wanted) {
        bound.begin = middle;
        under = count;
      } else {
        bound.end = middle;
        if (count <= enough(wanted)) return bound;
      }
    }
    bound.of_border = wanted - under;
    return bound;
  }

  template <class Members>
  void collect(const Bound& bound, uint64_t& of_border, Members members, size_t begin, size_t end) {
    std::array<uint64_t, kScoreBlockWords> inside, all;
    for_each_score_block(end - begin, [&](size_t offset, size_t count) {
      const size_t first = begin + offset;
      below(first, count, bound.end, all.data());
      for (size_t i = 0; i < count; ++i) all[i] &= members(first + i);
      if (bound.of_border != UINT64_MAX) {
        below(first, count, bound.begin, inside.data());
        for (size_t i = 0; i < count; ++i) drop_last(all[i], all[i] & ~inside[i], of_border);
      }
      for (size_t i = 0; i < count; ++i) {
        for_each_place(first + i, all[i], [&](uint32_t place) {
          items_.push_back({key_of(scores_[place]), place});
        });
      }
    });
  }

  // Drops from `all` the last of `border` that are beyond the first `left`, and counts down.
  static void drop_last(uint64_t& all, uint64_t border, uint64_t& left) {
    if (left == 0) all &= ~border;
    if (left == 0 || border == 0) return;
    const auto size = static_cast<uint64_t>(std::popcount(border));
    for (uint64_t more = size; more > left; --more) {
      const uint64_t last = std::bit_floor(border);
      border ^= last;
      all ^= last;
    }
    left -= std::min(size, left);
  }

  std::span<const Score> scores_;  // of the search
  std::vector<ScoredPlace> items_, scratch_;
  uint32_t bucket_ = 0;  // that of the last bound
};

}  // namespace thermocline
