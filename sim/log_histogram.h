// A histogram on a logarithmic scale: mean and percentiles of millions of step times in bounded
// memory.
//
// A bucket holds the numbers that share sign, exponent and the top 10 bits of the mantissa: 1,024
//   for each power of two, so the bucket's middle is within 0.05 % of every value in it (numbers
//   below 2^-1022 apart). Buckets are kept from the least power of two seen to the greatest: 8 KiB
//   for each between them, 16 MiB at most.
// Goals: percentiles by nearest rank as models/distribution.h has them, but for the 0.05 %; the
//   mean is that of the values themselves; merged parts give the same percentiles as the whole.
// Non-goals: negative numbers.
// Thread-safety: one thread at a time; parts of several threads are merged afterwards, in a fixed
//   order where the last bits of the mean have to repeat.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "models/distribution.h"

namespace thermocline {

class LogHistogram {
 public:
  void add(double value);  // finite, zero or more
  void merge(const LogHistogram& other);

  uint64_t count() const { return count_; }
  double sum() const { return sum_; }
  std::optional<Distribution> distribution() const;  // nothing without values

  // All it holds, to be stored and made again.
  struct Parts {
    std::vector<std::pair<uint64_t, uint64_t>> buckets;  // (bucket, values) of those with values
    double sum = 0, least = 0, greatest = 0;
  };
  static constexpr uint64_t kBucketMax = 0x7fefffffffffffff >> 42;  // of the largest double
  LogHistogram() = default;
  // No bucket above kBucketMax.
  explicit LogHistogram(const Parts& parts);
  Parts parts() const;
  bool operator==(const LogHistogram&) const = default;

 private:
  void cover(uint64_t bucket);
  double at_rank(uint64_t rank) const;  // ranks begin at 1

  uint64_t first_ = 0;  // the bucket of buckets_[0]
  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  double sum_ = 0, least_ = 0, greatest_ = 0;
};

}  // namespace thermocline
