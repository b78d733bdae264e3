// ThresholdSet: a hot set under a threshold on decaying scores, within the budget.
//
// Sections: the whole pool, or each layer with its even part of the budget B. A section has
//   quantile: follows the (1 - B/N) quantile of its scores e_i by stochastic approximation (Robbins
//     and Monro 1951), q += eta (|{i: e_i >= q}| - B) / N after each step, within [0, 1];
//   threshold: theta = max(wanted, q), so that a threshold that is wanted lower than the budget
//     allows is projected on it.
// After each step a cold neuron that was active and has e_i >= theta / gamma is promoted, best
// first, ties by index, as many as may be admitted; a hot one with e_i < theta may be evicted. It
// is when its room is needed, and, where theta is wanted above q, at once: as many per step as may
// be admitted, since what leaves faster than it could come back would make the set swing. Which
// ones: the next in index order after those of the last step, wrapping around. About B neurons of a
// section have e_i >= q, so that a candidate for a full hot set finds one in it that may leave,
// whatever gamma is.
// Goals: at 70B one pass over the scores per step, and work for the moves. Non-goals: what
// threshold is wanted. Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "sim/policies/parts/bit_cursor.h"
#include "sim/policies/parts/decaying_scores.h"
#include "sim/policies/parts/selection.h"
#include "sim/policy.h"

namespace thermocline {

class ThresholdSet {
 public:
  struct Rules {
    uint32_t halflife = 32;  // of the scores, steps
    double gamma = 1;        // demotion threshold over promotion threshold
    double eta = 0.1;        // of the quantile
    bool by_layer = false;
  };
  explicit ThresholdSet(const Rules& rules) : rules_(rules), scores_(rules.halflife) {}

  // Hot are the most frequent of the profile, by section.
  void start(const PolicyContext& context, HotSet& hot);
  void step(const ActiveStep& active, const HotSet& hot, double wanted, Moves& moves);

  // Of the step before; means over the sections.
  double threshold() const;
  double quantile() const;

 private:
  struct Section {
    size_t first_word, word_count;
    uint64_t neuron_count;
    uint64_t budget;
    uint64_t hot_count = 0;
    double quantile = 0, threshold = 0;
    uint64_t above = 0;         // neurons at or above the quantile
    uint64_t victim_count = 0;  // bits of victims_
    BitCursor cursor = {};      // of the next victim
  };

  void make_sections(const PolicyContext& context);
  void fill(const ActivationProfile& profile, HotSet& hot);
  void score(Section& section, const ActiveStep& active, const HotSet& hot);
  uint64_t count_above(uint64_t least, size_t first, size_t count) const;
  void propose(double wanted, Moves& moves);
  void evict_next(Section& section, Moves& moves);
  Section& section_of(uint32_t place);

  const Rules rules_;
  DecayingScores scores_;
  std::vector<Section> sections_;
  std::vector<uint64_t> candidates_, victims_;  // bits
  Selection<uint16_t, Extreme::strongest> strongest_;
  uint64_t admit_count_max_ = 0;
};

}  // namespace thermocline
