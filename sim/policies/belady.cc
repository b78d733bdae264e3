// belady: the neuron whose next use is farthest leaves. An oracle (P0').
//
// Belady, "A study of replacement algorithms for a virtual-storage computer" (IBM Systems Journal
// 5, 1966); Mattson, Gecsei, Slutz and Traiger 1970 prove that no other choice has more hits.
//
// Classical form (--fill demand): every active neuron is a request, a miss is admitted at once, and
// the resident leaves whose next request is farthest: in a later step, or in the same step at a
// larger index. Among those never requested again any choice gives the same counts; the largest
// index leaves. bypass=yes: where the missed neuron itself is the one with the farthest next
// request, or it and the resident will never be requested again, it is not admitted; no cache that
// may refuse has more hits.
//
// Set-valued form: the trace's own most frequent neurons start hot, as in oracle-static. After a
// step missed active neurons enter, those whose next use is nearest first, up to the migration
// limit, each for the hot neuron whose next use is farthest and only where that is farther than its
// own: a swap that loses is never proposed, so that bypass changes nothing here. Those of the very
// next step are all as near as each other: a rotating cursor picks them; other ties by index.
// Farthest hot neurons come from a search every `period` steps (or when they run out); one that has
// been used since is dropped. With a step's requests all at once and a limit on moves this is no
// longer proven optimal: a clairvoyant policy, not a bound.
#include <algorithm>
#include <array>

#include "sim/policies/parts/dense_scores.h"
#include "sim/policies/parts/next_uses.h"
#include "sim/policies/parts/rotating_cursor.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint64_t kVictimsMin = 64, kVictimsMax = 65536;  // of one search
constexpr uint32_t kDistances = 4096;  // of the histogram; farther ones together

class Belady final : public Policy {
 public:
  static constexpr bool needs_future = true;
  static constexpr bool needs_future_uses = true;
  static std::vector<PolicyParameter> parameters() {
    return {
        {"bypass",
         0,
         0,
         1,
         "in the classical form, refuse what would have to leave next",
         true,
         {"no", "yes"}},
        {"period", 16, 1, 1024, "steps between two searches for the farthest next uses", true},
    };
  }
  explicit Belady(const PolicyValues& values)
      : period_(static_cast<uint64_t>(values.at("period"))) {}

  class Request final : public RequestPolicy {
   public:
    explicit Request(const PolicyValues& values) : bypass_(values.at("bypass") == 1) {}
    void start(const PolicyContext& context) override {
      uses_ = context.future_uses;
      residents_.start(context.pool.total());
    }
    void begin_step(const ActiveStep&) override { step_ = steps_++; }
    void hit(uint32_t flat) override { residents_.set(flat, uses_->next_after(flat, step_)); }
    uint32_t evict(uint32_t incoming) override {
      const uint32_t farthest = residents_.farthest();
      if (bypass_ && !is_nearer(incoming, farthest)) return incoming;
      residents_.remove(farthest);
      return farthest;
    }
    void admit(uint32_t flat) override { hit(flat); }

   private:
    bool is_nearer(uint32_t incoming, uint32_t resident) const {
      const uint32_t next = uses_->next_after(incoming, step_);
      const uint32_t of_resident = residents_.next_of(resident);
      if (next != of_resident) return next < of_resident;
      return next != FutureUses::kNever && incoming < resident;
    }

    const bool bypass_;
    const FutureUses* uses_ = nullptr;
    uint64_t step_ = 0, steps_ = 0;
    FarthestUse residents_;
  };

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    swap_count_max_ =
        std::min({context.admit_count_max, context.hot_count_max, context.pool.total()});
    uses_ = context.future_uses;
    rows_.start(*uses_);
    fill_hottest(*context.future, context.hot_count_max, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    left_ = swap_count_max_;
    if (left_ > 0) {
      const std::span<const uint64_t> next = rows_.row(step_ + 1);
      if (step_ >= search_step_ || farthest() == nullptr) find_victims(hot);
      swap_for_next_step(active, hot, next, moves);
      swap_for_later(active, hot, next, moves);
    }
    ++step_;
  }

 private:
  struct Use {
    uint32_t next;
    uint32_t flat;
  };
  static bool is_nearer(const Use& a, const Use& b) {
    return a.next != b.next ? a.next < b.next : a.flat < b.flat;
  }
  static bool is_farther(const Use& a, const Use& b) {
    return a.next != b.next ? a.next > b.next : a.flat < b.flat;
  }

