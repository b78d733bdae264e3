// s3fifo: three queues; what is not active again soon leaves soon. A cache (P8).
//
// Yang, Zhang, Qiu, Yue and Vinayak, "FIFO queues are all you need for cache eviction" (SOSP 2023).
// Of the budget, a share `small` is the small queue, the rest the main queue; the ghost queue
// remembers a share `ghost` of it, of what left the small one. A hit adds 1 to a neuron's count, at
// most 3. What was missed enters the main queue if the ghost remembers it, else the small one, with
// a count of 0. To make room, where the main queue is within its share and the small one not empty:
// its oldest goes to the main queue where its count is at least `threshold`, else it leaves to the
// ghost; otherwise the oldest of the main queue leaves if its count is 0, and goes back to the end
// of the queue with one less if not; again until one has left.
//
// Classical form (--fill demand): just that, as libCacheSim has it since 2024 (its S3FIFO, whose
// hits it equals): until the first neuron leaves, what the small queue has no room for enters the
// main one; a neuron that moves to the main queue starts there with 0; the small queue has one
// place at least, where libCacheSim refuses such budgets.
//
// Set-valued form: the profile's hottest neurons start hot, in the main queue. Hits of a step are
// added to counts in two planes of bits, word by word. Missed active neurons, picked by a rotating
// cursor up to the migration limit, enter one after the other. What differs: the main queue is a
// ring in index order, as a CLOCK has it, so that its hand looks at 64 neurons at once: those with
// a count of 0 may leave, lowest index first, until it moves on; the others lose 1. What entered in
// this step does not leave.
#include <algorithm>
#include <bit>
#include <optional>

#include "sim/policies/parts/dense_scores.h"
#include "sim/policies/parts/neuron_lists.h"
#include "sim/policies/parts/neuron_logs.h"
#include "sim/policies/parts/neuron_ring.h"
#include "sim/policies/parts/place_bits.h"
#include "sim/policies/parts/rotating_cursor.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint8_t kCountMax = 3;  // two bits

struct Shares {
  explicit Shares(const PolicyValues& values)
      : small(values.at("small")), ghost(values.at("ghost")), threshold(values.at("threshold")) {}
  uint64_t small_max(uint64_t budget) const {
    const auto share = static_cast<uint64_t>(static_cast<double>(budget) * small);
    return std::max<uint64_t>(share, 1);
  }
  uint64_t main_max(uint64_t budget) const { return budget - std::min(budget, small_max(budget)); }
  uint64_t ghost_max(uint64_t budget) const {
    return static_cast<uint64_t>(static_cast<double>(budget) * ghost);
  }

  double small, ghost, threshold;
};

