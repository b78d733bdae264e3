// What every registered policy must hold to: budget, determinism, causality, one file each.
#include <catch2/catch.hpp>
#include <filesystem>
#include <set>

#include "sim/policy_driver.h"
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// The default, and every parameter at each end of its range.
std::vector<PolicySpec> variants_of(const PolicyEntry& entry) {
  std::vector<PolicySpec> variants = parse_policies(entry.name);
  for (const PolicyParameter& parameter : entry.parameters) {
    for (const double value : {parameter.value_min, parameter.value_max}) {
      PolicySpec spec = variants.front();
      spec.values[parameter.name] = value;
      variants.push_back(spec);
    }
  }
  return variants;
}

struct Case {
  NeuronPool pool;
  PoolSteps steps;
  ActivationProfile profile, future;
  FutureUses uses;

  explicit Case(uint64_t seed) {
    Lcg random(seed);
    pool = random_pool(random);
    profile = random_steps(random, pool, 30, 0).profile();
    steps = random_steps(random, pool, 80, 20);
    future = steps.profile();
    uses = future_uses_of(steps);
  }
  PolicyContext context(uint64_t hot_max, uint64_t admit_max) const {
    return {pool, &profile, &future, hot_max, admit_max, &uses, 384, {900e9, 60e9, 1e-5}};
  }
};

std::vector<uint32_t> hits_by_step(const PolicySpec& spec, const PolicyContext& context,
                                   const PoolSteps& steps, uint64_t step_count) {
  PolicyDriver driver(spec, context);
  std::vector<uint32_t> hits;
  for (uint64_t i = 0; i < step_count; ++i) hits.push_back(driver.step(steps.step(i)).hits);
  return hits;
}

}  // namespace

TEST_CASE("each file in sim/policies registers one policy of its name") {
  std::set<std::string> files;
  for (const auto& file : std::filesystem::directory_iterator(
           std::filesystem::path(THERMOCLINE_SOURCE_DIR) / "sim" / "policies")) {
    if (file.path().extension() == ".cc") files.insert(policy_name(file.path().stem().string()));
  }
  const auto names = policies().names();
  CHECK(files == std::set<std::string>(names.begin(), names.end()));
  CHECK_FALSE(names.empty());
}

TEST_CASE("every policy documents its parameters and defaults lie in their ranges") {
  for (const PolicyEntry* entry : policies().entries()) {
    INFO(entry->name);
    CHECK_FALSE(entry->summary.empty());
    for (const PolicyParameter& parameter : entry->parameters) {
      INFO(parameter.name);
      CHECK_FALSE(parameter.meaning.empty());
      CHECK(parameter.value_min <= parameter.value_default);
      CHECK(parameter.value_default <= parameter.value_max);
    }
    CHECK(parse_policies(parse_policies(entry->name)[0].resolved()).size() == 1);
  }
}

TEST_CASE("no policy exceeds its budget or its migration limit at any step") {
  for (const PolicyEntry* entry : policies().entries()) {
    for (const PolicySpec& spec : variants_of(*entry)) {
      for (uint64_t seed = 0; seed < 12; ++seed) {
        const Case tiny(seed);
        const uint64_t total = tiny.pool.total();
        for (const uint64_t hot_max : {uint64_t{0}, uint64_t{1}, total / 2, total, total + 5}) {
          INFO(spec.resolved() << ", seed " << seed << ", budget " << hot_max);
          const uint64_t admit_max = seed % 4 * 3;
          PolicyDriver driver(spec, tiny.context(hot_max, admit_max));
          CHECK(driver.hot().count() <= hot_max);
          for (uint64_t i = 0; i < tiny.steps.step_count; ++i) {
            CHECK(driver.step(tiny.steps.step(i)).admitted <= admit_max);
            CHECK(driver.hot().count() <= hot_max);
          }
          CHECK(driver.stats().hot_count_peak <= hot_max);
          CHECK(driver.stats().loaded + driver.stats().admitted - driver.stats().evicted ==
                driver.hot().count());
        }
      }
    }
  }
}

TEST_CASE("every policy decides the same when it runs again") {
  for (const PolicyEntry* entry : policies().entries()) {
    for (const PolicySpec& spec : variants_of(*entry)) {
      const Case tiny(77);
      const PolicyContext context = tiny.context(tiny.pool.total() / 3, 4);
      CHECK(hits_by_step(spec, context, tiny.steps, 80) ==
            hits_by_step(spec, context, tiny.steps, 80));
    }
  }
}

TEST_CASE("an online policy never decides by what comes later") {
  for (const PolicyEntry* entry : policies().entries()) {
    if (entry->needs_future) continue;
    for (const PolicySpec& spec : variants_of(*entry)) {
      const Case tiny(5);
      PolicyContext context = tiny.context(tiny.pool.total() / 3, 4);
      const auto all = hits_by_step(spec, context, tiny.steps, 80);
      // Another future: the driver must not hand it on, and the steps after 40 differ.
      ActivationProfile other_future(tiny.pool);
      FutureUses other_uses{tiny.pool, 0, {}};
      context.future = &other_future;
      context.future_uses = &other_uses;
      PoolSteps other = tiny.steps;
      for (size_t w = 40 * tiny.pool.words_per_step(); w < other.words.size(); ++w) {
        other.words[w] = 0;
      }
      const auto until = hits_by_step(spec, context, other, 40);
      CHECK(std::equal(until.begin(), until.end(), all.begin()));
    }
  }
}

TEST_CASE("a ranked policy is one ranking: nested over budgets, and no step moves a neuron") {
  for (const PolicyEntry* entry : policies().entries()) {
    if (!entry->ranked) continue;
    for (const PolicySpec& spec : variants_of(*entry)) {
      for (uint64_t seed = 0; seed < 6; ++seed) {
        const Case tiny(seed);
        std::vector<uint64_t> smaller(tiny.pool.words_per_step());
        for (uint64_t budget = 0; budget <= tiny.pool.total() + 1; ++budget) {
          INFO(spec.resolved() << ", seed " << seed << ", budget " << budget);
          PolicyDriver driver(spec, tiny.context(budget, 9));
          const auto words = driver.hot().words();
          const std::vector<uint64_t> hot(words.begin(), words.end());
          for (size_t w = 0; w < hot.size(); ++w) REQUIRE((smaller[w] & ~hot[w]) == 0);
          for (uint64_t i = 0; budget % 16 == 0 && i < tiny.steps.step_count; ++i) {
            driver.step(tiny.steps.step(i));
            REQUIRE(std::equal(words.begin(), words.end(), hot.begin()));
          }
          smaller = hot;
        }
      }
    }
  }
}

TEST_CASE("only an oracle gets the future") {
  static const ActivationProfile* seen = nullptr;
  class Spy final : public Policy {
   public:
    void start(const PolicyContext& context, HotSet&) override { seen = context.future; }
  };
  const auto make = [](const PolicyValues&) -> std::unique_ptr<Policy> {
    return std::make_unique<Spy>();
  };
  const Case tiny(1);
  const PolicyEntry online{"spy", "", false, {}, make}, oracle{"spy", "", true, {}, make};
  PolicyDriver({&oracle, {}}, tiny.context(1, 1));
  CHECK(seen == &tiny.future);
  PolicyDriver({&online, {}}, tiny.context(1, 1));
  CHECK(seen == nullptr);
}
