// ScoreHistogram: up to which score the least of a list of candidates reach, in one pass.
//
// Buckets are those of a selection (parts/selection.h): exact below 64, 64 to each power of two.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <array>
#include <cstdint>

#include "sim/policies/parts/selection.h"

namespace thermocline {

class ScoreHistogram {
 public:
  // The least score of a bucket; of the one after the last: 2^32.
  static uint64_t first_of(uint32_t bucket) { return ScoreBuckets::first_of(bucket); }

  void clear() { counts_.fill(0); }
  void add(uint32_t score) { ++counts_[ScoreBuckets::bucket_of(score)]; }
  // The bucket in which the sum of the counts from the first on reaches `wanted`, the last one
  // where it never does.
  uint32_t bucket_reaching(uint64_t wanted) const {
    uint64_t sum = 0;
    for (uint32_t bucket = 0; bucket + 1 < ScoreBuckets::kCount; ++bucket) {
      sum += counts_[bucket];
      if (sum >= wanted) return bucket;
    }
    return ScoreBuckets::kCount - 1;
  }

 private:
  std::array<uint32_t, ScoreBuckets::kCount> counts_{};
};

}  // namespace thermocline
