// dynamicinfer (P10'): predicted activity and long-run frequency, at most so many swaps a step.
//
// After DynamicInfer (OpenReview, 2025), which keeps per layer the neurons with the largest
//   v_i = ahat_i(t+1) + lambda f_i
// and swaps at most S_max = bandwidth * window / bundle of them per step. Here
//   ahat_i, the predicted activity, is the exponentially weighted share of the current request's
//     steps in which the neuron was active (parts/decaying_scores.h), zero when it begins;
//   f_i is its share of the profile's steps, and the budget B is split evenly: B_l neurons a layer,
//     what is left over to the first layers.
// Every `period` steps the top B_l of each layer are searched. Neurons that would enter and leave a
// layer are paired, the best with the weakest, and pairs of all layers are swapped by falling gain,
// min(swaps, migration limit) a step, until the next search; ties by layer, then by rank.
//
// What differs. The paper predicts with a trained predictor and moves its activation threshold to
// balance the two devices, which changes the arithmetic and is no hot set; its published form is
// searched anew each step (period=1). A request ends where a step names a later one; in a batch,
// where the steps of several alternate, none is seen to end, and decay alone forgets.
#include <algorithm>

#include "sim/policies/parts/decaying_scores.h"
#include "sim/policies/parts/top_places.h"
#include "sim/policies/parts/weakest_hot.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint32_t kMost = UINT16_MAX;

