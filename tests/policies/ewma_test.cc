// ewma against a slow, obvious version of itself.
#include "tests/policies/slow_scores.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// ewma as its file head describes it, one neuron at a time and everything sorted anew.
class ReferenceEwma final : public SlowRun {
 public:
  ReferenceEwma(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny),
        values_(values),
        scores_(values.at("halflife"), profile()),
        admitted_at_(scores_.size(), -1e9) {
    swaps_ = std::min<uint64_t>(admit_max(), scores_.size());
    if (values.at("cap") > 0) swaps_ = std::min(swaps_, static_cast<uint64_t>(values.at("cap")));
  }

 private:
  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  void search() {
    next_search_ = time_ + values_.at("period");
    victims_.clear();
    for (const uint32_t flat : hot_) {
      if (admitted_at_[flat] + values_.at("residency") <= time_) victims_.push_back(flat);
    }
    std::sort(victims_.begin(), victims_.end(),
              [&](uint32_t a, uint32_t b) { return scores_.is_weaker(a, b); });
    const auto wanted =
        std::clamp<size_t>(static_cast<size_t>(values_.at("period")) * swaps_, 64, 65536);
    if (victims_.size() > wanted) victims_.resize(wanted);
    fired_since_.clear();
  }

  bool may_enter(uint32_t flat) const {
    const double gamma = std::round(values_.at("gamma") * 1024);
    return scores_[flat] * gamma > scores_[victims_.front()] * 1024.0 &&
           scores_[flat] >= scores_.of_share(values_.at("floor"));
  }

  void drop_fired() {
    while (!victims_.empty() && fired_since_.count(victims_.front())) {
      victims_.erase(victims_.begin());
    }
  }

  void step(const FlatSet& active, Moves& moves) override {
    time_ += 1;
    scores_.begin_step();
    if (swaps_ == 0) return;
    drop_fired();
    if (victims_.empty() || time_ >= next_search_) search();
    scores_.add(active);
    std::vector<uint32_t> cold;
    for (const uint32_t flat : active) {
      fired_since_.insert(flat);
      if (!hot_.count(flat)) cold.push_back(flat);
    }
    std::sort(cold.begin(), cold.end(),
              [&](uint32_t a, uint32_t b) { return scores_.is_stronger(a, b); });
    for (size_t i = 0; i < std::min<size_t>(cold.size(), swaps_); ++i) {
      drop_fired();
      if (victims_.empty() || !may_enter(cold[i])) break;
      moves.evict.push_back(victims_.front());
      moves.admit.push_back(cold[i]);
      victims_.erase(victims_.begin());
      admitted_at_[cold[i]] = time_;
    }
  }

  const PolicyValues& values_;
  double time_ = 0, next_search_ = 0;
  uint64_t swaps_ = 0;
  SlowScores scores_;
  FlatSet fired_since_;
  std::vector<uint32_t> victims_;
  std::vector<double> admitted_at_;
};

}  // namespace

TEST_CASE("ewma equals its obvious version on random traces") {
  const std::string variants[] = {
      "ewma", "ewma:halflife=1,residency=0,gamma=1", "ewma:halflife=3,cap=2,period=1,residency=5",
      "ewma:halflife=8,floor=0.3,gamma=0.8", "ewma:halflife=6,residency=0,period=3,gamma=0.9"};
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const TinyCase tiny(seed);
    for (const std::string& variant : variants) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceEwma(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 10000);  // or the comparison says little
}

TEST_CASE("ewma follows a hot set that moves, and its threshold moves with it") {
  const NeuronPool pool{0, 1, 0, 100};
  ActivationProfile profile(pool);
  profile.step_count = 10;
  for (uint32_t i = 0; i < 50; ++i) profile.counts[i] = 9;
  PoolSteps steps{pool, 200, std::vector<uint64_t>(200 * pool.words_per_step())};
  for (uint64_t i = 0; i < 200; ++i) {
    for (uint32_t flat = 50; flat < 100; ++flat) steps.set(i, flat);
  }
  PolicyDriver driver(parse_policies("ewma:halflife=8")[0], {pool, &profile, nullptr, 50, 4});
  std::set<double> thresholds;
  for (uint64_t i = 0; i < 200; ++i) {
    driver.step(steps.step(i));
    CHECK(driver.hot().count() == 50);
    thresholds.insert(driver.hot_threshold().value());
  }
  for (uint32_t flat = 50; flat < 100; ++flat) CHECK(driver.hot().contains(flat));
  CHECK(driver.stats().admitted == 50);
  CHECK(thresholds.size() > 10);
}

TEST_CASE("ewma fills its budget where there is no profile") {
  const NeuronPool pool{0, 2, 0, 70};
  PoolSteps steps{pool, 30, std::vector<uint64_t>(30 * pool.words_per_step())};
  for (uint64_t i = 0; i < 30; ++i) {
    for (uint32_t flat = 0; flat < 140; flat += 3) steps.set(i, flat);
  }
  PolicyDriver driver(parse_policies("ewma")[0], {pool, nullptr, nullptr, 20, 4});
  for (uint64_t i = 0; i < 30; ++i) driver.step(steps.step(i));
  CHECK(driver.hot().count() == 20);
  CHECK(driver.stats().admitted == 20);
  for (uint32_t flat = 0; flat < 60; flat += 3) CHECK(driver.hot().contains(flat));
}
