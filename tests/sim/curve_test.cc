// Budget curves against the replay of every single budget.
#include "sim/curve.h"

#include <catch2/catch.hpp>

#include "sim/replay.h"
#include "tests/sim/memory_trace.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

std::vector<PolicySpec> ranked_policies() {
  std::vector<PolicySpec> ranked =
      parse_policies("fixed-topk:scope=layer,fixed-threshold:theta=0.5,random:seed=9");
  for (const PolicyEntry* entry : policies().entries()) {
    if (entry->ranked) ranked.push_back(parse_policies(entry->name)[0]);
  }
  return ranked;
}

}  // namespace

TEST_CASE("a curve has replay's counters at every budget, for any layout and number of threads") {
  for (const std::vector<NeuronPool>& pools :
       {std::vector<NeuronPool>{{0, 3, 0, 136}}, three_rank_header().pools}) {
    for (uint64_t seed = 0; seed < 3; ++seed) {
      const TraceHeader header = memory_header(3, 136, pools);
      const MemoryTrace trace = random_trace(seed, header, 70 + 30 * seed, 20);
      const MemoryTrace profile = random_trace(seed + 50, header, 40, 0);
      ReplayOptions options;
      options.policies = ranked_policies();
      // Every number of bundles of the model, and bytes between and beyond them.
      for (uint64_t bundles = 0; bundles <= 3 * 136 + 2; ++bundles) {
        options.budgets.push_back(bundles * 384 + (bundles % 5 == 0 ? 383 : 0));
      }
      const auto curves =
          budget_curves(trace, &profile, options.policies, 1 + static_cast<uint32_t>(seed));
      const ReplayResult replayed = replay(trace, &profile, options);
      REQUIRE(curves.size() * options.budgets.size() == replayed.rows.size());
      for (size_t i = 0; i < replayed.rows.size(); ++i) {
        const ReplayStats& row = replayed.rows[i];
        const BudgetCurve& curve = curves[i / options.budgets.size()];
        INFO(row.policy.label() << ", " << row.budget_bytes << " bytes");
        REQUIRE(curve.policy.label() == row.policy.label());
        REQUIRE(curve.stats_at(row.budget_bytes) == row.total);
        REQUIRE(curve.hits_at(row.budget_bytes) == row.total.hits);
        REQUIRE(curve.needed() == row.total.needed);
        for (size_t pool = 0; pool < pools.size(); ++pool) {
          REQUIRE(curve.by_pool[pool].hits_at(row.hot_max[pool]) == row.by_pool[pool].hits);
        }
      }
    }
  }
}

TEST_CASE("an oracle's curve needs no profile, and none lies above it") {
  const TraceHeader header = three_rank_header();
  const MemoryTrace trace = random_trace(5, header, 120, 25);
  const MemoryTrace profile = random_trace(6, header, 120, 0);
  const auto oracle = budget_curves(trace, nullptr, parse_policies("oracle-static"));
  const auto all = budget_curves(trace, &profile, ranked_policies());
  for (const BudgetCurve& curve : all) {
    for (uint64_t bundles = 0; bundles <= 408; ++bundles) {
      REQUIRE(curve.hits_at(bundles * 384) <= oracle[0].hits_at(bundles * 384));
    }
  }
  CHECK(oracle[0].hits_at(UINT64_MAX) == oracle[0].needed());
}
