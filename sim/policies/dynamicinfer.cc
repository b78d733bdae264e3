// dynamicinfer (P10'): predicted activity and long-run frequency, at most so many swaps a step.
//
// After DynamicInfer (OpenReview, 2025), which keeps per layer the neurons with the largest
//   v_i = ahat_i(t+1) + lambda f_i
// and swaps at most S_max = bandwidth * window / bundle of them per step. Here
//   ahat_i, the predicted activity, is the exponentially weighted share of the current request's
//     steps in which the neuron was active (parts/decaying_scores.h), zero when it begins;
//   f_i is its share of the profile's steps, and the budget B is split evenly: B_l neurons a layer,
//     what is left over to the first layers.
// Every `period` steps the top B_l of each layer are searched. Until the next search, those of them
// that are cold enter, min(swaps, migration limit) a step, by falling distance from the least v_i
// among their layer's top, ties by index; each takes the place of its layer's weakest hot neuron
// outside the top.
//
// What differs. The paper predicts with a trained predictor and moves its activation threshold to
// balance the two devices, which changes the arithmetic and is no hot set; its published form is
// searched anew each step (period=1). A request ends where a step names a later one; in a batch,
// where the steps of several alternate, none is seen to end, and decay alone forgets.
#include <algorithm>

#include "sim/policies/parts/decaying_scores.h"
#include "sim/policies/parts/selection.h"
#include "sim/policies/parts/top_places.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint32_t kMost = UINT16_MAX;

