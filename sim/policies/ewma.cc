// ewma (P4): a dynamic hot threshold. Memory stays at the budget; the threshold moves.
//
// Score of neuron i, the exponentially weighted share of recent steps in which it was active
// (parts/decaying_scores.h has its arithmetic, in integers of 16 bits):
//   e_i(t) = (1 - alpha) e_i(t-1) + alpha a_i(t),   alpha = 1 - 2^(-1/halflife),   e_i(0) = phi_i
// with a_i(t) in {0,1} and phi_i its share of the profile's steps. The B neurons (the budget) with
// the largest phi_i start hot. After each step, with theta_lo the smallest score in the hot set
// outside residency,
//   theta_hi(t) = max(theta_lo(t) / gamma, floor)
// and a cold neuron that was active and has e_i > theta_hi takes the place of the hot neuron at
// theta_lo; the next weakest then defines theta_lo, so that theta rises with every swap. The best
// scores enter first, ties by index; at most `cap` enter per step, and a neuron stays for
// `residency` steps. While the hot set is below the budget (no profile), theta_hi is the floor.
// theta_hi is the hot threshold: (promote at theta_hi, demote at theta_lo = gamma theta_hi, minimum
// residency, cap) is the classical EWMA with hysteresis; letting the budget set theta_lo makes it
// the (1 - B/N) quantile of the scores, as a budget-tracking quantile does by stochastic
// approximation (Robbins and Monro 1951, policy quantile), but exact.
//
// The weakest hot neurons are searched for every `period` steps, and when those known have run out
// (parts/weakest_hot.h); one that was active since the search is not among them any more.
#include <array>

#include "sim/policies/parts/decaying_scores.h"
#include "sim/policies/parts/residents.h"
#include "sim/policies/parts/selection.h"
#include "sim/policies/parts/weakest_hot.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint64_t kGammaOne = 1024;                       // gamma as a fraction of this
constexpr uint64_t kVictimsMin = 64, kVictimsMax = 65536;  // of one search

class Ewma final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        halflife_parameter(32, {8, 16, 64, 128, 256}),
        {"gamma",
         0.5,
         0.01,
         1.0,
         "demotion threshold as a share of the promotion threshold",
         false,
         {},
         {0.7, 0.9}},
        {"floor", 0.0, 0.0, 1.0, "score below which nothing is promoted"},
        {"residency", 16, 0, 4096, "steps that a promoted neuron stays at least", true},
        {"cap", 0, 0, 1e9, "promotions per step and pool; 0: the migration limit alone", true},
        {"period", 8, 1, 1024, "steps between two searches for the weakest hot neurons", true},
    };
  }

  explicit Ewma(const PolicyValues& values)
      : scores_(static_cast<uint32_t>(values.at("halflife"))),
        residents_(static_cast<uint64_t>(values.at("residency"))),
        floor_(values.at("floor")),
        gamma_(static_cast<uint64_t>(values.at("gamma") * kGammaOne + 0.5)),
        cap_(static_cast<uint64_t>(values.at("cap"))),
        period_(static_cast<uint64_t>(values.at("period"))) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    hot_count_max_ = context.hot_count_max;
    swap_count_max_ = cap_ == 0 ? context.admit_count_max : std::min(cap_, context.admit_count_max);
    swap_count_max_ = std::min(swap_count_max_, context.pool.total());
    scores_.start(context);
    residents_.start(context.pool.words_per_step());
    candidates_.resize(context.pool.words_per_step());
    if (context.profile != nullptr) fill_hottest(*context.profile, hot_count_max_, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    ++step_;
    if (scores_.begin_step(active.words)) {
      victims_.change_scores([](uint32_t score) { return score >> 1; });
    }
    residents_.release(step_);
    if (swap_count_max_ == 0 || hot_count_max_ == 0) return;
    if (step_ >= search_step_ || victims_.weakest(scores_.scores()) == nullptr) find_victims(hot);
    score_active(active, hot);
    propose(hot, moves);
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  // Adds this step to the scores and marks the cold neurons above the threshold.
  void score_active(const ActiveStep& active, const HotSet& hot) {
    const uint64_t score_min = promotion_score(hot.count());
    for_each_score_block(candidates_.size(), [&](size_t first, size_t count) {
      scores_.add(active.words, first, count);
      scores_.at_least(score_min, first, count, candidates_.data() + first);
      for (size_t w = first; w < first + count; ++w) {
        candidates_[w] &= active.words[w] & ~hot.words()[w];
      }
    });
  }

  // The smallest score E that is above theta_hi, and theta_hi itself for the record. Without room
  // and victim nothing may enter: the threshold is out of reach and its last value is kept.
  uint64_t promotion_score(uint64_t hot_count) {
    uint64_t score = scores_.score_of(floor_);
    if (hot_count >= hot_count_max_) {
      const ScoredPlace* victim = victims_.weakest(scores_.scores());
      if (victim == nullptr) return UINT64_MAX;
      score = std::max(score, uint64_t{victim->score} * kGammaOne / gamma_ + 1);
    }
    threshold_ = scores_.share_of(score);
    return score;
  }

  void propose(const HotSet& hot, Moves& moves) {
    uint64_t hot_count = hot.count();
    for (const ScoredPlace& best : strongest_.search(scores_.scores(), swap_count_max_,
                                                     [&](size_t w) { return candidates_[w]; })) {
      if (best.score < promotion_score(hot_count)) break;
      if (hot_count < hot_count_max_) {
        ++hot_count;
      } else {
        moves.evict.push_back(scores_.places().flat_of(victims_.weakest(scores_.scores())->place));
        victims_.pop();
      }
      moves.admit.push_back(scores_.places().flat_of(best.place));
      residents_.settle(best.place, step_);
    }
  }

  // Enough for the swaps of one period.
  void find_victims(const HotSet& hot) {
    search_step_ = step_ + period_;
    const uint64_t wanted = std::clamp(period_ * swap_count_max_, kVictimsMin, kVictimsMax);
    victims_.search(scores_.scores(), wanted,
                    [&](size_t w) { return hot.words()[w] & ~residents_.word(w); });
  }

  DecayingScores scores_;
  Residents residents_;
  WeakestHot<uint16_t> victims_;
  Selection<uint16_t, Extreme::strongest> strongest_;
  std::vector<uint64_t> candidates_;  // bits
  const double floor_;
  const uint64_t gamma_;  // of kGammaOne
  const uint64_t cap_;
  const uint64_t period_;
  uint64_t swap_count_max_ = 0;  // per step
  uint64_t hot_count_max_ = 0;
  std::optional<double> threshold_;
  uint64_t step_ = 0;
  uint64_t search_step_ = 0;  // when the next search is due
};

}  // namespace

THERMOCLINE_POLICY(ewma, "dynamic threshold: decaying activity with hysteresis, at the budget",
                   Ewma);

}  // namespace thermocline