class S3Fifo final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        {"small",
         0.1,
         0.01,
         0.9,
         "share of the budget that is the small queue",
         false,
         {},
         {0.02, 0.3}},
        {"ghost",
         0.9,
         0.0,
         4.0,
         "neurons that the ghost queue remembers, as a share of the budget",
         false,
         {},
         {0.3, 2}},
        {"threshold",
         2,
         1,
         3,
         "hits in the small queue that earn a place in the main one",
         true,
         {},
         {1}},
    };
  }
  explicit S3Fifo(const PolicyValues& values) : shares_(values) {}

  class Request final : public RequestPolicy {
   public:
    explicit Request(const PolicyValues& values) : shares_(values) {}
    void start(const PolicyContext& context) override {
      const uint64_t budget = context.hot_count_max, total = context.pool.total();
      small_max_ = shares_.small_max(budget);
      main_max_ = shares_.main_max(budget);
      ghost_max_ = shares_.ghost_max(budget);
      small_ = main_ = NeuronRing(std::min(budget, total));
      ghost_ = NeuronLogs(total, 1);
      remembered_.assign(total, false);
      counts_.assign(total, 0);
    }

    void hit(uint32_t flat) override {
      counts_[flat] = std::min<uint8_t>(counts_[flat] + 1, kCountMax);
    }

    uint32_t evict(uint32_t incoming) override {
      came_back_ = remembered_[incoming];
      if (came_back_) forget(incoming);
      has_evicted_ = true;
      if (main_.size() <= main_max_) {
        while (!small_.empty()) {
          const uint32_t oldest = small_.pop_front();
          if (counts_[oldest] < shares_.threshold) return remember(oldest);
          put(main_, oldest, 0);
        }
      }
      return leave_main();
    }

    void admit(uint32_t flat) override {
      const bool overflows = !has_evicted_ && small_.size() >= small_max_;
      put(came_back_ || overflows ? main_ : small_, flat, 0);
      came_back_ = false;
    }

   private:
    void put(NeuronRing& queue, uint32_t flat, uint8_t count) {
      queue.push_back(flat);
      counts_[flat] = count;
    }
    void forget(uint32_t flat) {
      ghost_.remove(flat);
      remembered_[flat] = false;
      --ghost_count_;
    }
    uint32_t remember(uint32_t flat) {
      if (ghost_max_ == 0) return flat;
      if (ghost_count_ == ghost_max_) forget(ghost_.front(0));
      ghost_.push_back(0, flat);
      remembered_[flat] = true;
      ++ghost_count_;
      return flat;
    }
    uint32_t leave_main() {
      while (true) {
        const uint32_t oldest = main_.pop_front();
        if (counts_[oldest] == 0) return oldest;
        put(main_, oldest, counts_[oldest] - 1);
      }
    }

    const Shares shares_;
    uint64_t small_max_ = 0, main_max_ = 0, ghost_max_ = 0;
    NeuronRing small_, main_;
    NeuronLogs ghost_;  // the first to have left first
    uint64_t ghost_count_ = 0;
    std::vector<uint8_t> remembered_, counts_;  // by flat index: is in the ghost queue; hits
    bool came_back_ = false;                    // the neuron that enters was in the ghost queue
    bool has_evicted_ = false;
  };

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    swap_count_max_ =
        std::min({context.admit_count_max, context.hot_count_max, context.pool.total()});
    fill_hottest(*context.profile, context.hot_count_max, 0, hot);
    main_max_ = shares_.main_max(hot.count());
    ghost_max_ = shares_.ghost_max(hot.count());
    main_ = PlaceBits(hot.words());
    main_count_ = hot.count();
    ghost_ = count_low_ = count_high_ = PlaceBits(places_.word_count());
    queues_ = NeuronLists(places_.size(), 2);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    add_hits(active, hot);
    uint64_t left = swap_count_max_;
    const auto missed = [&](uint64_t w) { return active.words[w] & ~hot.words()[w]; };
    cursor_.go(places_.word_count(), missed, [&](uint32_t place) {
      if (left == 0 || !enter(place, hot, moves)) return false;
      --left;
      return true;
    });
  }

 private:
  enum Queue : uint32_t { kSmall, kGhost };

  void add_hits(const ActiveStep& active, const HotSet& hot) {
    for (uint64_t w = 0; w < places_.word_count(); ++w) {
      const uint64_t hits = active.words[w] & hot.words()[w];
      const uint64_t low = count_low_.word(w), high = count_high_.word(w);
      count_low_.word(w) = (low ^ hits) | (low & high);
      count_high_.word(w) = high | (low & hits);
    }
  }

  uint32_t count_of(uint32_t place) const {
    return (count_high_.contains(place) ? 2u : 0u) + (count_low_.contains(place) ? 1u : 0u);
  }
  void clear_count(uint32_t place) {
    count_low_.erase(place);
    count_high_.erase(place);
  }

  // False where no hot neuron may leave.
  bool enter(uint32_t place, const HotSet& hot, Moves& moves) {
    const bool remembered = ghost_.contains(place);
    if (remembered) forget(place);
    const std::optional<uint32_t> victim = make_room(hot);
    if (!victim) return false;
    moves.evict.push_back(places_.flat_of(*victim));
    moves.admit.push_back(places_.flat_of(place));
    clear_count(place);
    if (remembered) {
      main_.insert(place);
      ++main_count_;
    } else {
      queues_.push_back(kSmall, place);
    }
    return true;
  }

  std::optional<uint32_t> make_room(const HotSet& hot) {
    const bool main_first = main_count_ > main_max_;
    std::optional<uint32_t> victim = main_first ? leave_main(hot) : leave_small(hot);
    if (!victim) victim = main_first ? leave_small(hot) : leave_main(hot);
    return victim;
  }

  std::optional<uint32_t> leave_small(const HotSet& hot) {
    while (!queues_.empty(kSmall)) {
      const uint32_t oldest = queues_.front(kSmall);
      const bool entered_now = !(hot.words()[oldest / 64] >> (oldest % 64) & 1);
      if (entered_now) break;
      queues_.remove(oldest);
      if (count_of(oldest) < shares_.threshold) return remember(oldest);
      clear_count(oldest);
      main_.insert(oldest);
      ++main_count_;
    }
    return std::nullopt;
  }

  uint32_t remember(uint32_t place) {
    if (ghost_max_ == 0) return place;
    if (ghost_count_ == ghost_max_) forget(queues_.front(kGhost));
    queues_.push_back(kGhost, place);
    ghost_.insert(place);
    ++ghost_count_;
    return place;
  }

  void forget(uint32_t place) {
    queues_.remove(place);
    ghost_.erase(place);
    --ghost_count_;
  }

  // The hand goes round kCountMax + 1 times at most: then every count has been 0.
  std::optional<uint32_t> leave_main(const HotSet& hot) {
    const uint64_t words = places_.word_count();
    for (uint64_t looks = 0; looks <= (kCountMax + 1) * words; ++looks) {
      const uint64_t counted = count_low_.word(hand_) | count_high_.word(hand_);
      const uint64_t idle = main_.word(hand_) & hot.words()[hand_] & ~counted;
      if (idle != 0) {
        const auto place =
            static_cast<uint32_t>(64 * hand_) + static_cast<uint32_t>(std::countr_zero(idle));
        main_.erase(place);
        --main_count_;
        return place;
      }
      hand_ = hand_ + 1 == words ? 0 : hand_ + 1;
      age(hand_);
    }
    return std::nullopt;
  }

  // Counts of the main queue above 0, less 1.
  void age(uint64_t w) {
    const uint64_t main = main_.word(w), low = count_low_.word(w), high = count_high_.word(w);
    count_low_.word(w) = (low & ~main) | (high & ~low & main);
    count_high_.word(w) = (high & ~main) | (high & low & main);
  }

  const Shares shares_;
  ScorePlaces places_;
  uint64_t swap_count_max_ = 0;  // per step
  uint64_t main_max_ = 0, ghost_max_ = 0;
  PlaceBits main_, ghost_;
  uint64_t main_count_ = 0, ghost_count_ = 0;
  PlaceBits count_low_, count_high_;  // hits of hot neurons
  NeuronLists queues_;                // the small one and the ghost, by place, the oldest first
  uint64_t hand_ = 0;                 // the word of the main queue that is looked at
  RotatingCursor cursor_;
};

}  // namespace

THERMOCLINE_POLICY(s3fifo, "cache: three queues, what is not active again soon leaves soon",
                   S3Fifo);

}  // namespace thermocline
