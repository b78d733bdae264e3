// SumParts: the parts of a weighted sum of rows, which threads share.
//
// A token's active rows are cut into kCount runs of whole blocks of 16, as even as can be; a sum is
//   the parts' sums, added in order. So its bits depend on the token's rows alone, and neither on
//   how many threads there are nor on which has what.
// Why by rows and not by columns: a thread then reads rows from end to end and writes to memory of
//   its own. Threads that add to neighbouring columns of one row take cache lines from each other,
//   since prefetching runs on past a piece's end (measured on a Zen 5 at times when two cores read
//   90 GB/s: one thread 36 GB/s, two 37, and 53 to 71 with rows of their own).
// Not for arithmetic (runtime/kernels) or threads (runtime/thread_pool.h).
// Thread-safety: cut() needs exclusive access; part() may be called by many.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/backend.h"

namespace thermocline {

class SumParts {
 public:
  static constexpr int kCount = 4;

  // Cuts the rows below `rows` that `mask` has of each of `token_count` tokens.
  void cut(const NeuronMask& mask, int rows, int token_count);

  // Of part p in [0, kCount); a token's words follow those of the one before.
  NeuronMask part(int p) const { return {words_.data() + stride_ * token_count_ * p, stride_}; }

 private:
  void cut_token(const uint64_t* mask, int rows, size_t token);
  uint64_t& word(int part, size_t token, size_t i) {
    return words_[(static_cast<size_t>(part) * token_count_ + token) * stride_ + i];
  }

  size_t stride_ = 0, token_count_ = 0;
  std::vector<uint64_t> words_;  // (kCount, token_count, stride)
};

}  // namespace thermocline
