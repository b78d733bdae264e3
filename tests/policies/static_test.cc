// Policies that never move a neuron, against rank-and-sort and exhaustive search.
#include <cmath>

#include "models/counter_random.h"
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

HotSetStats reference_static(const PoolSteps& steps, const std::set<uint32_t>& hot) {
  HotSetStats stats;
  stats.loaded = stats.hot_count_peak = hot.size();
  for (uint64_t i = 0; i < steps.step_count; ++i) {
    ++stats.step_count;
    stats.hot_count_sum += hot.size();
    for (const uint32_t flat : members(steps, i)) {
      ++stats.needed;
      stats.hits += hot.count(flat);
    }
  }
  return stats;
}

// The same number of each layer, its own hottest; what is left over to the first layers.
FlatSet hottest_by_layer(const ActivationProfile& profile, uint64_t count_max) {
  const NeuronPool& pool = profile.pool;
  FlatSet set;
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    ActivationProfile of_layer({layer, 1, 0, pool.neuron_count});
    std::copy_n(profile.counts.begin() + layer * pool.neuron_count, pool.neuron_count,
                of_layer.counts.begin());
    const uint64_t share = (count_max + pool.layer_count - 1 - layer) / pool.layer_count;
    for (const uint32_t neuron : hottest(of_layer, share, 0)) {
      set.insert(layer * pool.neuron_count + neuron);
    }
  }
  return set;
}

FlatSet start_of(const std::string& policy, const PolicyContext& context) {
  const PolicyDriver driver(parse_policies(policy)[0], context);
  FlatSet set;
  for_each_bit(driver.hot().pool(), driver.hot().words(), [&](uint32_t i) { set.insert(i); });
  return set;
}

uint64_t firings(const ActivationProfile& profile, const FlatSet& set) {
  uint64_t sum = 0;
  for (const uint32_t flat : set) sum += profile.counts[flat];
  return sum;
}

ActivationProfile made_profile(Lcg& random, const NeuronPool& pool) {
  ActivationProfile profile(pool);
  profile.step_count = 1000;
  for (uint32_t& count : profile.counts) count = random.below(random.below(1000) + 1);
  return profile;
}

// The most firings that k[layer] first groups of each layer can have within the budget, each zero
// or at least `floor` neurons: all ways tried.
class Exhaustive {
 public:
  Exhaustive(const ActivationProfile& profile, uint32_t group, double floor)
      : profile_(profile), group_(group), floor_(floor), width_(profile.pool.neuron_count) {
    for (uint32_t layer = 0; layer < profile.pool.layer_count; ++layer) {
      const auto first = profile.counts.begin() + layer * width_;
      sorted_.emplace_back(first, first + width_);
      std::sort(sorted_.back().rbegin(), sorted_.back().rend());
    }
  }
  uint64_t best(uint64_t budget, uint32_t layer = 0) const {
    if (layer == profile_.pool.layer_count) return 0;
    uint64_t most = best(budget, layer + 1), sum = 0;
    for (uint32_t n = 1; n <= width_ && n <= budget; ++n) {
      sum += sorted_[layer][n - 1];
      if ((n % group_ != 0 && n != width_) || n < floor_) continue;
      most = std::max(most, sum + best(budget - n, layer + 1));
    }
    return most;
  }

 private:
  const ActivationProfile& profile_;
  uint32_t group_;
  double floor_;
  uint32_t width_;
  std::vector<std::vector<uint32_t>> sorted_;
};

// Rates at which C_l is `neurons`, a bundle of 1000 bytes.
TierRates rates_for(double neurons) { return {2e9, 1e9, neurons * (1e-6 - 0.5e-6)}; }

}  // namespace

TEST_CASE("fixed-topk and oracle-static equal rank-and-sort on random traces") {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const TinyCase tiny(seed);
    const uint64_t budget = tiny.context.hot_count_max;
    CHECK(tiny.drive(tiny.spec("fixed-topk")) ==
          reference_static(tiny.steps, hottest(tiny.profile, budget, 0.0)));
    CHECK(tiny.drive(tiny.spec("fixed-topk:scope=layer")) ==
          reference_static(tiny.steps, hottest_by_layer(tiny.profile, budget)));
    CHECK(tiny.drive(tiny.spec("oracle-static")) ==
          reference_static(tiny.steps, hottest(tiny.future, budget, 0.0)));
  }
}

TEST_CASE("fixed-threshold equals rank-and-sort, clipped to the budget") {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const TinyCase tiny(seed);
    for (const double theta : {0.0, 0.1, 0.2, 0.5, 1.0}) {
      const std::string text = "fixed-threshold:theta=" + std::to_string(theta);
      const FlatSet hot = hottest(tiny.profile, tiny.context.hot_count_max, theta);
      REQUIRE(tiny.drive(tiny.spec(text)) == reference_static(tiny.steps, hot));
    }
  }
}

