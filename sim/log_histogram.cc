#include "sim/log_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "models/error.h"

namespace thermocline {
namespace {

constexpr int kMantissaBits = 10;
constexpr int kDroppedBits = 52 - kMantissaBits;
constexpr uint64_t kOctave = uint64_t{1} << kMantissaBits;

uint64_t bucket_of(double value) { return std::bit_cast<uint64_t>(value) >> kDroppedBits; }

// Bucket 0 is zero's: what else could be in it is below 2^-1032.
double middle_of(uint64_t bucket) {
  if (bucket == 0) return 0;
  const uint64_t half = uint64_t{1} << (kDroppedBits - 1);
  return std::bit_cast<double>(bucket << kDroppedBits | half);
}

}  // namespace

LogHistogram::LogHistogram(const Parts& parts)
    : sum_(parts.sum), least_(parts.least), greatest_(parts.greatest) {
  for (const auto& [bucket, count] : parts.buckets) {
    TC_CHECK(bucket <= kBucketMax, "a bucket of a number");
    cover(bucket);
    buckets_[bucket - first_] += count;
    count_ += count;
  }
}

LogHistogram::Parts LogHistogram::parts() const {
  Parts parts{{}, sum_, least_, greatest_};
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i] > 0) parts.buckets.emplace_back(first_ + i, buckets_[i]);
  }
  return parts;
}

// Grows by whole powers of two: times of one policy seldom span more than a few.
void LogHistogram::cover(uint64_t bucket) {
  const uint64_t begin = bucket / kOctave * kOctave;
  if (buckets_.empty()) first_ = begin;
  if (begin < first_) {
    buckets_.insert(buckets_.begin(), first_ - begin, 0);
    first_ = begin;
  }
  const uint64_t size = begin + kOctave - first_;
  if (size > buckets_.size()) buckets_.resize(size);
}

void LogHistogram::add(double value) {
  TC_CHECK(value >= 0 && std::isfinite(value), "a finite number, zero or more");
  value += 0.0;  // the negative zero has the sign bit, and so a bucket of its own
  const uint64_t bucket = bucket_of(value);
  // The subtraction wraps below first_: one comparison for both ends.
  if (bucket - first_ >= buckets_.size()) cover(bucket);
  ++buckets_[bucket - first_];
  least_ = count_ == 0 ? value : std::min(least_, value);
  greatest_ = count_ == 0 ? value : std::max(greatest_, value);
  ++count_;
  sum_ += value;
}

void LogHistogram::merge(const LogHistogram& other) {
  if (other.count_ == 0) return;
  cover(other.first_);
  cover(other.first_ + other.buckets_.size() - 1);
  for (size_t i = 0; i < other.buckets_.size(); ++i) {
    buckets_[other.first_ - first_ + i] += other.buckets_[i];
  }
  least_ = count_ == 0 ? other.least_ : std::min(least_, other.least_);
  greatest_ = count_ == 0 ? other.greatest_ : std::max(greatest_, other.greatest_);
  count_ += other.count_;
  sum_ += other.sum_;
}

// Not outside of what was seen: a single value comes back as it is.
double LogHistogram::at_rank(uint64_t rank) const {
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::clamp(middle_of(first_ + i), least_, greatest_);
  }
  return greatest_;
}

std::optional<Distribution> LogHistogram::distribution() const {
  if (count_ == 0) return std::nullopt;
  // As in models/distribution.cc: the least rank with at least this percentage at or below it.
  const auto percentile = [&](uint64_t percent) { return at_rank((count_ * percent + 99) / 100); };
  return Distribution{sum_ / static_cast<double>(count_), percentile(50), percentile(95),
                      percentile(99)};
}

}  // namespace thermocline
