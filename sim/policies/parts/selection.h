// Selection: the few weakest or strongest neurons of a large set, in order.
//
// A histogram of a sample of the set guesses the score up to which the wanted ones reach, counting
// in wide instructions corrects it, a pass collects those that it lets through, and a radix sort
// orders them. Equal scores come in the order of their words from `first_word` on, wrapping around:
// by index where it is 0; who rotates it serves all layers alike.
// Goals: exact; at 70B three or four passes over the scores, and work for what is wanted, not for
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

// How many of a set's neurons have a score, in buckets of one score each up to 127, and of a 64th
// of the score above.
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
  // The bucket in which the sum of the counts from the first on reaches `wanted`, the last one
  // where it never does.
  uint32_t bucket_reaching(uint64_t wanted) const {
    uint64_t sum = 0;
    for (uint32_t bucket = 0; bucket + 1 < kBuckets; ++bucket) {
      sum += counts_[bucket];
      if (sum >= wanted) return bucket;
    }
    return kBuckets - 1;
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
  static constexpr size_t kSampleWords = 1024;

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

  // Buckets of a sample, of all words where they are few.
  template <class Members>
  uint32_t guess_bucket(uint64_t wanted, size_t stride, Members members) {
    histogram_.clear();
    for (size_t w = 0; w < scores_.size() / 64; w += stride) {
      for_each_place(w, members(w),
                     [&](uint32_t place) { histogram_.add(key_of(scores_[place])); });
    }
    if (stride == 1) return histogram_.bucket_reaching(wanted);
    // Rather too many than too few: two deviations of a count and some more.
    const uint64_t in_sample = wanted / stride;
    const auto deviation = uint64_t{1} << (std::bit_width(in_sample) + 1) / 2;
    return histogram_.bucket_reaching(in_sample + 2 * deviation + 2);
  }

  template <class Members>
  Bound find_bound(uint64_t wanted, Members members) {
    const size_t stride = std::max<size_t>(1, scores_.size() / 64 / kSampleWords);
    const uint32_t last = ScoreHistogram::bucket_of(kMost);
    uint32_t bucket = std::min(last, guess_bucket(wanted, stride, members));
    if (stride == 1) return bound_of(bucket);
    // The bucket is in [low, high]: from the guess in growing steps, then by halves.
    uint32_t low = 0, high = last, step = 1;
    for (;; step *= 2) {
      const Bound bound = bound_of(bucket);
      const uint64_t count = count_below(bound.end, members);
      if (count < wanted && bucket < high) {
        low = bucket + 1;
      } else if (count <= 2 * wanted + 64) {
        return bound;
      } else if (bucket > low && count_below(bound.begin, members) >= wanted) {
        high = bucket - 1;
      } else {
        return narrowed(bound, wanted, members);
      }
      if (low > 0 && high < last) {
        bucket = low + (high - low) / 2;
      } else {
        bucket = low > 0 ? std::min(high, bucket + step) : bucket - std::min(bucket, step);
      }
    }
  }

  static Bound bound_of(uint32_t bucket) {
    return {ScoreHistogram::first_of(bucket), ScoreHistogram::first_of(bucket + 1)};
  }

  // Too many have keys of this bucket: halves it, down to one key, whose first neurons do.
  template <class Members>
  Bound narrowed(Bound bound, uint64_t wanted, Members members) const {
    while (bound.end - bound.begin > 1) {
      const uint64_t middle = bound.begin + (bound.end - bound.begin) / 2;
      const uint64_t count = count_below(middle, members);
      (count < wanted ? bound.begin : bound.end) = middle;
      if (count >= wanted && count <= 2 * wanted + 64) return bound;
    }
    bound.of_border = wanted - std::min(wanted, count_below(bound.begin, members));
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
    if (border == 0) return;
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
  ScoreHistogram histogram_;
};

}  // namespace thermocline