TEST_CASE("a share reaches a threshold exactly, and the threshold says what was hot") {
  ActivationProfile profile({0, 1, 0, 5});
  profile.step_count = 100;
  profile.counts = {6, 7, 8, 29, 57};
  const auto at = [&](const char* theta, uint64_t budget) {
    const PolicyContext context{profile.pool, &profile, nullptr, budget, 0};
    const std::string text = std::string("fixed-threshold:theta=") + theta;
    const PolicyDriver driver(parse_policies(text)[0], context);
    return std::pair(driver.hot().count(), driver.hot_threshold().value());
  };
  CHECK(at("0.07", 5) == std::pair<uint64_t, double>(4, 0.07));
  CHECK(at("0.29", 5) == std::pair<uint64_t, double>(2, 0.29));
  CHECK(at("0.57", 5) == std::pair<uint64_t, double>(1, 0.57));
  CHECK(at("0.070001", 5).first == 3);
  CHECK(at("0.07", 2) == std::pair<uint64_t, double>(2, 0.29));
}

TEST_CASE("random draws the same order of neurons for any cut into pools, and hits its share") {
  const NeuronPool whole{0, 3, 0, 160};
  const auto order = [](const NeuronPool& pool, const char* seed) {
    auto policy = parse_policies(std::string("random:seed=") + seed)[0].make();
    std::vector<NeuronId> neurons;
    for (const uint32_t flat :
         dynamic_cast<RankedPolicy&>(*policy).ranking({pool, nullptr, nullptr, 1, 0})) {
      neurons.push_back({pool.layer_begin + flat / pool.neuron_count,
                         pool.neuron_begin + flat % pool.neuron_count});
    }
    return neurons;
  };
  const std::vector<NeuronId> all = order(whole, "1");
  REQUIRE(all.size() == 480);
  CHECK(all != order(whole, "2"));
  for (const NeuronPool& pool : {NeuronPool{1, 2, 0, 160}, NeuronPool{0, 3, 40, 56}}) {
    std::vector<NeuronId> inside;
    for (const NeuronId& id : all) {
      const bool in =
          id.layer >= pool.layer_begin && id.layer < pool.layer_begin + pool.layer_count;
      const uint32_t from = pool.neuron_begin;
      if (in && id.index >= from && id.index < from + pool.neuron_count) inside.push_back(id);
    }
    CHECK(order(pool, "1") == inside);
  }
  // Of any 160 neurons about half are among the first half: 4 standard deviations of a draw.
  for (uint32_t layer = 0; layer < 3; ++layer) {
    const auto in_layer = [&](const NeuronId& id) { return id.layer == layer; };
    CHECK(std::abs(std::count_if(all.begin(), all.begin() + 240, in_layer) - 80) < 21);
  }
}

TEST_CASE("powerinfer without a floor takes the groups with the largest sums") {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Lcg random(seed);
    const NeuronPool pool{0, 3, 0, 128};
    const ActivationProfile profile = made_profile(random, pool);
    const uint64_t budget = random.below(450);
    const PolicyContext context{pool, &profile, nullptr, budget, 0, nullptr, 1000, rates_for(80)};
    const FlatSet hot = start_of("powerinfer:group=32,floor=none", context);
    CHECK(hot.size() == std::min<uint64_t>(budget / 32 * 32, 384));
    REQUIRE(firings(profile, hot) == Exhaustive(profile, 32, 0).best(budget));
    PolicyContext unknown = context;
    unknown.rates = {};
    CHECK(start_of("powerinfer:group=32", unknown) == hot);
    unknown.rates = rates_for(32);  // which any group reaches
    CHECK(start_of("powerinfer:group=32", unknown) == hot);
  }
}

TEST_CASE("powerinfer with a floor is as good as trying everything") {
  uint64_t bound = 0;
  for (uint64_t seed = 0; seed < 150; ++seed) {
    Lcg random(seed);
    const NeuronPool pool{0, 4, 0, 160};
    const ActivationProfile profile = made_profile(random, pool);
    const uint64_t budget = random.below(660);
    const double floor = 1 + random.below(170);
    const PolicyContext context{pool, &profile, nullptr, budget,
                                0,    nullptr,  1000,    rates_for(floor)};
    const FlatSet hot = start_of("powerinfer:group=16", context);
    INFO("seed " << seed << ", budget " << budget << ", floor " << floor);
    REQUIRE(firings(profile, hot) == Exhaustive(profile, 16, floor - 1e-6).best(budget));
    std::vector<uint32_t> by_layer(4);
    for (const uint32_t flat : hot) ++by_layer[flat / 160];
    for (const uint32_t count : by_layer) CHECK((count == 0 || count >= floor - 1e-6));
    bound += firings(profile, hot) < Exhaustive(profile, 16, 0).best(budget);
  }
  CHECK(bound > 30);  // or the floor says little
}

TEST_CASE("powerinfer charges a short last group as a whole one and fills what that saves") {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Lcg random(seed);
    const NeuronPool pool{0, 3, 0, 100};
    const ActivationProfile profile = made_profile(random, pool);
    const uint64_t budget = random.below(310);
    PolicyContext context{pool, &profile, nullptr, budget, 0, nullptr, 1000, rates_for(50)};
    const uint64_t found = firings(profile, start_of("powerinfer:group=32", context));
    const Exhaustive exhaustive(profile, 32, 50 - 1e-6);
    CHECK(found <= exhaustive.best(budget));
    CHECK(found >= exhaustive.best(budget < 96 ? 0 : budget - 96));
    context.hot_count_max = 300;
    CHECK(start_of("powerinfer:group=32,floor=none", context).size() == 300);
    context.rates = {1e9, 2e9, 1e-5};  // the fast tier is the slower one
    CHECK(start_of("powerinfer:group=32", context).empty());
  }
}
