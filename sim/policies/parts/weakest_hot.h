// WeakestHot: which hot neurons leave next, from a search now and then instead of one each step.
//
// A search takes the `wanted` weakest of the neurons that may leave, weakest first, ties by index
// (parts/selection.h). A neuron whose score has changed since is dropped when it comes up: it is
// not among the weakest any more, or nobody knows.
// Goals: exact at the time of the search. Non-goals: who may leave; when to search again.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/policies/parts/selection.h"

namespace thermocline {

template <class Score>  // unsigned
class WeakestHot {
 public:
  // Searches scores (64 * words); evictable(w) has the bits of word w that may leave.
  template <class Evictable>
  void search(std::span<const Score> scores, uint64_t wanted, Evictable evictable) {
    const auto found = selection_.search(scores, wanted, evictable);
    items_.assign(found.begin(), found.end());
    next_ = 0;
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
  Selection<Score, Extreme::weakest> selection_;
  std::vector<ScoredPlace> items_;  // of the last search, weakest first
  size_t next_ = 0;                 // into items_
};

}  // namespace thermocline
