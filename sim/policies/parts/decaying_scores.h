// DecayingScores: the exponentially weighted share of recent steps in which each neuron was active.
//
//   e_i(t) = (1 - alpha) e_i(t-1) + alpha a_i(t),   alpha = 1 - 2^(-1/halflife),   e_i(0) = phi_i
// with a_i(t) in {0,1} and phi_i the neuron's share of the profile's steps (0 without a profile).
// Arithmetic. No score decays: the weight of a step grows instead, by 2^(1/halflife) per step, and
// an active neuron adds that weight to an integer E_i of 16 bits; e_i = alpha E_i / weight. When
// weight / alpha, the score of a neuron that is always active, would outgrow 16 bits, all E_i and
// the weight are halved, which happens once in a half-life. What a step adds is whole; the rest of
// its weight is carried into the next step. A halving drops half a unit, of 22 (halflife 1024) or
// more that an activation is worth then.
// Goals: one pass over 2 bytes a neuron per step; all machines the same integers: the weight comes
//   from IEEE products and sums alone.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/policies/parts/dense_scores.h"
#include "sim/policy.h"

namespace thermocline {

// "halflife", as every policy on these scores has it; `tune`: other values worth trying.
PolicyParameter halflife_parameter(double by_default, std::vector<double> tune);

class DecayingScores {
 public:
  static constexpr uint32_t kHalflifeMax = 1024;

  explicit DecayingScores(uint32_t halflife);
  void start(const PolicyContext& context);

  // Before a step is added: its weight. True if that halved all scores.
  bool begin_step(std::span<const uint64_t> active);
  // Adds the step to the scores of words [first, first + count).
  void add(std::span<const uint64_t> active, size_t first, size_t count) {
    dense_score_ops<uint16_t>().age_add(scores_.data() + 64 * first, active.data() + first, count,
                                        0, gain_);
  }
  // Bits where the scores of these words are >= least, which may be above all of them.
  void at_least(uint64_t least, size_t first, size_t count, uint64_t* bits) const;

  // The least score that stands for at least this share of the steps.
  uint64_t score_of(double share) const;
  double share_of(uint64_t score) const { return static_cast<double>(score) * alpha_ / weight_; }

  std::span<const uint16_t> scores() const { return scores_; }  // by place
  const ScorePlaces& places() const { return places_; }

 private:
  const double growth_;  // of the weight, per step
  const double alpha_;
  const double weight_max_;
  double weight_;       // of an activation at this step
  double carried_ = 0;  // of the weights so far, what was not whole
  uint16_t gain_ = 0;   // what this step adds
  ScorePlaces places_;
  std::vector<uint16_t> scores_;  // E
};

}  // namespace thermocline
