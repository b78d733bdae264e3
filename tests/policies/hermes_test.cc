// hermes against a slow, obvious version of itself.
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceHermes final : public SlowRun {
 public:
  ReferenceHermes(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), values_(values) {
    const double steps = static_cast<double>(profile().step_count);
    for (const double count : profile().counts) {
      int state = 0;
      if (count * 10 > 9 * steps) {
        state = 15;
      } else if (count * 50 >= steps && steps > 0) {
        state = 1 + std::min(13, static_cast<int>(14 * (50 * count - steps) / (44 * steps)));
      }
      states_.push_back(state);
    }
  }

 private:
  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  uint32_t word_of(uint32_t flat) const {
    const NeuronPool& pool = tiny_.context.pool;
    return flat / pool.neuron_count * pool.words_per_layer() + flat % pool.neuron_count / 64;
  }
  // In index order from a word on, wrapping around; then by state.
  template <class Before>
  void sort(std::vector<uint32_t>& flats, uint32_t from, Before before) const {
    std::stable_partition(flats.begin(), flats.end(),
                          [&](uint32_t flat) { return word_of(flat) >= from; });
    std::stable_sort(flats.begin(), flats.end(), before);
  }
  uint32_t after(uint32_t flat) const {
    return (word_of(flat) + 1) % static_cast<uint32_t>(tiny_.context.pool.words_per_step());
  }

  void step(const FlatSet& active, Moves& moves) override {
    if (budget() == 0 || admit_max() == 0) return;
    const int up = static_cast<int>(values_.at("up")), down = static_cast<int>(values_.at("down"));
    const int threshold = static_cast<int>(values_.at("threshold"));
    std::vector<uint32_t> come, go(hot_.begin(), hot_.end());
    for (uint32_t flat = 0; flat < states_.size(); ++flat) {
      int& state = states_[flat];
      state = active.count(flat) != 0 ? std::min(15, state + up) : std::max(0, state - down);
      const bool missed = active.count(flat) != 0 && hot_.count(flat) == 0;
      if (missed && state > threshold) come.push_back(flat);
    }
    sort(come, come_, [&](uint32_t a, uint32_t b) { return states_[a] > states_[b]; });
    sort(go, go_, [&](uint32_t a, uint32_t b) { return states_[a] < states_[b]; });
    if (come.size() > admit_max()) come.resize(admit_max());
    for (const uint32_t flat : come) {
      if (hot_.size() + moves.admit.size() - moves.evict.size() >= budget()) {
        const size_t victim = moves.evict.size();
        if (victim == go.size() || states_[go[victim]] > threshold) break;
        moves.evict.push_back(go[victim]);
        go_ = after(go[victim]);
      }
      moves.admit.push_back(flat);
      come_ = after(flat);
    }
  }

  const PolicyValues& values_;
  std::vector<int> states_;
  uint32_t come_ = 0, go_ = 0;
};

}  // namespace

TEST_CASE("hermes equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const TinyCase tiny(seed);
    for (const char* variant : {"hermes", "hermes:up=15,threshold=0", "hermes:up=2,threshold=6",
                                "hermes:up=3,down=2,threshold=4", "hermes:threshold=14"}) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceHermes(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 10000);  // or the comparison says little
}

TEST_CASE("hermes keeps who is active more often than one step in five") {
  const NeuronPool pool{0, 1, 0, 90};
  ActivationProfile profile(pool);
  profile.step_count = 100;
  PoolSteps steps{pool, 120, std::vector<uint64_t>(120 * pool.words_per_step())};
  for (uint64_t i = 0; i < 120; ++i) {
    for (uint32_t flat = 0; flat < 90; ++flat) {
      if (i % (flat < 30 ? 3 : 8) == flat % 3) steps.set(i, flat);  // 1 in 3 steps, or 1 in 8
    }
  }
  for (uint32_t flat = 60; flat < 90; ++flat) profile.counts[flat] = 95;  // not any more
  PolicyDriver driver(parse_policies("hermes")[0], {pool, &profile, nullptr, 30, 4});
  for (uint64_t i = 0; i < 120; ++i) driver.step(steps.step(i));
  for (uint32_t flat = 0; flat < 30; ++flat) CHECK(driver.hot().contains(flat));
  CHECK(driver.stats().admitted == 30);
  CHECK(driver.hot_threshold() == 0.2);
}
