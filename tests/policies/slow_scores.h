// The decaying scores of sim/policies/parts/decaying_scores.h, one neuron at a time, for the
// obvious versions of the policies that use them.
//
// Its exp2 is the policies' bisection for half-lives of 1, 3, 4, 6 to 10, 12, 13, 15 to 19, 29, 32
// and others; elsewhere the two may differ in the last bit, and then a score in its last unit.
// Thread-safety: none needed.
#pragma once

#include <cmath>
#include <vector>

#include "tests/policies/tiny_case.h"

namespace thermocline::test {

class SlowScores {
 public:
  SlowScores(double halflife, const ActivationProfile& profile)
      : growth_(std::exp2(1.0 / halflife)), alpha_(1.0 - 1.0 / growth_) {
    weight_ = 65535 * alpha_ / 2;
    const double step_count = std::max<double>(1.0, static_cast<double>(profile.step_count));
    for (const uint32_t count : profile.counts) {
      scores_.push_back(std::floor(count * (weight_ / alpha_ / step_count)));
    }
  }

  void begin_step() {
    weight_ *= growth_;
    if (weight_ >= 65535 * alpha_) {
      weight_ /= 2;
      for (double& score : scores_) score = std::floor(score / 2);
    }
    carried_ += weight_;
    gain_ = std::floor(carried_);
    carried_ -= gain_;
  }
  void add(const FlatSet& active) {
    for (const uint32_t flat : active) scores_[flat] = std::min(scores_[flat] + gain_, 65535.0);
  }

  void clear() { scores_.assign(scores_.size(), 0); }

  double operator[](uint32_t flat) const { return scores_[flat]; }
  size_t size() const { return scores_.size(); }
  double of_share(double share) const {
    return std::max(0.0, std::ceil(share * weight_ / alpha_ - 0x1p-10));
  }
  double share_of(double score) const { return score * alpha_ / weight_; }
  // Best and worst first, ties by index.
  bool is_stronger(uint32_t a, uint32_t b) const {
    return scores_[a] != scores_[b] ? scores_[a] > scores_[b] : a < b;
  }
  bool is_weaker(uint32_t a, uint32_t b) const {
    return scores_[a] != scores_[b] ? scores_[a] < scores_[b] : a < b;
  }

 private:
  double growth_, alpha_, weight_, carried_ = 0, gain_ = 0;
  std::vector<double> scores_;
};

}  // namespace thermocline::test
