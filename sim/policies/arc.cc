// arc: a cache that balances recency against frequency by what it regrets (P8).
//
// Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache" (FAST 2003). Residents
// are in T1 (active once since they entered) or T2 (again since, or back soon after they left); B1
// and B2 remember as many that left either, the oldest of them first to be forgotten. With c the
// budget and p, between 0 and c, the size that T1 should have, a missed x that enters:
//   x in B1: p += max(1, |B2| / |B1|), x enters T2    x in B2: p -= max(1, |B1| / |B2|), likewise
//   else: x enters T1; where |T1| + |B1| = c, the oldest of B1 is forgotten (T1's least recent
//   leaves unremembered where B1 is empty); else where all four hold 2 c, the oldest of B2 is
// and first makes room: the least recent of T1 leaves to B1 where |T1| > p, or where |T1| = p and x
// was in B2, or where T2 is empty; else that of T2 leaves to B2.
//
// Classical form (--fill demand): just that, with p a double as in libCacheSim, whose hits it
// equals. Set-valued form: the profile's hottest neurons start hot, in T2, with p = 0. After a step
// all of T1 that was active joins T2, word by word; the missed active neurons that the migration
// limit lets enter, picked by a rotating cursor, are the x of above, one after the other. What
// differs: recency within T2 is by step, ties by index; what was active in this step does not
// leave, and where T1 (or T2) has nothing else, T2 (or T1) gives; misses that may not enter teach
// nothing.
#include <algorithm>
#include <bit>
#include <optional>

#include "sim/policies/parts/neuron_lists.h"
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

// Sizes of the four, and what is decided by them.
struct Balance {
  uint64_t budget = 0;                      // c
  uint64_t t1 = 0, t2 = 0, b1 = 0, b2 = 0;  // sizes
  double target = 0;                        // p

  void regret_recency() { target = std::min(target + ratio(b2, b1), static_cast<double>(budget)); }
  void regret_frequency() { target = std::max(target - ratio(b1, b2), 0.0); }
  bool t1_gives(bool was_in_b2) const {
    const auto size = static_cast<double>(t1);
    return (t1 > 0 && (size > target || (size == target && was_in_b2))) || t2 == 0;
  }

 private:
  static double ratio(uint64_t other, uint64_t own) {
    return std::max(static_cast<double>(other) / static_cast<double>(own), 1.0);
  }
};

