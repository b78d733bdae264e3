// window (P7): hot is what was active in the last k steps, after "LLM in a Flash" (Alizadeh et al.
// 2023, section 3.1), whose window has 4 or 5 tokens.
//
// U_k is the union of the active sets of the last k steps. k fixed, or dynamic (k=0):
//   k(t) = max {k: |U_k(t)| <= B}, at least 1, at most the steps so far and 255,
// B being the budget: the longest window that fits. A missed active neuron is admitted; a hot one
// outside U_k may leave. Both are served in index order, going on where the step before stopped and
// wrapping around, since all in a window are alike. The B most frequent of the profile start hot.
// What differs: the paper frees at once what leaves the window and loads all that is missed. Here
// neurons stay until their room is needed, because under a migration limit what left could not come
// back in time, and no more are admitted than the limit allows. Where U_k is larger than the budget
// (k fixed), nobody leaves until somebody falls out of the window.
// The hot threshold is 1/k: who was active in fewer of the last k steps, none, is cold.
#include "models/bit_sums.h"
#include "sim/policies/parts/bit_cursor.h"
#include "sim/policies/parts/dense_scores.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

// Of a neuron that is active now; one less for each step since, down to 0.
constexpr uint8_t kFreshest = 255;
constexpr uint32_t kStepsMax = 255;

class Window final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"k",
             0,
             0,
             kStepsMax,
             "steps of the window; 0: as many as fit the budget",
             true,
             {},
             {2, 4, 5, 8, 16}}};
  }

  explicit Window(const PolicyValues& values) : fixed_(static_cast<uint32_t>(values.at("k"))) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    hot_count_max_ = context.hot_count_max;
    admit_count_max_ = context.admit_count_max;
    freshness_.assign(places_.size(), 0);
    missed_.resize(places_.word_count());
    outside_.resize(places_.word_count());
    come_ = go_ = BitCursor(0, places_.word_count());
    steps_ = std::max(fixed_, 1u);
    if (context.profile != nullptr) fill_hottest(*context.profile, hot_count_max_, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    ++step_;
    const uint64_t size = renew(active);
    if (fixed_ == 0) fit(size);
    propose(active, hot, moves);
  }

  std::optional<double> hot_threshold() const override { return 1.0 / steps_; }

 private:
  // Adds the step; the size of the union of as many steps as before.
  uint64_t renew(const ActiveStep& active) {
    uint64_t size = 0;
    for_each_score_block(outside_.size(), [&](size_t first, size_t count) {
      dense_score_ops<uint8_t>().up_down(freshness_.data() + 64 * first,
                                         active.words.data() + first, count, kFreshest, 1,
                                         kFreshest);
      size += unite(steps_, first, count);
    });
    return size;
  }

  // Leaves the union of the last `steps` in outside_; its size.
  uint64_t unite(uint32_t steps, size_t first, size_t count) {
    dense_score_ops<uint8_t>().at_least(freshness_.data() + 64 * first, count,
                                        static_cast<uint8_t>(kFreshest + 1 - steps),
                                        outside_.data() + first);
    return bit_sums().count(outside_.data() + first, count);
  }

  // Finds k from what it was, `size` being that union's.
  void fit(uint64_t size) {
    const auto words = outside_.size();
    const auto most = static_cast<uint32_t>(std::min<uint64_t>(step_, kStepsMax));
    if (size > hot_count_max_) {
      while (steps_ > 1 && unite(--steps_, 0, words) > hot_count_max_) {
      }
      return;
    }
    const uint32_t before = steps_;
    while (steps_ < most && unite(steps_ + 1, 0, words) <= hot_count_max_) ++steps_;
    if (before < most) unite(steps_, 0, words);  // undoes the one that did not fit
  }

  void propose(const ActiveStep& active, const HotSet& hot, Moves& moves) {
    for (size_t w = 0; w < missed_.size(); ++w) {
      missed_[w] = active.words[w] & ~hot.words()[w];
      outside_[w] = hot.words()[w] & ~outside_[w];
    }
    uint64_t left = std::min(admit_count_max_, bit_sums().count(missed_.data(), missed_.size()));
    uint64_t room = hot_count_max_ - std::min(hot_count_max_, hot.count());
    uint64_t victims = bit_sums().count(outside_.data(), outside_.size());
    for (; left > 0 && room + victims > 0; --left) {
      if (room > 0) {
        --room;
      } else {
        moves.evict.push_back(places_.flat_of(go_.take(outside_)));
        --victims;
      }
      moves.admit.push_back(places_.flat_of(come_.take(missed_)));
    }
  }

  const uint32_t fixed_;  // 0: k is dynamic
  uint64_t hot_count_max_ = 0, admit_count_max_ = 0;
  ScorePlaces places_;
  std::vector<uint8_t> freshness_;
  std::vector<uint64_t> missed_, outside_;  // bits: may come; may go (while k is sought: the union)
  BitCursor come_, go_;
  uint32_t steps_ = 1;  // k
  uint64_t step_ = 0;
};

}  // namespace

THERMOCLINE_POLICY(window, "what was active in the last k steps, k as the budget allows", Window);

}  // namespace thermocline
