// lru: the least recently active neuron leaves; what was missed enters. A cache (P8).
//
// Classical form (--fill demand): every active neuron is a request, the least recently requested
// leaves, a miss is admitted at once. Mattson, Gecsei, Slutz and Traiger 1970; PowerInfer-2 (arXiv
// 2406.06282) keeps its cold neurons so. Counts equal those of any object-at-a-time simulator.
//
// Set-valued form: the profile's hottest neurons start hot. After a step,
//   last_i = t where a_i(t) = 1
// and missed active neurons take the places of the hot ones with the smallest last_i, ties by
// index, as many as the migration limit allows and only for neurons that were not active in this
// step. What differs from the classical form: the missed neurons of a step are all as recent as
// each other, so that a rotating cursor picks them where not all may move; and a neuron that was
// never active counts as used before the first step, by its share of the profile.
//
// Scores only ever grow, so the list of the weakest is exact until it is used up.
#include <algorithm>

#include "sim/policies/parts/neuron_logs.h"
#include "sim/policies/parts/place_bits.h"
#include "sim/policies/parts/recency.h"
#include "sim/policies/parts/rotating_cursor.h"
#include "sim/policies/parts/weakest_hot.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint64_t kSearchedSteps = 16;  // worth of swaps that one search finds victims for
constexpr uint64_t kVictimsMin = 64, kVictimsMax = 65536;

class Lru final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() { return {}; }
  explicit Lru(const PolicyValues&) {}

  class Request final : public RequestPolicy {
   public:
    explicit Request(const PolicyValues&) {}
    void start(const PolicyContext& context) override {
      order_ = NeuronLogs(context.pool.total(), 1);
    }
    void hit(uint32_t flat) override { order_.push_back(0, flat); }
    uint32_t evict(uint32_t) override { return order_.pop_front(0); }
    void admit(uint32_t flat) override { order_.push_back(0, flat); }

   private:
    NeuronLogs order_;  // the least recently requested first
  };

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    swap_count_max_ =
        std::min({context.admit_count_max, context.hot_count_max, context.pool.total()});
    recency_.start(places_, *context.profile);
    fill_hottest(*context.profile, context.hot_count_max, 0, hot);
    hot_ = PlaceBits(hot.words());
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (recency_.touch(active.words)) victims_.clear();
    uint64_t left = swap_count_max_;
    const auto missed = [&](uint64_t w) { return active.words[w] & ~hot.words()[w]; };
    cursor_.go(places_.word_count(), missed, [&](uint32_t place) {
      if (left == 0) return false;
      const ScoredPlace* victim = next_victim(active);
      if (victim == nullptr) return false;
      swap(victim->place, place, moves);
      --left;
      return true;
    });
  }

 private:
  // The least recently active hot neuron, not of this step; null: there is none.
  const ScoredPlace* next_victim(const ActiveStep& active) {
    const ScoredPlace* victim = victims_.weakest(recency_.stamps());
    if (victim != nullptr) return victim;
    const uint64_t wanted = std::clamp(kSearchedSteps * swap_count_max_, kVictimsMin, kVictimsMax);
    victims_.search(recency_.stamps(), wanted,
                    [&](uint64_t w) { return hot_.word(w) & ~active.words[w]; });
    return victims_.weakest(recency_.stamps());
  }

  void swap(uint32_t victim, uint32_t incoming, Moves& moves) {
    moves.evict.push_back(places_.flat_of(victim));
    moves.admit.push_back(places_.flat_of(incoming));
    victims_.pop();
    hot_.erase(victim);
    hot_.insert(incoming);
  }

  ScorePlaces places_;
  uint64_t swap_count_max_ = 0;  // per step
  Recency recency_;
  PlaceBits hot_;  // as the moves proposed so far leave it
  WeakestHot<uint16_t> victims_;
  RotatingCursor cursor_;
};

}  // namespace

THERMOCLINE_POLICY(lru, "cache: the least recently active neuron leaves", Lru);

}  // namespace thermocline
