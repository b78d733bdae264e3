// s3fifo's set-valued form against queues and counts one by one; cache_oracle_test holds the
// classical one to libcachesim.
#include <deque>

#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceS3Fifo final : public SlowRun {
 public:
  ReferenceS3Fifo(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), values_(values), counts_(total()) {}

 private:
  FlatSet start() override {
    main_ = hottest(profile(), budget(), 0.0);
    const auto share = [&](const char* name) {
      return static_cast<uint64_t>(static_cast<double>(budget()) * values_.at(name));
    };
    const uint64_t small_max = std::max<uint64_t>(share("small"), 1);
    main_max_ = budget() - std::min(budget(), small_max);
    ghost_max_ = share("ghost");
    return main_;
  }

  // Neurons whose bits are in word `w`: the hand looks at them at once.
  uint64_t word_of(uint32_t flat) const {
    const NeuronPool& pool = tiny_.context.pool;
    return flat / pool.neuron_count * pool.words_per_layer() + flat % pool.neuron_count / 64;
  }

  void step(const FlatSet& active, Moves& moves) override {
    std::vector<uint32_t> missed;
    for (const uint32_t flat : active) {
      if (hot_.count(flat)) counts_[flat] = std::min(counts_[flat] + 1, 3);
      if (!hot_.count(flat)) missed.push_back(flat);
    }
    std::rotate(missed.begin(), std::lower_bound(missed.begin(), missed.end(), cursor_),
                missed.end());
    for (const uint32_t flat : missed) {
      if (moves.admit.size() == std::min(admit_max(), budget())) return;
      const auto ghost = std::find(ghost_.begin(), ghost_.end(), flat);
      const bool remembered = ghost != ghost_.end();
      if (remembered) ghost_.erase(ghost);
      const std::optional<uint32_t> victim = make_room();
      if (!victim) return;
      moves.evict.push_back(*victim);
      moves.admit.push_back(flat);
      counts_[flat] = 0;
      if (remembered) {
        main_.insert(flat);
      } else {
        small_.push_back(flat);
      }
      cursor_ = flat + 1;
    }
  }

  std::optional<uint32_t> make_room() {
    const bool main_first = main_.size() > main_max_;
    if (!main_first) {
      if (const auto victim = leave_small()) return victim;
    }
    if (const auto victim = leave_main()) return victim;
    return main_first ? leave_small() : std::nullopt;
  }

  std::optional<uint32_t> leave_small() {
    while (!small_.empty() && hot_.count(small_.front())) {
      const uint32_t flat = small_.front();
      small_.pop_front();
      if (counts_[flat] >= values_.at("threshold")) {
        counts_[flat] = 0;
        main_.insert(flat);
        continue;
      }
      if (ghost_max_ == 0) return flat;
      if (ghost_.size() == ghost_max_) ghost_.pop_front();
      ghost_.push_back(flat);
      return flat;
    }
    return std::nullopt;
  }

  std::optional<uint32_t> leave_main() {
    const uint64_t words = tiny_.context.pool.words_per_step();
    for (uint64_t looks = 0; looks <= 4 * words; ++looks) {
      for (const uint32_t flat : main_) {
        if (word_of(flat) != hand_ || counts_[flat] != 0 || !hot_.count(flat)) continue;
        const uint32_t victim = flat;
        main_.erase(victim);
        return victim;
      }
      hand_ = (hand_ + 1) % words;
      for (const uint32_t flat : main_) {
        if (word_of(flat) == hand_ && counts_[flat] > 0) --counts_[flat];
      }
    }
    return std::nullopt;
  }

  const PolicyValues& values_;
  std::vector<int> counts_;
  FlatSet main_;
  std::deque<uint32_t> small_, ghost_;
  uint64_t main_max_ = 0, ghost_max_ = 0, hand_ = 0;
  uint32_t cursor_ = 0;
};

}  // namespace

TEST_CASE("s3fifo equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const TinyCase tiny(seed);
    for (const char* variant : {"s3fifo", "s3fifo:small=0.4,ghost=2,threshold=1",
                                "s3fifo:small=0.9,ghost=0", "s3fifo:ghost=0.2,threshold=3"}) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceS3Fifo(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 40000);
}

TEST_CASE("s3fifo keeps what comes back while neurons that never do pass through") {
  const NeuronPool pool{0, 1, 0, 600};
  ActivationProfile profile(pool);
  PoolSteps steps{pool, 120, std::vector<uint64_t>(120 * pool.words_per_step())};
  for (uint64_t i = 0; i < 120; ++i) {
    for (uint32_t flat = 0; flat < 6; ++flat) steps.set(i, 6 * (i % 2) + flat);  // every other step
    for (uint32_t k = 0; k < 4; ++k) steps.set(i, static_cast<uint32_t>(100 + 4 * i + k));
  }
  const auto hits = [&](const char* name) {
    PolicyDriver driver(parse_policies(name)[0], {pool, &profile, nullptr, 24, 24});
    for (uint64_t i = 0; i < 120; ++i) driver.step(steps.step(i));
    return driver.stats().hits;
  };
  CHECK(hits("s3fifo") > 700);  // of 720
  CHECK(hits("fifo") < 600);
}
