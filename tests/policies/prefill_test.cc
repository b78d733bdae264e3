// prefill against a slow, obvious version of itself, and against GRIFFIN's own formula.
#include <cmath>

#include "tests/policies/slow_plan.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

class ReferencePrefill final : public SlowRun {
 public:
  ReferencePrefill(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny),
        weight_(std::floor(values.at("w") * 65536 + 0.5)),
        sums_(profile().counts.size()),
        bounds_(profile().pool.layer_count) {}

 private:
  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  void step(const FlatSet& active, Moves& moves) override {
    const ActiveStep step = active_step();
    if (step.prompt) {
      if (!summed_.count(step.task) && chosen_) {
        summed_.clear();
        sums_.assign(sums_.size(), 0);
        bounds_.assign(bounds_.size(), 0);
      }
      summed_.insert(step.task);
      chosen_ = false;
      add(active);
    } else if (!chosen_ && summed_.count(step.task)) {
      chosen_ = true;
      choose();
    }
    plan_.next(hot_.size(), budget(), admit_max(), moves);
  }

  uint32_t width() const { return profile().pool.neuron_count; }

  void add(const FlatSet& active) {
    for (uint32_t layer = 0; layer < bounds_.size(); ++layer) {
      double count = 0;
      for (const uint32_t flat : active) count += flat / width() == layer;
      if (count == 0) continue;
      const double weight = std::min(8192.0, std::floor(16.0 * width() / count + 0.5));
      const bool halve = bounds_[layer] + weight >= 65536;
      bounds_[layer] = (halve ? std::ceil(bounds_[layer] / 2) : bounds_[layer]) + weight;
      for (uint32_t flat = layer * width(); flat < (layer + 1) * width(); ++flat) {
        if (halve) sums_[flat] = std::floor(sums_[flat] / 2);
        if (active.count(flat)) sums_[flat] += weight;
      }
      halved += halve;
    }
  }

  void choose() {
    std::vector<double> worth;
    FlatSet all;
    for (uint32_t flat = 0; flat < sums_.size(); ++flat) {
      const auto steps = static_cast<double>(std::max<uint64_t>(profile().step_count, 1));
      const double share = std::floor(profile().counts[flat] * 65535.0 / steps);
      const double bound = std::max(1.0, bounds_[flat / width()]);
      const double of_prompt =
          std::floor(sums_[flat] * std::floor(65535.0 * 65536 / bound) / 65536);
      worth.push_back(std::floor(((65536 - weight_) * share + weight_ * of_prompt) / 65536));
      all.insert(flat);
    }
    const std::vector<uint32_t> order = by_falling(all, worth);
    const auto end = order.begin() + static_cast<ptrdiff_t>(budget());
    plan_.make(FlatSet(order.begin(), end), hot_, worth);
  }

  double weight_;
  std::vector<double> sums_, bounds_;
  FlatSet summed_;
  bool chosen_ = false;
  SlowPlan plan_;

 public:
  uint64_t halved = 0;
};

}  // namespace

TEST_CASE("prefill equals its obvious version on random traces, alone and in batches") {
  uint64_t moved = 0, halved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    TinyCase tiny(seed);
    tiny.at_once = 1 + seed % 3;
    if (seed % 10 == 9) {  // prompts so long, and so sparse, that sums are halved
      Lcg random(seed);
      tiny.task_steps = 400;
      tiny.prompt_steps = 390;
      tiny.at_once = 1;
      tiny.steps = random_steps(random, tiny.context.pool, 400, 0);
      for (uint64_t& word : tiny.steps.words) word &= 0x0101010101010101;
    }
    for (const char* variant : {"prefill", "prefill:w=0", "prefill:w=1", "prefill:w=0.3"}) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      ReferencePrefill reference(tiny, spec.values);
      REQUIRE(stats == reference.run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
      halved += reference.halved;
    }
  }
  CHECK(moved > 10000);  // or the comparison says little
  CHECK(halved > 10);
}

TEST_CASE("prefill chooses by GRIFFIN's norm over the prompt, and then decodes unmoved") {
  const NeuronPool pool{0, 1, 0, 96};
  ActivationProfile profile(pool);
  profile.step_count = 10;
  for (uint32_t i = 0; i < 48; ++i) profile.counts[i] = 9;
  Lcg random(3);
  const PoolSteps steps = random_steps(random, pool, 100, 7);
  PolicyDriver driver(parse_policies("prefill:w=1")[0], {pool, &profile, nullptr, 32, 1000});
  std::vector<double> squares(96);
  for (uint64_t i = 0; i < 60; ++i) {
    ActiveStep step = steps.step(i);
    step.prompt = true;
    driver.step(step);
    for (const uint32_t flat : members(steps, i)) squares[flat] += 1.0 / step.layer(0).count();
  }
  CHECK(driver.stats().admitted == 0);
  driver.step(steps.step(60));
  std::vector<double> chosen, others;
  for (uint32_t flat = 0; flat < 96; ++flat) {
    (driver.hot().contains(flat) ? chosen : others).push_back(squares[flat]);
  }
  CHECK(chosen.size() == 32);
  const double least = *std::min_element(chosen.begin(), chosen.end());
  const double most = *std::max_element(others.begin(), others.end());
  CHECK(std::sqrt(least) >= 0.995 * std::sqrt(most));
  const uint64_t moved = driver.stats().admitted;
  CHECK(moved > 5);
  for (uint64_t i = 61; i < 100; ++i) driver.step(steps.step(i));
  CHECK(driver.stats().admitted == moved);
}

TEST_CASE("in a batch, a prompt that is still being read moves nothing") {
  const NeuronPool pool{0, 1, 0, 64};
  ActivationProfile profile(pool);
  PolicyDriver driver(parse_policies("prefill:w=1")[0], {pool, &profile, nullptr, 16, 64});
  PoolSteps steps{pool, 2, std::vector<uint64_t>(2)};
  for (uint32_t i = 0; i < 16; ++i) {
    steps.set(0, 16 + i);
    steps.set(1, 32 + i);
  }
  const auto step = [&](uint64_t bits, uint32_t task, bool prompt) {
    ActiveStep active = steps.step(bits);
    active.task = task;
    active.prompt = prompt;
    return driver.step(active).admitted;
  };
  CHECK(step(0, 0, true) == 0);
  CHECK(step(0, 0, false) == 16);
  CHECK(step(1, 1, true) == 0);
  CHECK(step(0, 0, false) == 0);  // the other request goes on
  CHECK(step(1, 1, true) == 0);
  CHECK(step(1, 1, false) == 16);
  CHECK(step(0, 0, false) == 0);
  CHECK(driver.hot().contains(40));
}
