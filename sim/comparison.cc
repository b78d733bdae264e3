#include "sim/comparison.h"

#include <algorithm>
#include <map>

#include "models/error.h"

namespace thermocline {
namespace {

void compare(TaskAnalysis& analysis, const std::vector<ResampledSide>& sides, size_t row,
             size_t versus) {
  for (const TaskMetric metric : {TaskMetric::hit_ratio, TaskMetric::tpot_ms}) {
    const auto value = ratio_of(sides[row].tasks, metric);
    const auto versus_value = ratio_of(sides[versus].tasks, metric);
    const auto difference = difference_of(sides[row], sides[versus], metric);
    if (!value || !versus_value || !difference) continue;
    analysis.comparisons.push_back({row, versus, metric, *value, *versus_value, *difference});
  }
}

}  // namespace

std::optional<std::string> versus_of(const std::vector<PolicySpec>& policies,
                                     const std::string& named) {
  std::vector<std::string> labels;
  for (const PolicySpec& policy : policies) labels.push_back(policy.label());
  const std::string wanted = named == "fixed" ? "fixed-topk" : named;
  for (const PolicySpec& policy : policies) {
    if (!wanted.empty() && (policy.label() == wanted || policy.entry->name == wanted)) {
      return policy.label();
    }
  }
  if (!wanted.empty()) throw unknown_name("policy of --versus", wanted, labels);
  std::optional<std::string> first;
  for (const PolicySpec& policy : policies) {
    if (policy.entry->name == "fixed-topk") return policy.label();
    if (!first && policy.entry->ranked && !policy.entry->needs_future) first = policy.label();
  }
  return first;
}

TaskAnalysis analyse_tasks(const ReplayResult& result, const std::optional<std::string>& versus,
                           uint64_t seed) {
  TaskAnalysis analysis;
  if (result.rows.empty()) return analysis;
  if (result.rows[0].account.tasks.empty()) {  // a trace without a step
    analysis.rows.resize(result.rows.size());
    return analysis;
  }
  const TaskBootstrap bootstrap(static_cast<uint32_t>(result.rows[0].account.tasks.size()), seed);
  analysis.resample_count = TaskBootstrap::kResamples;
  std::vector<ResampledSide> sides;
  std::map<uint64_t, size_t> versus_at;  // budget -> row
  for (size_t i = 0; i < result.rows.size(); ++i) {
    const ReplayStats& row = result.rows[i];
    sides.push_back(bootstrap.resampled(row.account.tasks));
    analysis.rows.push_back(
        {interval_of(sides[i], TaskMetric::hit_ratio), interval_of(sides[i], TaskMetric::tpot_ms)});
    if (row.policy.label() == versus) versus_at[row.budget_bytes] = i;
  }
  for (size_t i = 0; i < result.rows.size(); ++i) {
    const auto found = versus_at.find(result.rows[i].budget_bytes);
    if (found != versus_at.end() && found->second != i) compare(analysis, sides, i, found->second);
  }
  return analysis;
}

}  // namespace thermocline
