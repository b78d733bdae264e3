// WeakestHot: which hot neurons leave next, from a search now and then instead of one each step.
//
// A search takes the `wanted` weakest of the neurons that may leave, weakest first, ties by index:
// a histogram finds the score up to which they reach, a pass collects them, a radix sort orders
// them. A neuron whose score has changed since is dropped when it comes up: it is not among the
// weakest any more, or nobody knows.
// Goals: exact at the time of the search; few passes; nothing allocated once it has grown.
// Non-goals: who may leave; when to search again.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

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
  static constexpr uint32_t kBuckets = 1729;

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
    for (uint32_t bucket = 0; bucket + 2 < kBuckets; ++bucket) {
      if (below + counts_[bucket] >= wanted) return {bucket, below};
      below += counts_[bucket];
    }
    return {kBuckets - 2, below};
  }

 private:
  std::array<uint32_t, kBuckets> counts_{};
};

template <class Score>  // unsigned
class WeakestHot {
 public:
  // Searches scores (64 * words); evictable(w) has the bits of word w that may leave.
  template <class Evictable>
  void search(std::span<const Score> scores, uint64_t wanted, Evictable evictable) {
    items_.clear();
    next_ = 0;
    if (wanted == 0) return;
    const size_t words = scores.size() / 64;
    histogram_.clear();
    for (size_t w = 0; w < words; ++w) {
      for_each_place(w, evictable(w), [&](uint32_t place) { histogram_.add(scores[place]); });
    }
    const auto [bucket, below] = histogram_.bucket_reaching(wanted);
    collect(scores, bucket, wanted - below, evictable);
    sort_by_score(items_, scratch_,
                  static_cast<uint32_t>(ScoreHistogram::first_of(bucket + 1) - 1));
    if (items_.size() > wanted) items_.resize(wanted);
  }

  // The weakest that is left and still has the score that the search found; null: none is left.
  const ScoredPlace* weakest(std::span<const Score> scores) {
    while (next_ < items_.size() && scores[items_[next_].place] != items_[next_].score) ++next_;
    return next_ < items_.size() ? &items_[next_] : nullptr;
  }
  void pop() { ++next_; }
  void clear() { items_.clear(), next_ = 0; }

  // After all scores went through change(score) -> score, which keeps their order.
  template <class Change>
  void change_scores(Change change) {
    for (size_t i = next_; i < items_.size(); ++i) items_[i].score = change(items_[i].score);
  }

 private:
  // Those below the bucket, and its own: the first `of_bucket` where it is of one score.
  template <class Evictable>
  void collect(std::span<const Score> scores, uint32_t bucket, uint64_t of_bucket,
               Evictable evictable) {
    const uint64_t low = ScoreHistogram::first_of(bucket);
    const uint64_t high = ScoreHistogram::first_of(bucket + 1);
    if (high - low > 1) of_bucket = UINT64_MAX;
    std::array<uint64_t, kScoreBlockWords> over_low, over_high;
    for_each_score_block(scores.size() / 64, [&](size_t first, size_t count) {
      at_least(scores, first, count, low, over_low.data());
      at_least(scores, first, count, high, over_high.data());
      for (size_t i = 0; i < count; ++i) {
        const uint64_t may_leave = evictable(first + i) & ~over_high[i];
        push_all(scores, first + i, may_leave & ~over_low[i]);
        uint64_t border = may_leave & over_low[i];
        const auto size = static_cast<uint64_t>(std::popcount(border));
        for (uint64_t more = size; more > of_bucket; --more) border &= ~std::bit_floor(border);
        of_bucket -= std::min(size, of_bucket);
        push_all(scores, first + i, border);
      }
    });
  }

  void push_all(std::span<const Score> scores, size_t w, uint64_t word) {
    for_each_place(w, word, [&](uint32_t place) { items_.push_back({scores[place], place}); });
  }

  // Bits where a score is at least `least`, which may be above all of them.
  static void at_least(std::span<const Score> scores, size_t first, size_t count, uint64_t least,
                       uint64_t* bits) {
    const Score* of_block = scores.data() + 64 * first;
    if (least > std::numeric_limits<Score>::max()) {
      std::fill_n(bits, count, uint64_t{0});
    } else if constexpr (sizeof(Score) <= 2) {
      dense_score_ops<Score>().at_least(of_block, count, static_cast<Score>(least), bits);
    } else {
      for (size_t w = 0; w < count; ++w) {
        bits[w] = 0;
        for (size_t i = 0; i < 64; ++i) bits[w] |= uint64_t{of_block[64 * w + i] >= least} << i;
      }
    }
  }

  std::vector<ScoredPlace> items_, scratch_;  // of the last search, weakest first
  size_t next_ = 0;                           // into items_
  ScoreHistogram histogram_;
};

}  // namespace thermocline
