// lru in both forms against lists and sets.
#include <list>

#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// lru as its file head describes it: every swap looks for the least recent anew.
class ReferenceLru final : public SlowRun {
 public:
  explicit ReferenceLru(const TinyCase& tiny) : SlowRun(tiny) {
    for (uint32_t flat = 0; flat < total(); ++flat) {
      const uint64_t steps = profile().step_count;
      last_.push_back(steps == 0 ? 0 : static_cast<int64_t>(profile().counts[flat] * 255 / steps));
    }
  }

 private:
  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  void step(const FlatSet& active, Moves& moves) override {
    for (const uint32_t flat : active) last_[flat] = now();
    FlatSet hot = hot_;
    for (const uint32_t flat : from_cursor(active, hot_)) {
      if (moves.admit.size() == admit_max()) return;
      const auto victim = std::min_element(
          hot.begin(), hot.end(), [&](uint32_t a, uint32_t b) { return last_[a] < last_[b]; });
      if (victim == hot.end() || last_[*victim] == now()) return;
      moves.evict.push_back(*victim);
      moves.admit.push_back(flat);
      hot.erase(victim);
      cursor_ = flat + 1;
    }
  }

  int64_t now() const { return 256 + static_cast<int64_t>(now_); }

  std::vector<uint32_t> from_cursor(const FlatSet& active, const FlatSet& hot) const {
    std::vector<uint32_t> missed;
    std::set_difference(active.begin(), active.end(), hot.begin(), hot.end(),
                        std::back_inserter(missed));
    std::rotate(missed.begin(), std::lower_bound(missed.begin(), missed.end(), cursor_),
                missed.end());
    return missed;
  }

  std::vector<int64_t> last_;
  uint32_t cursor_ = 0;
};

// The classical cache as everyone writes it.
uint64_t list_hits(const TinyCase& tiny) {
  std::list<uint32_t> order;  // the most recent first
  uint64_t hits = 0;
  for (uint64_t i = 0; i < tiny.steps.step_count; ++i) {
    for (const uint32_t flat : members(tiny.steps, i)) {
      const auto found = std::find(order.begin(), order.end(), flat);
      if (found != order.end()) {
        ++hits;
        order.erase(found);
      }
      order.push_front(flat);
      if (order.size() > tiny.context.hot_count_max) order.pop_back();
    }
  }
  return hits;
}

// A pool of `width` neurons of which `begin` to `end` are active in each of `count` steps.
void play(PolicyDriver& driver, const NeuronPool& pool, uint32_t begin, uint32_t end,
          uint64_t count) {
  PoolSteps steps{pool, 1, std::vector<uint64_t>(pool.words_per_step())};
  for (uint32_t flat = begin; flat < end; ++flat) steps.set(0, flat);
  for (uint64_t i = 0; i < count; ++i) driver.step(steps.step(0));
}

}  // namespace

TEST_CASE("lru equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const TinyCase tiny(seed);
    INFO("seed " << seed);
    const HotSetStats stats = tiny.drive(tiny.spec("lru"));
    REQUIRE(stats == ReferenceLru(tiny).run());
    CHECK(stats.refused == 0);
    moved += stats.admitted;
  }
  CHECK(moved > 20000);
}

TEST_CASE("lru's classical form equals a list on thousands of random traces") {
  uint64_t hits = 0;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    const TinyCase tiny(seed);
    INFO("seed " << seed);
    const HotSetStats stats = tiny.drive(tiny.spec("lru"), Fill::demand);
    REQUIRE(stats.hits == list_hits(tiny));
    if (tiny.context.hot_count_max > 0) REQUIRE(stats.admitted == stats.needed - stats.hits);
    hits += stats.hits;
  }
  CHECK(hits > 1000000);
}

TEST_CASE("lru's order outlives its 16-bit clock") {
  const NeuronPool pool{0, 1, 0, 30};
  ActivationProfile profile(pool);
  PolicyDriver driver(parse_policies("lru")[0], {pool, &profile, nullptr, 20, 5});
  play(driver, pool, 0, 10, 65200);
  play(driver, pool, 10, 20, 300);  // 0 to 9 are older by 300 steps, across the clock's end
  play(driver, pool, 20, 25, 1);
  CHECK(driver.hot().words()[0] == 0x1ffffe0);  // the lowest five left
  play(driver, pool, 10, 25, 70000);
  play(driver, pool, 25, 30, 1);
  CHECK(driver.hot().words()[0] == 0x3ffffc00);
}
