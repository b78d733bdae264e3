// The obvious version of sim/policies/parts/move_plan.h, on sets that are sorted anew.
//
// Thread-safety: none needed.
#pragma once

#include <algorithm>
#include <vector>

#include "tests/policies/tiny_case.h"

namespace thermocline::test {

// Flat indices by falling value, ties by index.
inline std::vector<uint32_t> by_falling(const FlatSet& set, const std::vector<double>& values) {
  std::vector<uint32_t> order(set.begin(), set.end());
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  return order;
}
inline std::vector<uint32_t> by_rising(const FlatSet& set, std::vector<double> values) {
  for (double& value : values) value = -value;
  return by_falling(set, values);
}

inline FlatSet without(const FlatSet& set, const FlatSet& removed) {
  FlatSet left;
  for (const uint32_t flat : set) {
    if (!removed.count(flat)) left.insert(flat);
  }
  return left;
}

class SlowPlan {
 public:
  void make(const FlatSet& target, const FlatSet& hot, const std::vector<double>& values) {
    enter_ = by_falling(without(target, hot), values);
    leave_ = by_rising(without(hot, target), values);
  }
  void next(size_t hot_count, uint64_t budget, uint64_t limit, Moves& moves) {
    while (limit-- > 0 && !enter_.empty()) {
      if (hot_count == budget) {
        if (leave_.empty()) return;
        moves.evict.push_back(leave_.front());
        leave_.erase(leave_.begin());
        --hot_count;
      }
      moves.admit.push_back(enter_.front());
      enter_.erase(enter_.begin());
      ++hot_count;
    }
  }

 private:
  std::vector<uint32_t> enter_, leave_;
};

}  // namespace thermocline::test
