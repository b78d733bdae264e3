// dynamicinfer against a slow, obvious version of itself.
#include <map>

#include "tests/policies/slow_plan.h"
#include "tests/policies/slow_scores.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceDynamicInfer final : public SlowRun {
 public:
  ReferenceDynamicInfer(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny),
        values_(values),
        scores_(values.at("halflife"), ActivationProfile(tiny.context.pool)),
        swaps_(admit_max()) {
    if (values.at("swaps") > 0) {
      swaps_ = std::min(swaps_, static_cast<uint64_t>(values.at("swaps")));
    }
  }

 private:
  uint32_t layer_of(uint32_t flat) const { return flat / profile().pool.neuron_count; }
  size_t share_of(uint32_t layer) const {
    const uint32_t count = profile().pool.layer_count;
    return budget() / count + (layer < budget() % count);
  }

  FlatSet start() override {
    std::vector<double> counts(profile().counts.begin(), profile().counts.end());
    return top(counts);
  }

  // The top B_l of each layer.
  FlatSet top(const std::vector<double>& worth) const {
    FlatSet all, chosen;
    for (uint32_t flat = 0; flat < worth.size(); ++flat) all.insert(flat);
    std::vector<size_t> filled(profile().pool.layer_count);
    for (const uint32_t flat : by_falling(all, worth)) {
      if (filled[layer_of(flat)]++ < share_of(layer_of(flat))) chosen.insert(flat);
    }
    return chosen;
  }

  void step(const FlatSet& active, Moves& moves) override {
    if (swaps_ == 0 || budget() == 0) return;
    const uint32_t task = active_step().task;
    in_turns_ |= task < newest_;
    if (task > newest_ && !in_turns_) scores_.clear();
    newest_ = std::max(newest_, task);
    scores_.begin_step();
    scores_.add(active);
    if (now_ % static_cast<uint64_t>(values_.at("period")) == 0) search();
    for (uint64_t i = 0; i < swaps_ && !enter_.empty(); ++i) {
      auto& leave = leave_[layer_of(enter_.front())];
      moves.admit.push_back(enter_.front());
      moves.evict.push_back(leave.front());
      enter_.erase(enter_.begin());
      leave.erase(leave.begin());
    }
  }

  void search() {
    std::vector<double> worth, above;
    const double one = std::min(65535.0, scores_.of_share(values_.at("lambda")));
    for (uint32_t flat = 0; flat < scores_.size(); ++flat) {
      const auto steps = static_cast<double>(std::max<uint64_t>(profile().step_count, 1));
      const double share = std::floor(profile().counts[flat] * 65535.0 / steps);
      worth.push_back(std::floor((scores_[flat] + std::floor(share * one / 65536)) / 2));
    }
    const FlatSet target = top(worth);
    std::map<uint32_t, double> least;
    for (const uint32_t flat : target) {
      const auto entry = least.emplace(layer_of(flat), worth[flat]).first;
      entry->second = std::min(entry->second, worth[flat]);
    }
    for (uint32_t flat = 0; flat < worth.size(); ++flat) {
      above.push_back(worth[flat] - least[layer_of(flat)]);
    }
    enter_ = by_falling(without(target, hot_), above);
    leave_.clear();
    for (const uint32_t flat : by_rising(without(hot_, target), worth)) {
      leave_[layer_of(flat)].push_back(flat);
    }
  }

  const PolicyValues& values_;
  SlowScores scores_;
  uint64_t swaps_;
  uint32_t newest_ = 0;
  bool in_turns_ = false;
  std::vector<uint32_t> enter_;
  std::map<uint32_t, std::vector<uint32_t>> leave_;  // by layer
};

}  // namespace

TEST_CASE("dynamicinfer equals its obvious version on random traces, alone and in batches") {
  const std::string variants[] = {"dynamicinfer", "dynamicinfer:period=1,lambda=0",
                                  "dynamicinfer:halflife=3,period=2,swaps=2",
                                  "dynamicinfer:halflife=1,lambda=1,period=3,swaps=5",
                                  "dynamicinfer:halflife=29,lambda=0.2,period=5"};
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    TinyCase tiny(seed);
    tiny.at_once = 1 + seed % 3;
    for (const std::string& variant : variants) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceDynamicInfer(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 10000);  // or the comparison says little
}

TEST_CASE("dynamicinfer follows a request, swap by swap, and keeps each layer's share") {
  const NeuronPool pool{0, 2, 0, 100};
  ActivationProfile profile(pool);
  profile.step_count = 10;
  for (uint32_t i = 0; i < 100; ++i) profile.counts[i] = profile.counts[100 + i] = i < 30 ? 9 : 0;
  PoolSteps steps{pool, 120, std::vector<uint64_t>(120 * pool.words_per_step())};
  for (uint64_t i = 0; i < 120; ++i) {
    for (uint32_t neuron = 60; neuron < 90; ++neuron) steps.set(i, (i % 2) * 100 + neuron);
  }
  const PolicyContext context{pool, &profile, nullptr, 61, 50};
  PolicyDriver driver(parse_policies("dynamicinfer:halflife=8,swaps=2")[0], context);
  for (uint64_t i = 0; i < 120; ++i) CHECK(driver.step(steps.step(i)).admitted <= 2);
  for (uint32_t neuron = 60; neuron < 90; ++neuron) {
    CHECK(driver.hot().contains(neuron));
    CHECK(driver.hot().contains(100 + neuron));
  }
  CHECK(driver.stats().admitted == 60);
  CHECK(driver.hot_sum_by_layer()[0] == 120 * 31);
  CHECK(driver.hot_sum_by_layer()[1] == 120 * 30);
}

TEST_CASE("dynamicinfer fills its layers from nothing where there is no profile") {
  const NeuronPool pool{0, 3, 0, 90};
  Lcg random(2);
  const PoolSteps steps = random_steps(random, pool, 40, 0);
  PolicyDriver driver(parse_policies("dynamicinfer")[0], {pool, nullptr, nullptr, 100, 7});
  CHECK(driver.hot().count() == 0);
  for (uint64_t i = 0; i < 40; ++i) driver.step(steps.step(i));
  CHECK(driver.hot().count() == 100);
  CHECK(driver.stats().refused == 0);
}
