// lfu: the least frequently active neuron leaves. A cache (P8), with ageing on request.
//
// Classical form (--fill demand): every active neuron is a request, a miss is admitted at once with
// a count of 1 and each hit adds 1; the resident with the least count leaves, among equals the one
// that has had its count for longest. A neuron that leaves loses its count (in-cache LFU, as in
// libCacheSim and cachetools, whose hits it equals).
//
// Set-valued form: c_i counts the active steps of every neuron, hot or cold, and starts as its
// count in the profile, shifted down until all have 15 bits; the profile's hottest start hot. After
// a step a missed active neuron with a larger count takes the place of the hot neuron with the
// least, ties by index; the largest counts enter first, up to the migration limit.
//
// Ageing: every `ageing` steps all counts are halved (rounded down), so that old activity fades;
// 0: never. In the classical form a new neuron then stands above those whose count fell to 0, and
// neurons of counts 2n and 2n + 1 follow each other in this order. In the set-valued form counts
// have 16 bits: all are halved as well when one could go beyond them.
#include <algorithm>
#include <array>

#include "sim/policies/parts/neuron_lists.h"
#include "sim/policies/parts/weakest_hot.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

constexpr uint64_t kVictimsMin = 64, kVictimsMax = 65536;  // of one search
constexpr uint16_t kCountMax = UINT16_MAX;

bool is_due(uint64_t step, uint64_t ageing) {
  return ageing != 0 && step != 0 && step % ageing == 0;
}

