// BitShares: the rows that a mask chooses, shared out among threads by how many there are.
//
// Active neurons lie unevenly: parts with as many rows each may have work that differs by far, and
//   all threads wait for the one that has most. Borders are whole words of the mask, so that
//   threads write words of their own.
// Not for dense work (ThreadPool::run cuts it evenly), nor for sums of rows (runtime/sum_parts.h).
// Thread-safety: cut() needs exclusive access; what it made may be read by many.
#pragma once

#include <vector>

#include "runtime/backend.h"

namespace thermocline {

class BitShares {
 public:
  // Rows [0, rows) in `share_count` runs with as many rows each that `mask` chooses for any of
  // `token_count` tokens as whole words allow. Bits beyond the last row may be set.
  void cut(const NeuronMask& mask, int rows, int token_count, int share_count);

  // The first row of a share, a multiple of 64 but for the end: that of share `share_count`.
  int begin(int share) const { return borders_[static_cast<size_t>(share)]; }

 private:
  std::vector<int> counts_;  // of each word
  std::vector<int> borders_;
};

}  // namespace thermocline