class Arc final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() { return {}; }
  explicit Arc(const PolicyValues&) {}

  class Request final : public RequestPolicy {
   public:
    explicit Request(const PolicyValues&) {}
    void start(const PolicyContext& context) override {
      balance_.budget = context.hot_count_max;
      lists_ = NeuronLogs(context.pool.total(), kListCount);
      list_of_.assign(context.pool.total(), kNone);
    }

    void hit(uint32_t flat) override {
      if (list_of_[flat] == kT1) --balance_.t1, ++balance_.t2;
      put(kT2, flat);
    }

    uint32_t evict(uint32_t incoming) override {
      const uint8_t from = list_of_[incoming];
      if (from == kB1) {
        balance_.regret_recency();
        forget(incoming, balance_.b1);
      } else if (from == kB2) {
        balance_.regret_frequency();
        forget(incoming, balance_.b2);
      } else if (balance_.t1 + balance_.b1 == balance_.budget) {
        if (balance_.b1 == 0) return leave_unremembered();
        forget(lists_.front(kB1), balance_.b1);
      } else if (balance_.t1 + balance_.t2 + balance_.b1 + balance_.b2 >= 2 * balance_.budget) {
        forget(lists_.front(kB2), balance_.b2);
      }
      came_back_ = from == kB1 || from == kB2;
      return make_room(from == kB2);
    }

    void admit(uint32_t flat) override {
      ++(came_back_ ? balance_.t2 : balance_.t1);
      put(came_back_ ? kT2 : kT1, flat);
      came_back_ = false;
    }

   private:
    enum List : uint8_t { kT1, kT2, kB1, kB2, kListCount, kNone };

    void put(List list, uint32_t flat) {
      lists_.push_back(list, flat);
      list_of_[flat] = list;
    }
    void forget(uint32_t flat, uint64_t& size) {
      lists_.remove(flat);
      list_of_[flat] = kNone;
      --size;
    }
    uint32_t leave_unremembered() {
      const uint32_t flat = lists_.front(kT1);
      forget(flat, balance_.t1);
      return flat;
    }
    uint32_t make_room(bool was_in_b2) {
      const bool from_t1 = balance_.t1_gives(was_in_b2);
      const uint32_t flat = lists_.pop_front(from_t1 ? kT1 : kT2);
      --(from_t1 ? balance_.t1 : balance_.t2);
      ++(from_t1 ? balance_.b1 : balance_.b2);
      put(from_t1 ? kB1 : kB2, flat);
      return flat;
    }

    Balance balance_;
    NeuronLogs lists_;              // the least recent first
    std::vector<uint8_t> list_of_;  // by flat index
    bool came_back_ = false;        // the neuron that enters was in B1 or B2
  };

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    swap_count_max_ =
        std::min({context.admit_count_max, context.hot_count_max, context.pool.total()});
    recency_.start(places_, *context.profile);
    fill_hottest(*context.profile, context.hot_count_max, 0, hot);
    t1_ = t1_listed_ = b1_ = b2_ = PlaceBits(places_.word_count());
    t2_ = PlaceBits(hot.words());
    lists_ = NeuronLists(places_.size(), kListCount);
    balance_.budget = balance_.t2 = hot.count();
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (recency_.touch(active.words)) t2_victims_.clear();
    t2_searched_ = false;
    note_hits(active);
    uint64_t more = swap_count_max_;
    const auto missed = [&](uint64_t w) { return active.words[w] & ~hot.words()[w]; };
    cursor_.go(places_.word_count(), missed, [&](uint32_t place) {
      if (more == 0 || !enter(place, active, moves)) return false;
      --more;
      return true;
    });
  }

 private:
  enum List : uint32_t { kT1, kB1, kB2, kListCount };

  void note_hits(const ActiveStep& active) {
    if (balance_.t1 == 0) return;
    uint64_t moved = 0;
    for (uint64_t w = 0; w < places_.word_count(); ++w) {
      const uint64_t hits = t1_.word(w) & active.words[w];
      moved += static_cast<uint64_t>(std::popcount(hits));
      t1_.word(w) &= ~hits;
      t2_.word(w) |= hits;
    }
    balance_.t1 -= moved;
    balance_.t2 += moved;
  }

  // False where no hot neuron may leave.
  bool enter(uint32_t place, const ActiveStep& active, Moves& moves) {
    const std::optional<uint32_t> of_t1 = weakest_of_t1(active), of_t2 = weakest_of_t2(active);
    if (!of_t1 && !of_t2) return false;
    const bool was_in_b1 = b1_.contains(place), was_in_b2 = b2_.contains(place);
    const bool unremembered = remember(place, was_in_b1, was_in_b2);
    const bool t1_gives = unremembered || balance_.t1_gives(was_in_b2);
    const uint32_t victim = (t1_gives && of_t1) || !of_t2 ? *of_t1 : *of_t2;
    moves.evict.push_back(places_.flat_of(victim));
    moves.admit.push_back(places_.flat_of(place));
    leave(victim, unremembered);
    if (was_in_b1 || was_in_b2) {
      t2_.insert(place);
      ++balance_.t2;
    } else {
      t1_.insert(place);
      t1_listed_.insert(place);
      lists_.push_back(kT1, place);
      ++balance_.t1;
    }
    return true;
  }

  // Moves the target, keeps B1 and B2 in their bounds. True where T1 fills the bound alone, so that
  // what leaves it is not remembered.
  bool remember(uint32_t place, bool was_in_b1, bool was_in_b2) {
    if (was_in_b1) {
      balance_.regret_recency();
      forget(place, b1_, balance_.b1);
    } else if (was_in_b2) {
      balance_.regret_frequency();
      forget(place, b2_, balance_.b2);
    } else if (balance_.t1 + balance_.b1 >= balance_.budget) {
      if (balance_.b1 == 0) return true;
      forget(lists_.front(kB1), b1_, balance_.b1);
    } else if (balance_.b1 + balance_.b2 >= balance_.budget) {
      forget(lists_.front(kB2), b2_, balance_.b2);
    }
    return false;
  }

  void forget(uint32_t place, PlaceBits& bits, uint64_t& size) {
    lists_.remove(place);
    bits.erase(place);
    --size;
  }

  void leave(uint32_t victim, bool unremembered) {
    const bool from_t1 = t1_.contains(victim);
    (from_t1 ? t1_ : t2_).erase(victim);
    --(from_t1 ? balance_.t1 : balance_.t2);
    if (!from_t1) t2_victims_.pop();
    if (t1_listed_.contains(victim)) unlist(victim);
    if (from_t1 && unremembered) return;
    (from_t1 ? b1_ : b2_).insert(victim);
    ++(from_t1 ? balance_.b1 : balance_.b2);
    lists_.push_back(from_t1 ? kB1 : kB2, victim);
  }

  void unlist(uint32_t place) {
    lists_.remove(place);
    t1_listed_.erase(place);
  }

  // Nothing in T1 was active since it entered, so that the first to have entered is the least
  // recent. What has joined T2 leaves the list when it comes up.
  std::optional<uint32_t> weakest_of_t1(const ActiveStep& active) {
    while (!lists_.empty(kT1)) {
      const uint32_t place = lists_.front(kT1);
      if (!t1_.contains(place)) {
        unlist(place);
        continue;
      }
      const bool entered_now = active.words[place / 64] >> (place % 64) & 1;
      if (entered_now) break;
      return place;
    }
    return std::nullopt;
  }

  std::optional<uint32_t> weakest_of_t2(const ActiveStep& active) {
    const ScoredPlace* weakest = t2_victims_.weakest(recency_.stamps());
    if (weakest == nullptr && !t2_searched_) {
      const uint64_t wanted =
          std::clamp(kSearchedSteps * swap_count_max_, kVictimsMin, kVictimsMax);
      t2_victims_.search(recency_.stamps(), wanted,
                         [&](uint64_t w) { return t2_.word(w) & ~active.words[w]; });
      weakest = t2_victims_.weakest(recency_.stamps());
      t2_searched_ = weakest == nullptr;
    }
    if (weakest == nullptr) return std::nullopt;
    return weakest->place;
  }

  ScorePlaces places_;
  uint64_t swap_count_max_ = 0;  // per step
  Recency recency_;
  Balance balance_;
  PlaceBits t1_, t2_, b1_, b2_;
  PlaceBits t1_listed_;  // in the list of T1; some have joined T2
  NeuronLists lists_;    // by place, the first to have entered the list first
  WeakestHot<uint16_t> t2_victims_;
  bool t2_searched_ = false;  // in this step, and found nothing
  RotatingCursor cursor_;
};

}  // namespace

THERMOCLINE_POLICY(arc, "cache: recency against frequency, balanced by regret", Arc);

}  // namespace thermocline