  void swap_for_next_step(const ActiveStep& active, const HotSet& hot,
                          std::span<const uint64_t> next, Moves& moves) {
    const auto used_next = [&](uint64_t w) { return active.words[w] & ~hot.words()[w] & next[w]; };
    cursor_.go(places_.word_count(), used_next, [&](uint32_t place) {
      return try_swap({static_cast<uint32_t>(step_ + 1), places_.flat_of(place)}, moves);
    });
  }

  void swap_for_later(const ActiveStep& active, const HotSet& hot, std::span<const uint64_t> next,
                      Moves& moves) {
    const Use* victim = farthest();
    if (left_ == 0 || victim == nullptr || victim->next <= step_ + 2) return;
    candidates_.clear();
    for (uint64_t w = 0; w < places_.word_count(); ++w) {
      for_each_place(w, active.words[w] & ~hot.words()[w] & ~next[w], [&](uint32_t place) {
        const uint32_t flat = places_.flat_of(place), use = uses_->next_from(flat, step_ + 2);
        if (use < victim->next) candidates_.push_back({use, flat});
      });
    }
    const auto size = static_cast<ptrdiff_t>(std::min<uint64_t>(candidates_.size(), left_));
    std::partial_sort(candidates_.begin(), candidates_.begin() + size, candidates_.end(),
                      is_nearer);
    for (ptrdiff_t i = 0; i < size; ++i) {
      if (!try_swap(candidates_[static_cast<size_t>(i)], moves)) return;
    }
  }

  bool try_swap(const Use& incoming, Moves& moves) {
    const Use* victim = farthest();
    if (left_ == 0 || victim == nullptr || victim->next <= incoming.next) return false;
    moves.evict.push_back(victim->flat);
    moves.admit.push_back(incoming.flat);
    ++next_victim_;
    --left_;
    return true;
  }

  // The first of the last search that has not been used since; null: none is left.
  const Use* farthest() {
    while (next_victim_ < victims_.size() && victims_[next_victim_].next <= step_) ++next_victim_;
    return next_victim_ < victims_.size() ? &victims_[next_victim_] : nullptr;
  }

  // The hot neurons with the farthest next uses, enough for the swaps of one period.
  void find_victims(const HotSet& hot) {
    search_step_ = step_ + period_;
    const uint64_t wanted = std::clamp(period_ * swap_count_max_, kVictimsMin, kVictimsMax);
    victims_.clear();
    next_victim_ = 0;
    std::array<uint32_t, kDistances> histogram{};
    next_uses_.clear();
    for_each_bit(hot.pool(), hot.words(), [&](uint32_t flat) {
      next_uses_.push_back({uses_->next_after(flat, step_), flat});
      ++histogram[distance(next_uses_.back())];
    });
    uint32_t border = kDistances;
    for (uint64_t farther = 0; border > 0 && farther < wanted;) farther += histogram[--border];
    std::copy_if(next_uses_.begin(), next_uses_.end(), std::back_inserter(victims_),
                 [&](const Use& use) { return distance(use) >= border; });
    const auto size = static_cast<ptrdiff_t>(std::min<uint64_t>(victims_.size(), wanted));
    std::nth_element(victims_.begin(), victims_.begin() + size, victims_.end(), is_farther);
    victims_.resize(static_cast<size_t>(size));
    std::sort(victims_.begin(), victims_.end(), is_farther);
  }

  uint32_t distance(const Use& use) const {
    return static_cast<uint32_t>(std::min<uint64_t>(use.next - step_, kDistances - 1));
  }

  const uint64_t period_;
  ScorePlaces places_;
  uint64_t swap_count_max_ = 0;  // per step
  const FutureUses* uses_ = nullptr;
  UseRows rows_;
  uint64_t step_ = 0;
  uint64_t search_step_ = 0;  // when the next search is due
  uint64_t left_ = 0;         // swaps of this step
  std::vector<Use> next_uses_, victims_, candidates_;
  size_t next_victim_ = 0;  // into victims_
  RotatingCursor cursor_;
};

}  // namespace

THERMOCLINE_POLICY(belady, "clairvoyant cache: the farthest next use leaves", Belady);

}  // namespace thermocline