class DynamicInfer final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {halflife_parameter(16, {4, 8, 32, 64}),
            {"lambda",
             0.5,
             0,
             1,
             "weight of the profile beside the request's own activity",
             false,
             {},
             {0.25, 1}},
            {"swaps", 0, 0, 1e9, "swaps per step and pool; 0: the migration limit alone", true},
            {"period", 16, 1, 1024, "steps between two searches", true, {}, {1, 4, 8}}};
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
    for (uint64_t i = 0; i < swap_count_max_ && next_ < enter_.size(); ++i, ++next_) {
      swap_in(enter_[next_].place, moves);
    }
  }

 private:
  // A layer between two searches.
  struct Layer {
    uint64_t hot_max;  // B_l
    uint64_t room;     // of that, not hot
    uint16_t least;    // v among the top, of the last search
    size_t leave;      // into leave_: the next
  };

  void split(uint64_t budget) {
    hot_count_max_ = budget;
    layers_.clear();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      const uint64_t of_layer = budget / pool_.layer_count + (layer < budget % pool_.layer_count);
      layers_.push_back({of_layer, 0, 0, 0});
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
    std::vector<uint64_t> filled(layers_.size());
    for (const uint32_t flat : ranked_by_count(profile.counts)) {
      const uint32_t layer = flat / pool_.neuron_count;
      if (filled[layer] == layers_[layer].hot_max) continue;
      ++filled[layer];
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
    enter_.clear();
    next_ = 0;
    const size_t stride = pool_.words_per_layer();
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      uint16_t& least = layers_[layer].least;
      least = mark_top(std::span(values_).subspan(64 * stride * layer, 64 * stride),
                       std::span(neurons_).subspan(stride * layer, stride), layers_[layer].hot_max,
                       std::span(target_).subspan(stride * layer, stride), least);
      for (size_t w = stride * layer; w < stride * (layer + 1); ++w) {
        for_each_place(w, target_[w] & ~hot.words()[w], [&](uint32_t place) {
          enter_.push_back({kMost - (uint32_t{values_[place]} - least), place});
        });
      }
    }
    keep_best(std::min(swap_count_max_, pool_.total()) * period_);
    note_leaving(hot);
  }

  // Of what could enter, as much as may until the next search, best first.
  void keep_best(uint64_t wanted) {
    uint32_t bound = kMost;
    if (enter_.size() > wanted) {
      histogram_.clear();
      for (const ScoredPlace& item : enter_) histogram_.add(item.score);
      const uint32_t bucket = histogram_.bucket_reaching(wanted).first;
      bound = static_cast<uint32_t>(ScoreHistogram::first_of(bucket + 1) - 1);
      std::erase_if(enter_, [bound](const ScoredPlace& item) { return item.score > bound; });
    }
    sort_by_score(enter_, scratch_, bound);
    if (enter_.size() > wanted) enter_.resize(wanted);
  }

  // Of each layer as many as are to enter it, weakest first.
  void note_leaving(const HotSet& hot) {
    entering_.assign(layers_.size(), 0);
    const uint32_t places = 64 * pool_.words_per_layer();
    for (const ScoredPlace& item : enter_) ++entering_[item.place / places];
    leave_.clear();
    const size_t stride = pool_.words_per_layer();
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
      const std::span<const uint64_t> row = hot.words().subspan(stride * layer, stride);
      layers_[layer].room = layers_[layer].hot_max - bit_sums().count(row.data(), stride);
      layers_[layer].leave = leave_.size();
      if (entering_[layer] == 0) continue;
      for (size_t w = stride * layer; w < stride * (layer + 1); ++w) {
        for_each_place(w, hot.words()[w] & ~target_[w], [&](uint32_t place) {
          leave_.push_back(uint64_t{values_[place]} << 32 | place);
        });
      }
      keep_weakest(layers_[layer].leave, entering_[layer]);
    }
  }

  void keep_weakest(size_t first, size_t wanted) {
    const auto begin = leave_.begin() + static_cast<ptrdiff_t>(first);
    if (leave_.size() - first > wanted) {
      const auto last = begin + static_cast<ptrdiff_t>(wanted);
      std::nth_element(begin, last, leave_.end());
      leave_.erase(last, leave_.end());
    }
    std::sort(begin, leave_.end());
  }

  void swap_in(uint32_t place, Moves& moves) {
    Layer& layer = layers_[place / (64 * pool_.words_per_layer())];
    if (layer.room > 0) {
      --layer.room;
    } else {
      const auto weakest = static_cast<uint32_t>(leave_[layer.leave++]);
      moves.evict.push_back(scores_.places().flat_of(weakest));
    }
    moves.admit.push_back(scores_.places().flat_of(place));
  }

  // v, halved to fit: all of it in 16 bits, as compilers like it.
  void add_up() {
    const auto one = static_cast<uint16_t>(std::min<uint64_t>(scores_.score_of(lambda_), kMost));
    const std::span<const uint16_t> scores = scores_.scores();
    for (size_t i = 0; i < values_.size(); ++i) {
      const uint16_t recent = scores[i];
      const auto long_run = static_cast<uint16_t>(uint32_t{shares_[i]} * one >> 16);
      const auto half_differing = static_cast<uint16_t>((recent ^ long_run) >> 1);
      values_[i] = static_cast<uint16_t>((recent & long_run) + half_differing);
    }
  }

  DecayingScores scores_;  // ahat
  const double lambda_;
  const uint64_t swaps_, period_;
  NeuronPool pool_;
  PolicyContext unprofiled_;  // from which a request starts
  uint64_t hot_count_max_ = 0, swap_count_max_ = 0;
  uint64_t step_ = 0;
  uint32_t newest_ = 0;    // request
  bool in_turns_ = false;  // a step named an earlier request again
  std::vector<Layer> layers_;
  std::vector<uint16_t> shares_;            // f, by place
  std::vector<uint16_t> values_;            // v
  std::vector<uint64_t> neurons_, target_;  // bits
  std::vector<ScoredPlace> enter_;          // score: kMost less the distance from the least
  std::vector<uint64_t> leave_;             // by layer: v, then place in the lower half
  std::vector<ScoredPlace> scratch_;
  std::vector<uint32_t> entering_;  // by layer
  ScoreHistogram histogram_;
  size_t next_ = 0;  // into enter_
};

}  // namespace

THERMOCLINE_POLICY(dynamicinfer, "DynamicInfer: recent activity and profile, few swaps a step",
                   DynamicInfer);

}  // namespace thermocline
