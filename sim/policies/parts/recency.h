// Recency: the step in which each neuron of a pool was last active, in 16 bits.
//
// Steps are counted from kFirstStep; what lies below is for neurons that have not been active yet:
// their share of the profile's steps, so that the hottest of them count as the most recent. When
// the count reaches 65,535 it and all stamps fall by half of that; stamps that reach 0 are ties.
// Goals: one pass over 2 bytes a neuron per step. Non-goals: order among neurons of one step.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/policies/parts/dense_scores.h"

namespace thermocline {

class Recency {
 public:
  static constexpr uint16_t kFirstStep = 256, kRebase = 32768, kLast = UINT16_MAX;

  void start(const ScorePlaces& places, const ActivationProfile& profile) {
    stamps_.assign(places.size(), 0);
    const uint64_t steps = profile.step_count;
    for (uint32_t flat = 0; flat < profile.counts.size(); ++flat) {
      const uint64_t share = steps == 0 ? 0 : uint64_t{profile.counts[flat]} * 255 / steps;
      stamps_[places.place_of(flat)] = static_cast<uint16_t>(share);
    }
  }

  // Stamps what is active. True where stamps fell: scores that somebody remembers are wrong then.
  bool touch(std::span<const uint64_t> active) {
    const auto& ops = dense_score_ops<uint16_t>();
    const bool falls = now_ == kLast;
    if (falls) {
      ops.subtract(stamps_.data(), active.size(), kRebase);
      now_ -= kRebase;
    }
    ++now_;
    ops.set(stamps_.data(), active.data(), active.size(), now_);
    return falls;
  }

  std::span<const uint16_t> stamps() const { return stamps_; }

 private:
  uint16_t now_ = kFirstStep - 1;
  std::vector<uint16_t> stamps_;  // by place
};

}  // namespace thermocline
