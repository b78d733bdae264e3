// ewma: a dynamic hot threshold. Memory stays at the budget; the threshold moves.
//
// Score of neuron i, the exponentially weighted share of recent steps in which it was active:
//   e_i(t) = (1 - alpha) e_i(t-1) + alpha a_i(t),   alpha = 1 - 2^(-1/halflife),   e_i(0) = phi_i
// with a_i(t) in {0,1} and phi_i its share of the profile's steps. The B neurons (the budget) with
// the largest phi_i start hot. After each step, with theta_lo the smallest score in the hot set
// outside residency,
//   theta_hi(t) = max(theta_lo(t) / gamma, floor)
// and a cold neuron that was active and has e_i > theta_hi takes the place of the hot neuron at
// theta_lo; the next weakest then defines theta_lo, so that theta rises with every swap. The best
// scores enter first; at most `cap` enter per step, and a neuron stays for `residency` steps.
// theta_hi is the hot threshold: (promote at theta_hi, demote at theta_lo = gamma theta_hi, minimum
// residency, cap) is the classical EWMA with hysteresis; letting the budget set theta_lo makes it
// the (1 - B/N) quantile of the scores, as a budget-tracking quantile does by stochastic
// approximation (Robbins and Monro 1951), but exact.
//
// Arithmetic. No score decays: the weight of a step grows instead, by 2^(1/halflife) per step, and
// an active neuron adds that weight to an integer E_i; e_i = alpha E_i / weight. When the weight
// reaches its limit, all are shifted down by 8 bits. Every decision compares integers; the weight
// comes from IEEE products alone, so that all machines decide alike.
// Cost per step: the active neurons, and every `period` steps (or when the known victims run out)
// two passes over the hot ones that find the next victims with a histogram.
#include <algorithm>
#include <bit>
#include <deque>

#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr double kWeightMax = 1 << 20;  // times 1/alpha (1478 at halflife 1024) fits 32 bits
constexpr int kShift = 8;               // bits dropped when the weight reaches its maximum
constexpr uint64_t kGammaOne = 1024;    // gamma as a fraction of this
constexpr uint32_t kHistogramBits = 12;
constexpr uint64_t kVictimsMin = 64, kVictimsMax = 65536;  // of one search

