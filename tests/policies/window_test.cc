// window against a slow, obvious version of itself.
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceWindow final : public SlowRun {
 public:
  ReferenceWindow(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), fixed_(static_cast<size_t>(values.at("k"))) {}

 private:
  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  FlatSet union_of(size_t steps) const {
    FlatSet joined;
    for (size_t i = 0; i < std::min(steps, history_.size()); ++i) {
      const FlatSet& one = history_[history_.size() - 1 - i];
      joined.insert(one.begin(), one.end());
    }
    return joined;
  }

  uint32_t word_of(uint32_t flat) const {
    const NeuronPool& pool = tiny_.context.pool;
    return flat / pool.neuron_count * pool.words_per_layer() + flat % pool.neuron_count / 64;
  }
  uint32_t take(FlatSet& set, uint32_t& cursor) const {
    auto next = std::find_if(set.begin(), set.end(),
                             [&](uint32_t flat) { return word_of(flat) >= cursor; });
    if (next == set.end()) next = set.begin();
    const uint32_t flat = *next;
    cursor = word_of(flat);
    set.erase(next);
    return flat;
  }

  void step(const FlatSet& active, Moves& moves) override {
    history_.push_back(active);
    size_t steps = fixed_;
    if (fixed_ == 0) {
      steps = 1;
      while (steps < history_.size() && union_of(steps + 1).size() <= budget()) ++steps;
    }
    const FlatSet window = union_of(steps);
    FlatSet missed, outside;
    for (const uint32_t flat : active) {
      if (hot_.count(flat) == 0) missed.insert(flat);
    }
    for (const uint32_t flat : hot_) {
      if (window.count(flat) == 0) outside.insert(flat);
    }
    while (!missed.empty() && moves.admit.size() < admit_max()) {
      if (hot_.size() + moves.admit.size() - moves.evict.size() >= budget()) {
        if (outside.empty()) break;
        moves.evict.push_back(take(outside, go_));
      }
      moves.admit.push_back(take(missed, come_));
    }
  }

  const size_t fixed_;
  std::vector<FlatSet> history_;
  uint32_t come_ = 0, go_ = 0;
};

}  // namespace

TEST_CASE("window equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    const TinyCase tiny(seed);
    for (const char* variant : {"window", "window:k=1", "window:k=2", "window:k=5"}) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceWindow(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 5000);  // or the comparison says little
}

TEST_CASE("the dynamic window is as long as the budget allows") {
  // Steps go round: step i needs neurons 10 (i % 8) to 10 (i % 8) + 9; k steps need 10 k neurons.
  const NeuronPool pool{0, 1, 0, 80};
  const ActivationProfile profile(pool);
  PoolSteps steps{pool, 64, std::vector<uint64_t>(64 * pool.words_per_step())};
  for (uint64_t i = 0; i < 64; ++i) {
    for (uint32_t j = 0; j < 10; ++j) steps.set(i, static_cast<uint32_t>(i % 8 * 10 + j));
  }
  for (const uint32_t k : {1u, 3u, 7u}) {
    PolicyDriver driver(parse_policies("window")[0], {pool, &profile, nullptr, 10 * k + 5, 100});
    for (uint64_t i = 0; i < 64; ++i) {
      driver.step(steps.step(i));
      if (i < k) continue;
      CHECK(driver.hot_threshold() == Approx(1.0 / k));
      for (uint64_t back = 0; back < k; ++back) {
        CHECK(driver.hot().contains(static_cast<uint32_t>((i - back) % 8 * 10)));
      }
    }
  }
}
