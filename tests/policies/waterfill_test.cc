// waterfill against a slow, obvious version of itself.
#include "tests/policies/slow_plan.h"
#include "tests/policies/slow_scores.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferenceWaterfill final : public SlowRun {
 public:
  ReferenceWaterfill(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), values_(values), scores_(values.at("halflife"), profile()) {}

 private:
  struct Group {
    double gain;
    uint32_t layer;
    std::vector<uint32_t> members;
  };

  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  void step(const FlatSet& active, Moves& moves) override {
    scores_.begin_step();
    scores_.add(active);
    const auto window = static_cast<uint64_t>(values_.at("window"));
    if (budget() > 0 && admit_max() > 0 && (now_ + 1) % window == 0) make_plan();
    plan_.next(hot_.size(), budget(), admit_max(), moves);
  }

  void make_plan() {
    std::vector<double> worth;
    const double bonus = scores_.of_share(values_.at("lambda"));
    for (uint32_t flat = 0; flat < scores_.size(); ++flat) {
      worth.push_back(std::min(65535.0, scores_[flat] + (hot_.count(flat) ? bonus : 0)));
    }
    FlatSet target;
    for (const Group& group : groups_of(worth)) {
      for (const uint32_t flat : group.members) {
        if (target.size() < budget()) target.insert(flat);
      }
    }
    plan_.make(target, hot_, worth);
  }

  std::vector<Group> groups_of(const std::vector<double>& worth) const {
    const auto size = static_cast<size_t>(values_.at("group"));
    const uint32_t width = profile().pool.neuron_count;
    std::vector<Group> groups;
    for (uint32_t layer = 0; layer < profile().pool.layer_count; ++layer) {
      FlatSet all;
      for (uint32_t i = 0; i < width; ++i) all.insert(layer * width + i);
      const std::vector<uint32_t> order = by_falling(all, worth);
      for (size_t i = 0; i < order.size(); i += size) {
        Group group{0, layer, {}};
        for (size_t j = i; j < std::min(order.size(), i + size); ++j) {
          group.members.push_back(order[j]);
          group.gain += std::floor(worth[order[j]] / 16);
        }
        const auto count = static_cast<double>(group.members.size());
        group.gain = std::floor(group.gain * static_cast<double>(size) / count);
        groups.push_back(group);
      }
    }
    std::stable_sort(groups.begin(), groups.end(),
                     [](const Group& a, const Group& b) { return a.gain > b.gain; });
    return groups;
  }

  const PolicyValues& values_;
  SlowScores scores_;
  SlowPlan plan_;
};

}  // namespace

TEST_CASE("waterfill equals its obvious version on random traces") {
  const std::string variants[] = {"waterfill:window=5,group=8", "waterfill:halflife=3,window=1",
                                  "waterfill:halflife=8,window=3,group=16,lambda=0",
                                  "waterfill:halflife=6,window=2,group=8,lambda=0.3",
                                  "waterfill:window=2,group=11,lambda=1"};
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const TinyCase tiny(seed);
    for (const std::string& variant : variants) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceWaterfill(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 10000);  // or the comparison says little
}

// Layer 0 goes silent and layer 1 comes alive: the budget must follow.
TEST_CASE("waterfill moves a layer's share of the budget to where the activity is") {
  const NeuronPool pool{0, 2, 0, 128};
  ActivationProfile profile(pool);
  profile.step_count = 10;
  for (uint32_t i = 0; i < 128; ++i) profile.counts[i] = 9;
  PoolSteps steps{pool, 200, std::vector<uint64_t>(200 * pool.words_per_step())};
  for (uint64_t i = 0; i < 200; ++i) {
    for (uint32_t neuron = 0; neuron < 128; ++neuron) steps.set(i, 128 + neuron);
  }
  const PolicyContext context{pool, &profile, nullptr, 100, 3};
  PolicyDriver driver(parse_policies("waterfill:halflife=8,window=4,group=16")[0], context);
  CHECK(driver.hot().contains(0));
  for (uint64_t i = 0; i < 200; ++i) {
    CHECK(driver.step(steps.step(i)).admitted <= 3);
    CHECK(driver.hot().count() == 100);
  }
  for (uint32_t flat = 0; flat < 128; ++flat) CHECK(!driver.hot().contains(flat));
  CHECK(driver.stats().admitted == 100);
  CHECK(driver.hot_threshold().value() > 0.9);
}

TEST_CASE("waterfill fills its budget from nothing where there is no profile") {
  const TinyCase tiny(4);
  PolicyContext context = tiny.context;
  context.profile = nullptr;
  context.hot_count_max = 20;
  context.admit_count_max = 5;
  PolicyDriver driver(parse_policies("waterfill:window=1")[0], context);
  CHECK(driver.hot().count() == 0);
  for (uint64_t i = 0; i < tiny.steps.step_count; ++i) driver.step(tiny.step(i));
  CHECK(driver.hot().count() == std::min<uint64_t>(20, 5 * tiny.steps.step_count));
  CHECK(driver.stats().refused == 0);
}