double power(double base, uint32_t exponent) {
  double result = 1.0;
  for (; exponent != 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

// 2^(1/halflife) by bisection: products only, where exp2 differs between mathematics libraries.
double growth_of(uint32_t halflife) {
  double low = 1.0, high = 2.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (power(middle, halflife) <= 2.0 ? low : high) = middle;
  }
  return low;
}

struct ScoredNeuron {
  uint32_t score;  // E_i
  uint32_t flat;
};
bool weaker(const ScoredNeuron& a, const ScoredNeuron& b) {
  return a.score != b.score ? a.score < b.score : a.flat < b.flat;
}
bool stronger(const ScoredNeuron& a, const ScoredNeuron& b) {
  return a.score != b.score ? a.score > b.score : a.flat < b.flat;
}

class Ewma final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        {"halflife", 32, 1, 1024, "steps after which an activation counts half", true},
        {"gamma", 0.5, 0.01, 1.0, "demotion threshold as a share of the promotion threshold"},
        {"floor", 0.0, 0.0, 1.0, "score below which nothing is promoted"},
        {"residency", 16, 0, 4096, "steps that a promoted neuron stays at least", true},
        {"cap", 0, 0, 1e9, "promotions per step and pool; 0: the migration limit alone", true},
        {"period", 8, 1, 1024, "steps between two searches for the weakest hot neurons", true},
    };
  }

  explicit Ewma(const PolicyValues& values)
      : growth_(growth_of(static_cast<uint32_t>(values.at("halflife")))),
        alpha_(1.0 - 1.0 / growth_),
        floor_(values.at("floor")),
        gamma_(static_cast<uint64_t>(values.at("gamma") * kGammaOne + 0.5)),
        residency_(static_cast<uint64_t>(values.at("residency"))),
        cap_(static_cast<uint64_t>(values.at("cap"))),
        period_(static_cast<uint64_t>(values.at("period"))) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    const ActivationProfile& profile = *context.profile;
    pool_ = context.pool;
    swap_count_max_ = cap_ == 0 ? context.admit_count_max : std::min(cap_, context.admit_count_max);
    swap_count_max_ = std::min(swap_count_max_, pool_.total());
    scores_.resize(pool_.total());
    resident_.resize(pool_.words_per_step());
    const double scale =
        weight_ / alpha_ / static_cast<double>(std::max<uint64_t>(profile.step_count, 1));
    for (size_t i = 0; i < scores_.size(); ++i) {
      scores_[i] =
          static_cast<uint32_t>(std::min<double>(profile.counts[i] * scale, weight_ / alpha_));
    }
    fill_hottest(profile, context.hot_count_max, 0, hot);
    find_victims(hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    ++step_;
    grow_weight();
    release_residents();
    drop_revived_victims();
    if (victims_.empty() || step_ >= search_step_) find_victims(hot);
    score_active(active, hot);
    propose(moves);
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  void grow_weight() {
    weight_ *= growth_;
    if (weight_ < kWeightMax) return;
    weight_ /= 1 << kShift;
    for (uint32_t& score : scores_) score >>= kShift;
    for (ScoredNeuron& victim : victims_) victim.score >>= kShift;
  }

  // Adds this step to the scores and collects the cold neurons above the threshold.
  void score_active(const ActiveStep& active, const HotSet& hot) {
    const uint64_t score_min = promotion_score();
    const auto increment = static_cast<uint32_t>(weight_);
    const uint32_t stride = pool_.words_per_layer();
    candidates_.clear();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      for (uint32_t w = 0; w < stride; ++w) {
        const size_t at = size_t{layer} * stride + w;
        const uint64_t word = active.words[at], hot_word = hot.words()[at];
        const uint32_t base = layer * pool_.neuron_count + w * 64;
        for (uint64_t left = word & hot_word; left != 0; left &= left - 1) {
          scores_[base + static_cast<uint32_t>(std::countr_zero(left))] += increment;
        }
        for (uint64_t left = word & ~hot_word; left != 0; left &= left - 1) {
          const uint32_t flat = base + static_cast<uint32_t>(std::countr_zero(left));
          const uint32_t score = scores_[flat] += increment;
          if (score >= score_min) candidates_.push_back({score, flat});
        }
      }
    }
  }

  // The smallest score E that is above theta_hi, and theta_hi itself for the record. Without a
  // victim nothing may enter: the threshold is out of reach and its last value is kept.
  uint64_t promotion_score() {
    if (victims_.empty()) return UINT64_MAX;
    const uint64_t over_victim = uint64_t{victims_.front().score} * kGammaOne / gamma_ + 1;
    const auto over_floor = static_cast<uint64_t>(floor_ * weight_ / alpha_);
    const uint64_t score = std::max(over_victim, over_floor);
    threshold_ = static_cast<double>(score) * alpha_ / weight_;
    return score;
  }

  void propose(Moves& moves) {
    const size_t count = std::min<size_t>(candidates_.size(), swap_count_max_);
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(count),
                      candidates_.end(), stronger);
    for (size_t i = 0; i < count; ++i) {
      drop_revived_victims();
      if (candidates_[i].score < promotion_score()) break;
      moves.evict.push_back(victims_.front().flat);
      moves.admit.push_back(candidates_[i].flat);
      victims_.pop_front();
      settle(candidates_[i].flat);
    }
  }

  // A victim that fired since the search is not among the weakest any more.
  void drop_revived_victims() {
    while (!victims_.empty() && scores_[victims_.front().flat] != victims_.front().score) {
      victims_.pop_front();
    }
  }

  // The weakest hot neurons outside residency, enough for the swaps of one period, weakest first.
  void find_victims(const HotSet& hot) {
    search_step_ = step_ + period_;
    victims_.clear();
    const uint64_t wanted = std::clamp(period_ * swap_count_max_, kVictimsMin, kVictimsMax);
    const uint32_t border = border_score(hot, wanted);
    std::vector<ScoredNeuron> weak;
    for_each_evictable(hot, [&](uint32_t flat) {
      if (scores_[flat] <= border) weak.push_back({scores_[flat], flat});
    });
    std::sort(weak.begin(), weak.end(), weaker);
    victims_.assign(weak.begin(),
                    weak.begin() + static_cast<ptrdiff_t>(std::min<size_t>(weak.size(), wanted)));
  }

  // A score that at least `wanted` evictable neurons (or all) do not exceed, from a histogram.
  uint32_t border_score(const HotSet& hot, uint64_t wanted) const {
    const auto width =
        static_cast<uint32_t>(std::bit_width(static_cast<uint32_t>(weight_ / alpha_)));
    const uint32_t shift = width > kHistogramBits ? width - kHistogramBits : 0;
    std::vector<uint32_t> histogram((size_t{1} << kHistogramBits) + 1);
    const uint32_t last = static_cast<uint32_t>(histogram.size()) - 1;
    for_each_evictable(hot,
                       [&](uint32_t flat) { ++histogram[std::min(scores_[flat] >> shift, last)]; });
    uint64_t below = 0;
    for (uint32_t bucket = 0; bucket < last; ++bucket) {
      below += histogram[bucket];
      if (below >= wanted) return ((bucket + 1) << shift) - 1;
    }
    return UINT32_MAX;
  }

  template <class Visit>
  void for_each_evictable(const HotSet& hot, Visit visit) const {
    const uint32_t stride = pool_.words_per_layer();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      for (uint32_t w = 0; w < stride; ++w) {
        const size_t at = size_t{layer} * stride + w;
        const uint32_t base = layer * pool_.neuron_count + w * 64;
        for (uint64_t word = hot.words()[at] & ~resident_[at]; word != 0; word &= word - 1) {
          visit(base + static_cast<uint32_t>(std::countr_zero(word)));
        }
      }
    }
  }

  void settle(uint32_t flat) {
    if (residency_ == 0) return;
    toggle_resident(flat);
    settled_.push_back({step_, flat});
  }

  void release_residents() {
    while (!settled_.empty() && settled_.front().step + residency_ <= step_) {
      toggle_resident(settled_.front().flat);
      settled_.pop_front();
    }
  }

  void toggle_resident(uint32_t flat) {
    const uint32_t neuron = flat % pool_.neuron_count;
    resident_[uint64_t{flat / pool_.neuron_count} * pool_.words_per_layer() + neuron / 64] ^=
        uint64_t{1} << (neuron % 64);
  }

  struct Settled {
    uint64_t step;
    uint32_t flat;
  };

  const double growth_;  // of the weight, per step
  const double alpha_;
  const double floor_;
  const uint64_t gamma_;  // of kGammaOne
  const uint64_t residency_;
  const uint64_t cap_;
  const uint64_t period_;
  uint64_t swap_count_max_ = 0;  // per step

  NeuronPool pool_;
  double weight_ = kWeightMax / (1 << kShift);  // of an activation at this step
  std::vector<uint32_t> scores_;                // E_i (layer_count, neuron_count)
  std::vector<uint64_t> resident_;              // bits of the hot neurons that may not leave yet
  std::deque<Settled> settled_;                 // these, in order of promotion
  std::deque<ScoredNeuron> victims_;  // the weakest hot neurons of the last search, weakest first
  std::vector<ScoredNeuron> candidates_;
  std::optional<double> threshold_;
  uint64_t step_ = 0;
  uint64_t search_step_ = 0;  // when the next search is due
};

}  // namespace

THERMOCLINE_POLICY(ewma, "dynamic threshold: decaying activity with hysteresis, at the budget",
                   Ewma);

}  // namespace thermocline
