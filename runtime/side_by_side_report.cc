#include "runtime/side_by_side_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/units.h"

namespace thermocline {
namespace {

double per_step_ms(uint64_t ns, const RunOutcome& outcome) {
  const auto steps = static_cast<double>(std::max<uint64_t>(1, outcome.step_count));
  return static_cast<double>(ns) * 1e-6 / steps;
}

}  // namespace

nlohmann::ordered_json side_by_side_facts(const RunPlan& plan, const RunOutcome& outcome,
                                          uint32_t rank) {
  const RankFacts& facts = outcome.ranks[rank];
  const SideBySideTimes& times = facts.side_by_side;
  nlohmann::ordered_json row;
  row["rank"] = plan.job_rank(rank);
  row["tiers"] = name_of(plan.tiers);
  row["tier"] = hot_tiers(plan.tiers).front();
  row["budget_bytes"] = plan.hot_budget(0);
  row["hot_bytes"] = facts.device_tier.hot_bytes;
  row["index_bytes"] = facts.device_tier.index_bytes;
  row["move_buffer_bytes"] = facts.device_tier.move_bytes;
  row["device_bytes"] = facts.device_tier.total();
  row["needed"] = facts.device_counters.needed;
  row[name_of_here(hot_tiers(plan.tiers).front())] = facts.device_counters.here;
  row["moved_bytes"] = facts.device_counters.moved_bytes;
  row["moved_count"] = facts.device_counters.moved_count;
  row["device_ms"] = per_step_ms(times.device_ns, outcome);
  row["host_ms"] = per_step_ms(times.host_ns, outcome);
  row["larger_ms"] = per_step_ms(times.larger_ns, outcome);
  row["merge_ms"] = per_step_ms(times.merge_ns, outcome);
  row["both_ms"] = per_step_ms(times.both_ns, outcome);
  row["both_over_larger"] = times.both_over_larger();
  row["source"] = "measured";
  return row;
}

void print_side_by_side(const RunPlan& plan, const RunOutcome& outcome) {
  if (!has_device_tier(plan.tiers)) return;
  fmt::print(
      "\n{:>4} {:>12} {:>12} {:>11} {:>12} {:>9} {:>9} {:>9} {:>9} {:>6}   ({}; FFN, ms per "
      "step)\n",
      "rank", "hot room", "on device", "device %", "moved/step", "device", "host", "merge", "both",
      "ratio", name_of(plan.tiers));
  for (const RankShare& share : plan.partition.ranks) {
    const RankFacts& facts = outcome.ranks[share.rank];
    const SideBySideTimes& times = facts.side_by_side;
    const double needed = static_cast<double>(std::max<uint64_t>(1, facts.device_counters.needed));
    const uint64_t steps = std::max<uint64_t>(1, outcome.step_count);
    fmt::print(
        "{:>4} {:>12} {:>12} {:>11.2f} {:>12} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>6.2f}\n",
        share.rank, format_bytes(facts.device_tier.hot_bytes),
        format_bytes(facts.device_tier.total()),
        100.0 * static_cast<double>(facts.device_counters.here) / needed,
        format_bytes(facts.device_counters.moved_bytes / steps),
        per_step_ms(times.device_ns, outcome), per_step_ms(times.host_ns, outcome),
        per_step_ms(times.merge_ns, outcome), per_step_ms(times.both_ns, outcome),
        times.both_over_larger());
  }
  fmt::print("ratio: both at once over the larger of the two, layer by layer, plus the merge\n");
}

}  // namespace thermocline