class Lfu final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        {"ageing",
         0,
         0,
         1e6,
         "steps after which all counts are halved; 0: never",
         true,
         {},
         {64, 512, 4096}},
        {"period", 8, 1, 1024, "steps between two searches for the least counts", true},
    };
  }
  explicit Lfu(const PolicyValues& values)
      : ageing_(static_cast<uint64_t>(values.at("ageing"))),
        period_(static_cast<uint64_t>(values.at("period"))) {}

  class Request final : public RequestPolicy {
   public:
    explicit Request(const PolicyValues& values)
        : ageing_(static_cast<uint64_t>(values.at("ageing"))) {}
    void start(const PolicyContext& context) override {
      counts_.assign(context.pool.total(), 0);
      of_count_ = NeuronLists(context.pool.total(), 2);
    }
    void begin_step(const ActiveStep&) override {
      if (is_due(step_, ageing_)) halve();
      ++step_;
    }
    void hit(uint32_t flat) override {
      of_count_.remove(flat);
      if (++counts_[flat] == of_count_.list_count()) of_count_.add_list();
      of_count_.push_back(counts_[flat], flat);
    }
    uint32_t evict(uint32_t) override {
      while (of_count_.empty(least_)) ++least_;
      return of_count_.pop_front(least_);
    }
    void admit(uint32_t flat) override {
      counts_[flat] = 1;
      of_count_.push_back(1, flat);
      least_ = std::min(least_, 1u);
    }

   private:
    void halve() {
      for (uint32_t count = 1; count < of_count_.list_count(); ++count) {
        of_count_.append(count / 2, count);
      }
      for (uint32_t& count : counts_) count /= 2;
      least_ = 0;
    }

    const uint64_t ageing_;
    uint64_t step_ = 0;
    std::vector<uint32_t> counts_;  // by flat index; of residents
    NeuronLists of_count_;          // a list for each count, the first to have reached it first
    uint32_t least_ = 0;            // no resident has a smaller count
  };

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    swap_count_max_ =
        std::min({context.admit_count_max, context.hot_count_max, context.pool.total()});
    take_counts(context.profile->counts);
    fill_hottest(*context.profile, context.hot_count_max, 0, hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (is_due(step_, ageing_) || count_max_ == kCountMax) halve(active);
    if (step_ >= search_step_ || victims_.weakest(counts_) == nullptr) find_victims(hot);
    ++step_;
    ++count_max_;
    count(active, hot);
    propose(moves);
  }

 private:
  void take_counts(const std::vector<uint32_t>& profile_counts) {
    uint32_t most = 0, shift = 0;
    for (const uint32_t count : profile_counts) most = std::max(most, count);
    while (most >> shift > kCountMax / 2) ++shift;
    counts_.resize(places_.size());
    for (uint32_t flat = 0; flat < profile_counts.size(); ++flat) {
      counts_[places_.place_of(flat)] = static_cast<uint16_t>(profile_counts[flat] >> shift);
    }
    count_max_ = most >> shift;
  }

  void halve(const ActiveStep& active) {
    dense_score_ops<uint16_t>().age_add(counts_.data(), active.words.data(), active.words.size(), 1,
                                        0);
    count_max_ /= 2;
    victims_.clear();
  }

  void find_victims(const HotSet& hot) {
    search_step_ = step_ + period_;
    const uint64_t wanted = std::clamp(period_ * swap_count_max_, kVictimsMin, kVictimsMax);
    victims_.search(counts_, wanted, [&](uint64_t w) { return hot.words()[w]; });
  }

  // Counts the step and collects the missed neurons whose count is above that of the weakest.
  void count(const ActiveStep& active, const HotSet& hot) {
    const auto& ops = dense_score_ops<uint16_t>();
    const ScoredPlace* victim = victims_.weakest(counts_);
    const bool none = victim == nullptr || victim->score >= kCountMax || swap_count_max_ == 0;
    const auto least = static_cast<uint16_t>(none ? 0 : victim->score + 1);
    candidates_.clear();
    for_each_score_block(places_.word_count(), [&](size_t first, size_t size) {
      uint16_t* of_block = counts_.data() + 64 * first;
      ops.age_add(of_block, active.words.data() + first, size, 0, 1);
      if (none) return;
      std::array<uint64_t, kScoreBlockWords> above;
      ops.at_least(of_block, size, least, above.data());
      for (size_t i = 0; i < size; ++i) {
        const uint64_t missed = active.words[first + i] & ~hot.words()[first + i];
        for_each_place(first + i, missed & above[i], [this](uint32_t place) {
          candidates_.push_back({counts_[place], place});
        });
      }
    });
  }

  // The largest counts that may enter, ties by index; `candidates_` is in the order of places.
  void sort_best() {
    const uint64_t size = std::min<uint64_t>(candidates_.size(), swap_count_max_);
    histogram_.clear();
    for (const ScoredPlace& candidate : candidates_) histogram_.add(candidate.score);
    const uint64_t border =
        ScoreHistogram::first_of(histogram_.bucket_reaching(candidates_.size() - size + 1).first);
    std::erase_if(candidates_, [&](const ScoredPlace& item) { return item.score < border; });
    for (ScoredPlace& candidate : candidates_) candidate.score = kCountMax - candidate.score;
    sort_by_score(candidates_, scratch_, kCountMax);
    candidates_.resize(size);
  }

  void propose(Moves& moves) {
    if (candidates_.empty()) return;
    sort_best();
    for (const ScoredPlace& candidate : candidates_) {
      const ScoredPlace* victim = victims_.weakest(counts_);
      if (victim == nullptr || kCountMax - candidate.score <= victim->score) return;
      moves.evict.push_back(places_.flat_of(victim->place));
      moves.admit.push_back(places_.flat_of(candidate.place));
      victims_.pop();
    }
  }

  const uint64_t ageing_;
  const uint64_t period_;
  ScorePlaces places_;
  uint64_t swap_count_max_ = 0;   // per step
  std::vector<uint16_t> counts_;  // c_i by place
  uint32_t count_max_ = 0;        // no count is above it
  uint64_t step_ = 0;
  uint64_t search_step_ = 0;  // when the next search is due
  WeakestHot<uint16_t> victims_;
  std::vector<ScoredPlace> candidates_, scratch_;
  ScoreHistogram histogram_;
};

}  // namespace

THERMOCLINE_POLICY(lfu, "cache: the least frequently active neuron leaves", Lfu);

}  // namespace thermocline
