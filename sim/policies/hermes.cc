// hermes (P3): a state machine of four bits for each neuron, after Hermes ("Make LLM Inference
// Affordable to Everyone: Augmenting GPU Memory with NDP-DIMM", HPCA'25, section 4.3).
//
// State s_i in [0, 15]. It starts from the neuron's share phi_i of the profile's steps, in 16 bins:
// 15 above 90 %, 0 below 2 %, 1 to 14 evenly between. After each step
//   s_i <- min(15, s_i + up) where i was active, else max(0, s_i - down)
// and a neuron is hot if s_i > threshold: one that is cold but was active is swapped in, highest
// state first, for the hot neuron with the lowest state, if that one's is not above the threshold.
// The B neurons (the budget) with the largest phi_i start hot. A state drifts upwards where a
// neuron is active in more than down / (up + down) of the steps, 1 in 5: this share is reported as
// the hot threshold, which the budget does not move.
// Equal states are served in index order, going on where the step before stopped and wrapping
// around: states are few, and by index alone the first layers would be served always.
// What differs: the paper profiles the prefill of a request, here the profile is what a policy
// starts from, and the steps of a prompt go through the machine like any other. Its predictor adds
// 6 s2 to the state, s2 counting active ones among a neuron's two most correlated neurons in the
// layer before; that says what to compute, not what to keep, and is no part of residency. Moves
// between its memory modules (its window of 5 tokens) have no counterpart on one node.
#include "sim/policies/parts/selection.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint8_t kStateMax = 15;

class Hermes final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        {"up", 4, 1, 15, "added to the state of an active neuron", true, {}, {2, 8}},
        {"down", 1, 1, 15, "taken from the state of an inactive one", true},
        {"threshold", 10, 0, 14, "state above which a neuron is hot", true, {}, {6, 12}},
    };
  }

  explicit Hermes(const PolicyValues& values)
      : up_(static_cast<uint8_t>(values.at("up"))),
        down_(static_cast<uint8_t>(values.at("down"))),
        threshold_(static_cast<uint8_t>(values.at("threshold"))) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    hot_count_max_ = context.hot_count_max;
    admit_count_max_ = std::min(context.admit_count_max, context.pool.total());
    states_.assign(places_.size(), 0);
    candidates_.resize(places_.word_count());
    if (context.profile == nullptr) return;
    for (uint32_t flat = 0; flat < context.pool.total(); ++flat) {
      states_[places_.place_of(flat)] =
          state_of(context.profile->counts[flat], context.profile->step_count);
    }
    fill_hottest(*context.profile, hot_count_max_, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (hot_count_max_ == 0 || admit_count_max_ == 0) return;
    const auto& ops = dense_score_ops<uint8_t>();
    for_each_score_block(candidates_.size(), [&](size_t first, size_t count) {
      uint8_t* states = states_.data() + 64 * first;
      ops.up_down(states, active.words.data() + first, count, up_, down_, kStateMax);
      ops.at_least(states, count, threshold_ + 1, candidates_.data() + first);
      for (size_t w = first; w < first + count; ++w) {
        candidates_[w] &= active.words[w] & ~hot.words()[w];
      }
    });
    propose(hot, moves);
  }

  std::optional<double> hot_threshold() const override {
    return static_cast<double>(down_) / static_cast<double>(up_ + down_);
  }

 private:
  static uint8_t state_of(uint64_t count, uint64_t step_count) {
    if (10 * count > 9 * step_count) return kStateMax;
    if (50 * count < step_count || step_count == 0) return 0;
    return static_cast<uint8_t>(
        std::min<uint64_t>(1 + 14 * (50 * count - step_count) / (44 * step_count), 14));
  }

  void propose(const HotSet& hot, Moves& moves) {
    const auto best = strongest_.search(
        states_, admit_count_max_, [&](size_t w) { return candidates_[w]; }, come_);
    if (best.empty()) return;
    const uint64_t room = hot_count_max_ - std::min(hot_count_max_, hot.count());
    const uint64_t wanted = best.size() - std::min<uint64_t>(best.size(), room);
    const auto weak = weakest_.search(
        states_, wanted, [&](size_t w) { return hot.words()[w]; }, go_);
    for (size_t i = 0; i < best.size(); ++i) {
      if (i >= room) {
        const size_t victim = i - room;
        if (victim == weak.size() || weak[victim].score > threshold_) break;
        moves.evict.push_back(places_.flat_of(weak[victim].place));
        go_ = next_word(weak[victim].place);
      }
      moves.admit.push_back(places_.flat_of(best[i].place));
      come_ = next_word(best[i].place);
    }
  }

  size_t next_word(uint32_t place) const { return (place / 64 + 1) % places_.word_count(); }

  const uint8_t up_, down_, threshold_;
  uint64_t hot_count_max_ = 0, admit_count_max_ = 0;
  ScorePlaces places_;
  std::vector<uint8_t> states_;
  std::vector<uint64_t> candidates_;  // bits
  Selection<uint8_t, Extreme::strongest> strongest_;
  Selection<uint8_t, Extreme::weakest> weakest_;
  size_t come_ = 0, go_ = 0;  // words where the next search begins
};

}  // namespace

THERMOCLINE_POLICY(hermes, "four-bit state machines: up where active, down where not (Hermes)",
                   Hermes);

}  // namespace thermocline
