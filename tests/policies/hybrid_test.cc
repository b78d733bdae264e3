// hybrid against an obvious version that shows its inner policy everything anew.
#include "models/error.h"
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

const PolicyParameter& inner_parameter() { return policies().by_name("hybrid").parameters.at(1); }

std::vector<std::string> inner_policies() {
  std::vector<std::string> names;
  for (const std::string& name : inner_parameter().choices) {
    if (policies().by_name_or_null(name) != nullptr) names.push_back(name);
  }
  return names;
}

class ReferenceHybrid final : public SlowRun {
 public:
  ReferenceHybrid(const TinyCase& tiny, double rho, const std::string& inner)
      : SlowRun(tiny),
        inner_(parse_policies(inner)[0].make()),
        context_(tiny.context),
        profile_(tiny.profile) {
    const auto count = static_cast<uint64_t>(rho * static_cast<double>(budget()) + 0.5);
    pinned_ = hottest(tiny.profile, count, 0);
    for (const uint32_t flat : pinned_) profile_.counts[flat] = 0;
    context_.profile = &profile_;
    context_.future = nullptr;
    context_.future_uses = nullptr;
    context_.hot_count_max = budget() - pinned_.size();
  }

 private:
  FlatSet start() override {
    HotSet chosen(context_.pool);
    inner_->start(context_, chosen);
    FlatSet hot = pinned_;
    for_each_bit(context_.pool, chosen.words(), [&](uint32_t flat) { hot.insert(flat); });
    return hot;
  }

  void step(const FlatSet& active, Moves& moves) override {
    if (context_.hot_count_max == 0) return;
    PoolSteps rest{context_.pool, 1, std::vector<uint64_t>(context_.pool.words_per_step())};
    HotSet unpinned(context_.pool);
    for (const uint32_t flat : active) {
      if (!pinned_.count(flat)) rest.set(0, flat);
    }
    for (const uint32_t flat : hot_) {
      if (!pinned_.count(flat)) unpinned.insert(flat);
    }
    ActiveStep shown = rest.step(0);
    shown.task = active_step().task;
    shown.prompt = active_step().prompt;
    Moves wanted;
    inner_->step(shown, unpinned, wanted);
    for (const uint32_t flat : wanted.evict) {
      if (!pinned_.count(flat)) moves.evict.push_back(flat);
    }
    for (const uint32_t flat : wanted.admit) {
      if (!pinned_.count(flat)) moves.admit.push_back(flat);
    }
  }

  std::unique_ptr<Policy> inner_;
  PolicyContext context_;
  ActivationProfile profile_;
  FlatSet pinned_;
};

}  // namespace

TEST_CASE("hybrid equals its obvious version with every inner policy") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const TinyCase tiny(seed);
    for (const std::string& inner : inner_policies()) {
      for (const double rho : {0.7, 0.25}) {
        const PolicySpec spec =
            tiny.spec("hybrid:inner=" + inner + ",rho=" + (rho == 0.7 ? "0.7" : "0.25"));
        INFO("seed " << seed << ", " << spec.label());
        const HotSetStats stats = tiny.drive(spec);
        REQUIRE(stats == ReferenceHybrid(tiny, rho, inner).run());
        moved += stats.admitted;
      }
    }
  }
  CHECK(moved > 2000);  // or the comparison says little
}

TEST_CASE("hybrid with all pinned is fixed-topk, with nothing pinned the inner policy") {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const TinyCase tiny(seed);
    CHECK(tiny.drive(tiny.spec("hybrid:rho=1")) == tiny.drive(tiny.spec("fixed-topk")));
    for (const std::string& inner : inner_policies()) {
      INFO("seed " << seed << ", " << inner);
      REQUIRE(tiny.drive(tiny.spec("hybrid:rho=0,inner=" + inner)) == tiny.drive(tiny.spec(inner)));
    }
  }
}

TEST_CASE("what hybrid pins stays, while the rest follows what is active") {
  const NeuronPool pool{0, 1, 0, 100};
  ActivationProfile profile(pool);
  profile.step_count = 100;
  for (uint32_t i = 0; i < 100; ++i) profile.counts[i] = 99 - i;
  PoolSteps steps{pool, 200, std::vector<uint64_t>(200 * pool.words_per_step())};
  for (uint64_t i = 0; i < 200; ++i) {
    for (uint32_t flat = 80; flat < 100; ++flat) steps.set(i, flat);
  }
  PolicyDriver driver(parse_policies("hybrid:rho=0.6")[0], {pool, &profile, nullptr, 50, 4});
  for (uint64_t i = 0; i < 200; ++i) driver.step(steps.step(i));
  for (uint32_t flat = 0; flat < 30; ++flat) CHECK(driver.hot().contains(flat));
  for (uint32_t flat = 80; flat < 100; ++flat) CHECK(driver.hot().contains(flat));
  CHECK(driver.stats().admitted == 20);
}

TEST_CASE("an inner policy that is not in this build is a usage error when it is made") {
  for (const std::string& name : inner_parameter().choices) {
    const PolicySpec spec = parse_policies("hybrid:inner=" + name)[0];
    INFO(name);
    if (policies().by_name_or_null(name) != nullptr) {
      CHECK(spec.make() != nullptr);
      continue;
    }
    try {
      spec.make();
      FAIL("made without its inner policy");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::usage);
      CHECK(std::string(error.what()).find("'" + name + "'") != std::string::npos);
    }
  }
}
