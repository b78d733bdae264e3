// Merger: joins neighbouring symbols of a word, the best pair first and of equals the leftmost,
// until no pair makes a piece. The algorithm of byte pair encoding, whatever "best" is.
//
// A linked list of symbols and a queue of pairs, O(n log n). A pair in the queue is stale where
// one of its symbols has changed size since.
// Goals: one algorithm for merging by score and by rank; its buffers serve one word after another.
// Thread-safety: one merger, one thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace thermocline {

template <class Priority>  // the greatest is joined first
class Merger {
 public:
  struct Symbol {
    size_t begin, size;     // in the word; a size of 0 is one that was merged into its left
    int32_t id;             // of its piece; -1 for none
    ptrdiff_t left, right;  // neighbours; -1 for none
  };
  struct Join {
    Priority priority;
    int32_t id;  // of the piece that the two make
  };

  void clear() { symbols_.clear(); }
  // The next symbol, from left to right.
  void add(size_t begin, size_t size, int32_t id) {
    const auto index = static_cast<ptrdiff_t>(symbols_.size());
    if (index > 0) symbols_.back().right = index;
    symbols_.push_back({begin, size, id, index - 1, -1});
  }

  // What is left of the symbols that were added. `join_of(left, right)` gives an optional Join.
  template <class JoinOf>
  const std::vector<Symbol>& merge(const JoinOf& join_of) {
    const auto propose = [&](ptrdiff_t left, ptrdiff_t right) {
      if (left < 0 || right < 0) return;
      const std::optional<Join> join = join_of(symbols_[left], symbols_[right]);
      if (join) push({*join, left, right, symbols_[left].size + symbols_[right].size});
    };
    pairs_.clear();
    for (size_t i = 1; i < symbols_.size(); ++i) propose(i - 1, i);
    while (!pairs_.empty()) {
      const Pair pair = pop();
      if (!apply(pair)) continue;
      propose(symbols_[pair.left].left, pair.left);
      propose(pair.left, symbols_[pair.left].right);
    }
    return symbols_;
  }

 private:
  struct Pair {
    Join join;
    ptrdiff_t left, right;
    size_t size;  // of both together, when they were put into the queue
    bool operator<(const Pair& other) const {
      return join.priority != other.join.priority ? join.priority < other.join.priority
                                                  : left > other.left;
    }
  };

  void push(const Pair& pair) {
    pairs_.push_back(pair);
    std::push_heap(pairs_.begin(), pairs_.end());
  }

  Pair pop() {
    std::pop_heap(pairs_.begin(), pairs_.end());
    const Pair pair = pairs_.back();
    pairs_.pop_back();
    return pair;
  }

  bool apply(const Pair& pair) {
    Symbol &left = symbols_[pair.left], &right = symbols_[pair.right];
    if (left.size == 0 || right.size == 0 || left.size + right.size != pair.size) return false;
    left.size = pair.size;
    left.id = pair.join.id;
    right.size = 0;
    left.right = right.right;
    if (right.right >= 0) symbols_[right.right].left = pair.left;
    return true;
  }

  std::vector<Symbol> symbols_;
  std::vector<Pair> pairs_;  // a heap
};

}  // namespace thermocline
