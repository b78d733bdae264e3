// Policies that never move a neuron, against rank-and-sort.
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

}  // namespace

TEST_CASE("fixed-topk and oracle-static equal rank-and-sort on random traces") {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const TinyCase tiny(seed);
    const uint64_t budget = tiny.context.hot_count_max;
    CHECK(tiny.drive(tiny.spec("fixed-topk")) ==
          reference_static(tiny.steps, hottest(tiny.profile, budget, 0.0)));
    CHECK(tiny.drive(tiny.spec("oracle-static")) ==
          reference_static(tiny.steps, hottest(tiny.future, budget, 0.0)));
  }
}
