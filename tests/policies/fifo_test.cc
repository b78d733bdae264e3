// fifo in both forms against a deque.
#include <deque>

#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceFifo final : public SlowRun {
 public:
  using SlowRun::SlowRun;

 private:
  FlatSet start() override {
    const FlatSet hot = hottest(profile(), budget(), 0.0);
    queue_.assign(hot.begin(), hot.end());
    return hot;
  }

  void step(const FlatSet& active, Moves& moves) override {
    std::vector<uint32_t> missed;
    std::set_difference(active.begin(), active.end(), hot_.begin(), hot_.end(),
                        std::back_inserter(missed));
    std::rotate(missed.begin(), std::lower_bound(missed.begin(), missed.end(), cursor_),
                missed.end());
    for (const uint32_t flat : missed) {
      if (moves.admit.size() == std::min(admit_max(), budget())) return;
      moves.evict.push_back(queue_.front());
      moves.admit.push_back(flat);
      queue_.pop_front();
      queue_.push_back(flat);
      cursor_ = flat + 1;
    }
  }

  std::deque<uint32_t> queue_;
  uint32_t cursor_ = 0;
};

uint64_t deque_hits(const TinyCase& tiny) {
  std::deque<uint32_t> queue;
  uint64_t hits = 0;
  for (uint64_t i = 0; i < tiny.steps.step_count; ++i) {
    for (const uint32_t flat : members(tiny.steps, i)) {
      if (std::find(queue.begin(), queue.end(), flat) != queue.end()) {
        ++hits;
        continue;
      }
      queue.push_back(flat);
      if (queue.size() > tiny.context.hot_count_max) queue.pop_front();
    }
  }
  return hits;
}

}  // namespace

TEST_CASE("fifo equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const TinyCase tiny(seed);
    INFO("seed " << seed);
    const HotSetStats stats = tiny.drive(tiny.spec("fifo"));
    REQUIRE(stats == ReferenceFifo(tiny).run());
    CHECK(stats.refused == 0);
    moved += stats.admitted;
  }
  CHECK(moved > 20000);
}

TEST_CASE("fifo's classical form equals a deque on random traces") {
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const TinyCase tiny(seed);
    INFO("seed " << seed);
    REQUIRE(tiny.drive(tiny.spec("fifo"), Fill::demand).hits == deque_hits(tiny));
  }
}

TEST_CASE("fifo lets a neuron go that is active in every step") {
  const NeuronPool pool{0, 1, 0, 8};
  ActivationProfile profile(pool);
  PolicyDriver driver(parse_policies("fifo")[0], {pool, &profile, nullptr, 2, 1});
  PoolSteps steps{pool, 2, std::vector<uint64_t>(2)};
  for (uint64_t i = 0; i < 2; ++i) {
    steps.set(i, 0);
    steps.set(i, static_cast<uint32_t>(i) + 2);
  }
  driver.step(steps.step(0));
  CHECK(driver.hot().words()[0] == 0b110);  // 0 entered first
}
