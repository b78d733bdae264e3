#include "sim/curve.h"

#include <algorithm>

#include "models/error.h"
#include "models/parallel.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

PoolCurve curve_of(const PolicySpec& spec, const PolicyContext& context,
                   const ActivationProfile& fired) {
  const auto policy = spec.make();
  auto* ranked = dynamic_cast<RankedPolicy*>(policy.get());
  TC_CHECK(ranked != nullptr, spec.label() + " has no curve: it is not one ranking");
  PoolCurve curve;
  curve.pool = context.pool;
  for (const uint32_t count : fired.counts) curve.needed += count;
  const std::vector<uint32_t> ranking = ranked->ranking(context);
  curve.hits.reserve(ranking.size() + 1);
  curve.hits.push_back(0);
  for (const uint32_t flat : ranking) curve.hits.push_back(curve.hits.back() + fired.counts[flat]);
  return curve;
}

}  // namespace

uint64_t BudgetCurve::needed() const {
  uint64_t sum = 0;
  for (const PoolCurve& curve : by_pool) sum += curve.needed;
  return sum;
}

uint64_t BudgetCurve::hits_at(uint64_t budget_bytes) const { return stats_at(budget_bytes).hits; }

HotSetStats BudgetCurve::stats_at(uint64_t budget_bytes) const {
  HotSetStats sum;
  for (const PoolCurve& curve : by_pool) {
    const uint64_t bundles = bundles_of_pool(budget_bytes, bundle_bytes, curve.pool, neuron_count);
    HotSetStats stats;
    stats.step_count = step_count;
    stats.needed = curve.needed;
    stats.hits = curve.hits_at(bundles);
    stats.loaded = stats.hot_count_peak = std::min(bundles, curve.ranked());
    stats.hot_count_sum = stats.loaded * step_count;
    add_pool(sum, stats);
  }
  return sum;
}

std::vector<BudgetCurve> budget_curves(const TraceReader& trace, const TraceReader* profile,
                                       const std::vector<PolicySpec>& policies,
                                       uint32_t thread_count, const TierRates& rates) {
  const TraceHeader& header = trace.header();
  std::vector<BudgetCurve> curves;
  for (const PolicySpec& spec : policies) {
    TC_CHECK(profile != nullptr || spec.entry->needs_future, spec.label() + " needs a profile");
    curves.push_back(
        {spec, trace.step_count(), header.bundle_bytes(), header.shape.neuron_count(), {}});
  }
  for (const NeuronPool& pool : header.pools) {
    const ActivationProfile fired = profile_of(trace, pool, 0, trace.step_count(), thread_count);
    ActivationProfile known;
    if (profile != nullptr) {
      known = profile_of(*profile, pool, 0, profile->step_count(), thread_count);
    }
    std::vector<PoolCurve> of_pool(curves.size());
    for_each_parallel(curves.size(), thread_count, [&](size_t i) {
      PolicyContext context{pool,
                            profile != nullptr ? &known : nullptr,
                            nullptr,
                            pool.total(),
                            0,
                            nullptr,
                            header.bundle_bytes(),
                            rates};
      if (policies[i].entry->needs_future) context.future = &fired;
      of_pool[i] = curve_of(policies[i], context, fired);
    });
    for (size_t i = 0; i < curves.size(); ++i) curves[i].by_pool.push_back(std::move(of_pool[i]));
  }
  return curves;
}

}  // namespace thermocline