class DynamicInfer final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"halflife",
             16,
             1,
             DecayingScores::kHalflifeMax,
             "steps after which an activation counts half",
             true,
             {},
             {4, 8, 32, 64}},
            {"lambda",
             0.5,
             0,
             1,
             "weight of the profile beside the request's own activity",
             false,
             {},
             {0.25, 1}},
            {"swaps", 0, 0, 1e9, "swaps per step and pool; 0: the migration limit alone", true},
            {"period", 8, 1, 1024, "steps between two searches", true, {}, {1, 4, 16}}};
  }
  explicit DynamicInfer(const PolicyValues& values)
      : scores_(static_cast<uint32_t>(values.at("halflife"))),
        lambda_(values.at("lambda")),
        swaps_(static_cast<uint64_t>(values.at("swaps"))),
        period_(static_cast<uint64_t>(values.at("period"))) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    pool_ = context.pool;
    unprofiled_ = context;
    unprofiled_.profile = nullptr;
    scores_.start(unprofiled_);
    const uint64_t limit = context.admit_count_max;
    swap_count_max_ = swaps_ == 0 ? limit : std::min(swaps_, limit);
    shares_.assign(scores_.places().size(), 0);
    values_.resize(shares_.size());
    neurons_ = bits_of_neurons(pool_);
    target_.resize(neurons_.size());
    split(std::min(context.hot_count_max, pool_.total()));
    if (context.profile == nullptr) return;
    note_shares(*context.profile);
    fill_layers(*context.profile, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (swap_count_max_ == 0 || hot_count_max_ == 0) return;
    begin_request(active.task);
    scores_.begin_step(active.words);
    scores_.add(active.words, 0, active.words.size());
    if (step_++ % period_ == 0) search(hot);
    for (uint64_t i = 0; i < swap_count_max_ && next_ < order_.size(); ++i, ++next_) {
      const Swap& swap = swaps_by_layer_[order_[next_].place];
      if (swap.leaves != kNobody) moves.evict.push_back(swap.leaves);
      moves.admit.push_back(swap.enters);
    }
  }

 private:
  static constexpr uint32_t kNobody = UINT32_MAX;
  struct Swap {
    uint32_t enters, leaves;  // flat indices; kNobody leaves a layer that is not full
  };

  void split(uint64_t budget) {
    hot_count_max_ = budget;
    layer_max_.clear();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      layer_max_.push_back(budget / pool_.layer_count + (layer < budget % pool_.layer_count));
    }
  }

  void note_shares(const ActivationProfile& profile) {
    const uint64_t steps = std::max<uint64_t>(profile.step_count, 1);
    for (uint32_t flat = 0; flat < pool_.total(); ++flat) {
      const uint64_t share = uint64_t{profile.counts[flat]} * kMost / steps;
      shares_[scores_.places().place_of(flat)] =
          static_cast<uint16_t>(std::min<uint64_t>(share, kMost));
    }
  }

  void fill_layers(const ActivationProfile& profile, HotSet& hot) {
    std::vector<uint64_t> left = layer_max_;
    for (const uint32_t flat : ranked_by_count(profile.counts)) {
      uint64_t& of_layer = left[flat / pool_.neuron_count];
      if (of_layer == 0) continue;
      --of_layer;
      hot.insert(flat);
    }
  }

  void begin_request(uint32_t task) {
    if (task < newest_) in_turns_ = true;
    if (task <= newest_) return;
    newest_ = task;
    if (!in_turns_) scores_.start(unprofiled_);
  }

  void search(const HotSet& hot) {
    add_up();
    swaps_by_layer_.clear();
    order_.clear();
    next_ = 0;
    const size_t stride = pool_.words_per_layer();
    for (size_t layer = 0; layer < pool_.layer_count; ++layer) {
      mark_top(std::span(values_).subspan(64 * stride * layer, 64 * stride),
               std::span(neurons_).subspan(stride * layer, stride), layer_max_[layer],
               std::span(target_).subspan(stride * layer, stride));
      pair_layer(hot, stride * layer, stride);
    }
    sort_by_score(order_, scratch_, kMost);
  }

  // v, halved to fit 16 bits: the scores' share of one is at most 65535.
  void add_up() {
    const auto one = static_cast<uint32_t>(std::min<uint64_t>(scores_.score_of(lambda_), kMost));
    const std::span<const uint16_t> scores = scores_.scores();
    for (size_t i = 0; i < values_.size(); ++i) {
      const auto long_run = static_cast<uint16_t>(uint32_t{shares_[i]} * one >> 16);
      values_[i] = static_cast<uint16_t>((uint32_t{scores[i]} + long_run) >> 1);
    }
  }

  void pair_layer(const HotSet& hot, size_t begin, size_t count) {
    enter_.clear();
    leave_.clear();
    for (size_t w = begin; w < begin + count; ++w) {
      const uint64_t in = target_[w], was = hot.words()[w];
      for_each_place(w, in & ~was, [&](uint32_t i) {
        enter_.push_back({kMost - uint32_t{values_[i]}, i});
      });
      for_each_place(w, was & ~in, [&](uint32_t i) { leave_.push_back({values_[i], i}); });
    }
    sort_by_score(enter_, scratch_, kMost);
    sort_by_score(leave_, scratch_, kMost);
    for (size_t i = 0; i < enter_.size(); ++i) {
      const uint32_t enters = kMost - enter_[i].score;  // at least what leaves: both are sorted
      const bool full = i < leave_.size();
      order_.push_back({kMost - (full ? enters - leave_[i].score : enters),
                        static_cast<uint32_t>(swaps_by_layer_.size())});
      swaps_by_layer_.push_back({scores_.places().flat_of(enter_[i].place),
                                 full ? scores_.places().flat_of(leave_[i].place) : kNobody});
    }
  }

  DecayingScores scores_;  // ahat
  const double lambda_;
  const uint64_t swaps_, period_;
  NeuronPool pool_;
  PolicyContext unprofiled_;  // from which a request starts
  uint64_t hot_count_max_ = 0, swap_count_max_ = 0;
  uint64_t step_ = 0;
  uint32_t newest_ = 0;                     // request
  bool in_turns_ = false;                   // a step named an earlier request again
  std::vector<uint64_t> layer_max_;         // B_l
  std::vector<uint16_t> shares_;            // f, by place
  std::vector<uint16_t> values_;            // v
  std::vector<uint64_t> neurons_, target_;  // bits
  std::vector<Swap> swaps_by_layer_;
  std::vector<ScoredPlace> order_;  // of these, by falling gain; `place` is an index into them
  std::vector<ScoredPlace> enter_, leave_, scratch_;
  size_t next_ = 0;  // into order_
};

}  // namespace

THERMOCLINE_POLICY(dynamicinfer, "DynamicInfer: recent activity and profile, few swaps a step",
                   DynamicInfer);

}  // namespace thermocline
