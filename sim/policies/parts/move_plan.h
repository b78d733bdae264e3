// MovePlan: the way from the hot set to another, over as many steps as the migration limit asks.
//
// What enters comes by falling score, what leaves by rising score, ties by place.
// Goals: a step costs its moves; nothing allocated once it has grown; never above the budget.
// Non-goals: choosing the set.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "sim/policies/parts/selection.h"
#include "sim/policy.h"

namespace thermocline {

class MovePlan {
 public:
  // A new plan in place of the old one. scores: (64 * words) by place; target, hot: bits (words).
  void make(std::span<const uint16_t> scores, std::span<const uint64_t> target,
            std::span<const uint64_t> hot) {
    constexpr uint32_t kMost = std::numeric_limits<uint16_t>::max();
    enter_.clear();
    leave_.clear();
    entered_ = left_ = 0;
    for (size_t w = 0; w < target.size(); ++w) {
      for_each_place(w, target[w] & ~hot[w], [&](uint32_t place) {
        enter_.push_back({kMost - uint32_t{scores[place]}, place});
      });
      for_each_place(w, hot[w] & ~target[w], [&](uint32_t place) {
        leave_.push_back({scores[place], place});
      });
    }
    sort_by_score(enter_, scratch_, kMost);
    sort_by_score(leave_, scratch_, kMost);
  }

  // The moves of one step, from a set that nothing but this plan has changed since it was made.
  void next(const HotSet& hot, uint64_t hot_count_max, uint64_t admit_count_max,
            const ScorePlaces& places, Moves& moves) {
    uint64_t hot_count = hot.count();
    for (; admit_count_max > 0 && entered_ < enter_.size(); --admit_count_max, ++entered_) {
      if (hot_count == hot_count_max) {
        if (left_ == leave_.size()) return;
        moves.evict.push_back(places.flat_of(leave_[left_++].place));
        --hot_count;
      }
      moves.admit.push_back(places.flat_of(enter_[entered_].place));
      ++hot_count;
    }
  }

 private:
  std::vector<ScoredPlace> enter_, leave_, scratch_;
  size_t entered_ = 0, left_ = 0;
};

}  // namespace thermocline
