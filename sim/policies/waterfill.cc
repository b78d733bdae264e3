// waterfill (P9): each layer's share of the budget follows its own recent activity.
//
// e_i is the exponentially weighted share of recent steps in which neuron i was active
// (parts/decaying_scores.h). Every `window` steps a new set is planned:
//   v_i = e_i + lambda where i is hot, e_i elsewhere;
//   G_l(k) = the sum of the k largest v_i of layer l, a concave curve;
//   k_l    = maximise sum_l G_l(k_l) such that sum_l k_l = B (the budget): the next `group` neurons
//            go to the layer where they add most per neuron, until the budget is spent; the last
//            group is cut to what is left. Ties: the lower layer.
// The k_l neurons of each layer with the largest v_i are the plan, reached within the migration
// limit over the next steps: what enters by falling v, what leaves by rising v. The marginal rate
// at which the budget ends is the same for all layers but for a group: that is theta.
// lambda is the cost of a swap: a neuron enters only where it is active in so much more of the
// steps than the one that it displaces. Charged by neuron, it is at least lambda |k_l - before|.
//
// Water-filling after PowerInfer's program (its curves are the profile's) and the reference's P9.
// A miss costs the same in every layer here: neurons of all layers have bundles of equal bytes.
// Curves add up v in 4,096 levels; the order within a layer has all 65,536.
#include <algorithm>
#include <array>

#include "sim/policies/parts/decaying_scores.h"
#include "sim/policies/parts/move_plan.h"
#include "sim/policies/parts/top_places.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint32_t kLevelShift = 4;  // from a score to its level
constexpr uint32_t kLevels = 65536 >> kLevelShift;

// The next neurons of a layer, by falling score.
struct Group {
  uint32_t gain;  // sum of levels; of a smaller last group, as much as a whole one would have
  uint32_t layer, index, size;
};
bool earlier(const Group& a, const Group& b) {
  if (a.gain != b.gain) return a.gain > b.gain;
  return a.layer != b.layer ? a.layer < b.layer : a.index < b.index;
}

class Waterfill final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {halflife_parameter(32, {16, 64, 128, 256}),
            {"window", 32, 1, 4096, "steps between two plans", true, {}, {8, 64}},
            {"group", 64, 8, 1024, "neurons that a layer gains or loses at a time", true},
            {"lambda",
             0.05,
             0,
             1,
             "cost of a swap: share of the steps that what enters must have more",
             false,
             {},
             {0, 0.02, 0.1, 0.2}}};
  }
  explicit Waterfill(const PolicyValues& values)
      : scores_(static_cast<uint32_t>(values.at("halflife"))),
        window_(static_cast<uint64_t>(values.at("window"))),
        group_(static_cast<uint32_t>(values.at("group"))),
        lambda_(values.at("lambda")) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    pool_ = context.pool;
    hot_count_max_ = std::min(context.hot_count_max, pool_.total());
    admit_count_max_ = context.admit_count_max;
    scores_.start(context);
    neurons_ = bits_of_neurons(pool_);
    target_.resize(neurons_.size());
    leasts_.assign(pool_.layer_count, 0);
    if (context.profile != nullptr) fill_hottest(*context.profile, hot_count_max_, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (hot_count_max_ == 0 || admit_count_max_ == 0) return;
    scores_.begin_step(active.words);
    scores_.add(active.words, 0, active.words.size());
    if (++step_ % window_ == 0) make_plan(hot);
    plan_.next(hot, hot_count_max_, admit_count_max_, scores_.places(), moves);
  }

  std::optional<double> hot_threshold() const override { return threshold_; }

 private:
  void make_plan(const HotSet& hot) {
    const auto bonus = static_cast<uint16_t>(std::min<uint64_t>(scores_.score_of(lambda_), 65535));
    values_.assign(scores_.scores().begin(), scores_.scores().end());
    dense_score_ops<uint16_t>().age_add(values_.data(), hot.words().data(), neurons_.size(), 0,
                                        bonus);
    groups_.clear();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) add_curve(layer);
    share_out();
    const size_t stride = pool_.words_per_layer();
    for (size_t layer = 0; layer < pool_.layer_count; ++layer) {
      leasts_[layer] =
          mark_top(std::span(values_).subspan(64 * stride * layer, 64 * stride),
                   std::span(neurons_).subspan(stride * layer, stride), hot_counts_[layer],
                   std::span(target_).subspan(stride * layer, stride), leasts_[layer]);
    }
    plan_.make(values_, target_, hot.words());
  }

  // The groups of a layer, from a histogram of its values.
  void add_curve(uint32_t layer) {
    levels_.fill(0);
    const uint16_t* values = values_.data() + uint64_t{64} * pool_.words_per_layer() * layer;
    for (uint32_t i = 0; i < pool_.neuron_count; ++i) ++levels_[values[i] >> kLevelShift];
    Group group{0, layer, 0, 0};
    for (uint32_t level = kLevels; level-- > 0;) {
      for (uint32_t left = levels_[level]; left > 0;) {
        const uint32_t taken = std::min(left, group_ - group.size);
        group.gain += taken * level;
        group.size += taken;
        left -= taken;
        if (group.size < group_) continue;
        groups_.push_back(group);
        group = {0, layer, group.index + 1, 0};
      }
    }
    if (group.size == 0) return;
    group.gain = static_cast<uint32_t>(uint64_t{group.gain} * group_ / group.size);
    groups_.push_back(group);
  }

  void share_out() {
    hot_counts_.assign(pool_.layer_count, 0);
    std::sort(groups_.begin(), groups_.end(), earlier);
    uint64_t left = hot_count_max_;
    for (const Group& group : groups_) {
      if (left == 0) break;
      const auto taken = static_cast<uint32_t>(std::min<uint64_t>(left, group.size));
      hot_counts_[group.layer] += taken;
      left -= taken;
      threshold_ = scores_.share_of(uint64_t{group.gain} << kLevelShift) / group_;
    }
  }

  DecayingScores scores_;
  const uint64_t window_;
  const uint32_t group_;
  const double lambda_;
  NeuronPool pool_;
  uint64_t hot_count_max_ = 0, admit_count_max_ = 0;
  uint64_t step_ = 0;
  std::vector<uint64_t> neurons_;  // bits
  std::vector<uint64_t> target_;   // bits of the planned set
  std::vector<uint16_t> values_;   // v, by place
  std::array<uint32_t, kLevels> levels_{};
  std::vector<Group> groups_;
  std::vector<uint32_t> hot_counts_;  // k_l
  std::vector<uint16_t> leasts_;      // v among these, of the last plan
  MovePlan plan_;
  std::optional<double> threshold_;
};

}  // namespace

THERMOCLINE_POLICY(waterfill, "each layer's share follows its own activity: equal marginal rates",
                   Waterfill);

}  // namespace thermocline
