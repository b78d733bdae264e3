// Strongest: the best few of many candidates by score, best first.
//
// Equal scores come in the order of their words from `first_word` on, wrapping around, so that who
// asks with a rotating first word serves all layers alike; 0 orders ties by index.
// Goals: exact; candidates are looked at once, and only the best sorted; nothing allocated once it
//   has grown.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sim/policies/parts/weakest_hot.h"

namespace thermocline {

template <class Score>  // unsigned
class Strongest {
 public:
  // The `wanted` best of scores (64 * words); candidates: bits (words). Valid until the next call.
  std::span<const ScoredPlace> search(std::span<const Score> scores,
                                      std::span<const uint64_t> candidates, uint64_t wanted,
                                      size_t first_word = 0) {
    items_.clear();
    if (wanted == 0) return {};
    for (size_t w = first_word; w < candidates.size(); ++w) push_all(scores, w, candidates[w]);
    for (size_t w = 0; w < first_word; ++w) push_all(scores, w, candidates[w]);
    const uint32_t bound = items_.size() > wanted ? drop_worse(wanted) : kMost;
    sort_by_score(items_, scratch_, bound);
    if (items_.size() > wanted) items_.resize(wanted);
    for (ScoredPlace& item : items_) item.score = kMost - item.score;
    return items_;
  }

 private:
  static constexpr uint32_t kMost = std::numeric_limits<Score>::max();

  // Items hold what a score lacks to the largest, so that rising order is best first.
  void push_all(std::span<const Score> scores, size_t w, uint64_t word) {
    for_each_place(w, word, [&](uint32_t place) {
      items_.push_back({kMost - uint32_t{scores[place]}, place});
    });
  }

  // Leaves at least `wanted` of the best, all those that may be among them; returns their bound.
  uint32_t drop_worse(uint64_t wanted) {
    histogram_.clear();
    for (const ScoredPlace& item : items_) histogram_.add(item.score);
    const uint32_t bucket = histogram_.bucket_reaching(wanted).first;
    const auto bound = static_cast<uint32_t>(ScoreHistogram::first_of(bucket + 1) - 1);
    std::erase_if(items_, [&](const ScoredPlace& item) { return item.score > bound; });
    return bound;
  }

  std::vector<ScoredPlace> items_, scratch_;
  ScoreHistogram histogram_;
};

}  // namespace thermocline
