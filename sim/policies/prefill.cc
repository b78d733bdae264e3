// prefill (P10): the set that a request's own prompt chooses, fixed while it decodes.
//
// GRIFFIN (Dong, Chen and Chi, COLM 2024) ranks the neurons of a layer by
//   s_j^2 = sum over prompt positions t of (z_tj / |z_t|)^2, which for activity bits is
//   s_j^2 = sum over prompt positions of a_j / |A|,   |A| the layer's active neurons there.
// At the first decode step after a prompt, the B neurons (the budget) with the largest
//   v_j = (1 - w) phi_j + w p_j,   p_j = s_j^2 / (sum over prompt positions of 1 / |A|)
// become the target, which is reached within the migration limit over the next steps: what enters
// by falling v, what leaves by rising v. phi_j is the share of the profile's steps in which the
// neuron fired. Nothing else moves in decode; the next prompt starts from zero.
//
// What differs. s_j^2 instead of s_j, divided by the most that a neuron of the layer could have:
// within a layer the order is GRIFFIN's, and p_j is a share of positions, as phi_j is, so that the
// two can be added and layers compared. So the budget is the whole model's, not a part of each
// layer's. GRIFFIN computes with the chosen neurons alone; here the others are merely cold.
//
// Batches: a prompt that begins after the last target was chosen starts from zero; prompts that
// begin before it are added up with those before. Arithmetic: a position counts
// round(16 n / |A|) at each of its active neurons, at most 8192, n the neurons of the layer; a
// layer's sums are halved where their bound would outgrow 16 bits.
#include <algorithm>

#include "sim/policies/parts/move_plan.h"
#include "sim/policies/parts/top_places.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint32_t kUnit = 16, kWeightMax = 8192;
constexpr uint64_t kOne = 65536;  // w and v = 1

class Prefill final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"w",
             0.5,
             0,
             1,
             "weight of the prompt; the rest is the profile's",
             false,
             {},
             {0.25, 0.75, 1}}};
  }
  explicit Prefill(const PolicyValues& values)
      : weight_(static_cast<uint32_t>(values.at("w") * kOne + 0.5)) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    pool_ = context.pool;
    hot_count_max_ = std::min(context.hot_count_max, pool_.total());
    admit_count_max_ = context.admit_count_max;
    places_ = ScorePlaces(pool_);
    neurons_ = bits_of_neurons(pool_);
    target_.resize(neurons_.size());
    shares_.assign(places_.size(), 0);
    sums_.assign(places_.size(), 0);
    values_.resize(places_.size());
    bounds_.assign(pool_.layer_count, 0);
    if (context.profile == nullptr) return;
    note_shares(*context.profile);
    fill_hottest(*context.profile, hot_count_max_, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (hot_count_max_ == 0 || admit_count_max_ == 0) return;
    if (active.prompt) {
      begin_prompt(active.task);
      for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) add(active, layer);
    } else if (!chosen_ && is_summed(active.task)) {
      choose(hot);
    }
    plan_.next(hot, hot_count_max_, admit_count_max_, places_, moves);
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  void note_shares(const ActivationProfile& profile) {
    const uint64_t steps = std::max<uint64_t>(profile.step_count, 1);
    for (uint32_t flat = 0; flat < pool_.total(); ++flat) {
      const uint64_t share = uint64_t{profile.counts[flat]} * (kOne - 1) / steps;
      shares_[places_.place_of(flat)] = static_cast<uint16_t>(std::min(share, kOne - 1));
    }
  }

  bool is_summed(uint32_t task) const {
    return std::find(tasks_.begin(), tasks_.end(), task) != tasks_.end();
  }

  void begin_prompt(uint32_t task) {
    if (!is_summed(task)) {
      if (chosen_) {
        tasks_.clear();
        std::fill(sums_.begin(), sums_.end(), uint16_t{0});
        std::fill(bounds_.begin(), bounds_.end(), 0u);
      }
      tasks_.push_back(task);
    }
    chosen_ = false;
  }

  // One position of a prompt.
  void add(const ActiveStep& active, uint32_t layer) {
    const std::span<const uint64_t> words = active.layer(layer).words;
    const auto count = static_cast<uint32_t>(bit_sums().count(words.data(), words.size()));
    if (count == 0) return;
    const uint64_t share = (uint64_t{kUnit} * pool_.neuron_count + count / 2) / count;
    const auto weight = static_cast<uint32_t>(std::min<uint64_t>(share, kWeightMax));
    const bool halve = bounds_[layer] + weight >= kOne;
    bounds_[layer] = (halve ? (bounds_[layer] + 1) / 2 : bounds_[layer]) + weight;
    dense_score_ops<uint16_t>().age_add(sums_.data() + 64 * words.size() * layer, words.data(),
                                        words.size(), halve ? 1 : 0, static_cast<uint16_t>(weight));
  }

  void choose(const HotSet& hot) {
    chosen_ = true;
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) add_up(layer);
    const uint16_t least = mark_top(values_, neurons_, hot_count_max_, target_);
    threshold_ = static_cast<double>(least) / static_cast<double>(kOne - 1);
    plan_.make(values_, target_, hot.words());
  }

  // v of a layer.
  void add_up(uint32_t layer) {
    const size_t size = size_t{64} * pool_.words_per_layer(), first = size * layer;
    const uint32_t bound = std::max(bounds_[layer], 1u);
    const auto scale = static_cast<uint32_t>((kOne - 1) * kOne / bound);
    const uint32_t of_profile = static_cast<uint32_t>(kOne) - weight_;
    for (size_t i = first; i < first + size; ++i) {
      const uint32_t of_prompt = sums_[i] * scale / kOne;  // p, at most 65535
      const uint64_t sum = uint64_t{of_profile} * shares_[i] + uint64_t{weight_} * of_prompt;
      values_[i] = static_cast<uint16_t>(sum / kOne);
    }
  }

  const uint32_t weight_;  // w, of kOne
  NeuronPool pool_;
  ScorePlaces places_;
  uint64_t hot_count_max_ = 0, admit_count_max_ = 0;
  std::vector<uint64_t> neurons_, target_;  // bits
  std::vector<uint16_t> shares_;            // phi, by place
  std::vector<uint16_t> sums_;              // s^2 of the prompts so far
  std::vector<uint32_t> bounds_;            // (layer_count) what a neuron always active would have
  std::vector<uint16_t> values_;            // v, of kOne - 1
  std::vector<uint32_t> tasks_;             // whose prompts are summed
  bool chosen_ = false;                     // the target, from these sums
  MovePlan plan_;
  std::optional<double> threshold_;
};

}  // namespace

THERMOCLINE_POLICY(prefill, "the neurons of the request's own prompt, fixed while it decodes",
                   Prefill);

}  // namespace thermocline
