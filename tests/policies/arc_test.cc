// arc's set-valued form against lists; cache_oracle_test holds the classical one to libcachesim.
#include <list>

#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceArc final : public SlowRun {
 public:
  explicit ReferenceArc(const TinyCase& tiny) : SlowRun(tiny) {
    for (uint32_t flat = 0; flat < total(); ++flat) {
      const uint64_t steps = profile().step_count;
      last_.push_back(steps == 0 ? 0 : static_cast<int64_t>(profile().counts[flat] * 255 / steps));
    }
  }

 private:
  using Order = std::list<uint32_t>;

  FlatSet start() override { return t2_ = hottest(profile(), budget(), 0.0); }

  static bool contains(const Order& order, uint32_t flat) {
    return std::find(order.begin(), order.end(), flat) != order.end();
  }
  static double regret(const Order& own, const Order& other) {
    return std::max(static_cast<double>(other.size()) / static_cast<double>(own.size()), 1.0);
  }

  void step(const FlatSet& active, Moves& moves) override {
    for (const uint32_t flat : active) last_[flat] = now();
    for (auto at = t1_.begin(); at != t1_.end();) {
      const bool joins_t2 = active.count(*at) > 0;
      if (joins_t2) t2_.insert(*at);
      at = joins_t2 ? t1_.erase(at) : std::next(at);
    }
    std::vector<uint32_t> missed;
    std::set_difference(active.begin(), active.end(), hot_.begin(), hot_.end(),
                        std::back_inserter(missed));
    std::rotate(missed.begin(), std::lower_bound(missed.begin(), missed.end(), cursor_),
                missed.end());
    for (const uint32_t flat : missed) {
      if (moves.admit.size() == admit_max() || !enter(flat, moves)) return;
      cursor_ = flat + 1;
    }
  }

  bool enter(uint32_t flat, Moves& moves) {
    const bool t1_may = !t1_.empty() && last_[t1_.front()] < now();
    const auto of_t2 = std::min_element(
        t2_.begin(), t2_.end(), [&](uint32_t a, uint32_t b) { return last_[a] < last_[b]; });
    const bool t2_may = of_t2 != t2_.end() && last_[*of_t2] < now();
    if (!t1_may && !t2_may) return false;
    const bool was_in_b1 = contains(b1_, flat), was_in_b2 = contains(b2_, flat);
    bool remembers = true, t1_gives = false;
    if (was_in_b1) {
      target_ = std::min(target_ + regret(b1_, b2_), static_cast<double>(budget()));
      b1_.remove(flat);
    } else if (was_in_b2) {
      target_ = std::max(target_ - regret(b2_, b1_), 0.0);
      b2_.remove(flat);
    } else if (t1_.size() + b1_.size() >= budget()) {
      if (b1_.empty()) remembers = false;
      if (!b1_.empty()) b1_.pop_front();
    } else if (b1_.size() + b2_.size() >= budget()) {
      b2_.pop_front();
    }
    const auto size = static_cast<double>(t1_.size());
    t1_gives = !remembers || t2_.empty() ||
               (size > 0 && (size > target_ || (size == target_ && was_in_b2)));
    const bool from_t1 = t1_may && (t1_gives || !t2_may);
    const uint32_t victim = from_t1 ? t1_.front() : *of_t2;
    if (from_t1) {
      t1_.pop_front();
      if (remembers) b1_.push_back(victim);
    } else {
      t2_.erase(victim);
      b2_.push_back(victim);
    }
    if (was_in_b1 || was_in_b2) {
      t2_.insert(flat);
    } else {
      t1_.push_back(flat);
    }
    moves.evict.push_back(victim);
    moves.admit.push_back(flat);
    return true;
  }

  int64_t now() const { return 256 + static_cast<int64_t>(now_); }

  std::vector<int64_t> last_;
  FlatSet t2_;
  Order t1_, b1_, b2_;
  double target_ = 0;
  uint32_t cursor_ = 0;
};

}  // namespace

TEST_CASE("arc equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const TinyCase tiny(seed);
    INFO("seed " << seed);
    const HotSetStats stats = tiny.drive(tiny.spec("arc"));
    REQUIRE(stats == ReferenceArc(tiny).run());
    CHECK(stats.refused == 0);
    moved += stats.admitted;
  }
  CHECK(moved > 40000);
}

TEST_CASE("arc keeps what comes back while neurons that never do pass through") {
  const NeuronPool pool{0, 1, 0, 600};
  ActivationProfile profile(pool);
  PoolSteps steps{pool, 120, std::vector<uint64_t>(120 * pool.words_per_step())};
  for (uint64_t i = 0; i < 120; ++i) {
    for (uint32_t flat = 0; flat < 6; ++flat) steps.set(i, 6 * (i % 2) + flat);  // every other step
    for (uint32_t k = 0; k < 4; ++k) steps.set(i, static_cast<uint32_t>(100 + 4 * i + k));
  }
  const auto hits = [&](const char* name) {
    PolicyDriver driver(parse_policies(name)[0], {pool, &profile, nullptr, 16, 16});
    for (uint64_t i = 0; i < 120; ++i) driver.step(steps.step(i));
    return driver.stats().hits;
  };
  CHECK(hits("arc") > 700);  // of 720
  CHECK(hits("fifo") < 600);
}
