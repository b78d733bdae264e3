#include "sim/tune.h"

#include <algorithm>

namespace thermocline {
namespace {

constexpr int kRounds = 2;

// Mean over the budgets of ms per token, or of the miss ratio.
double score_of(std::span<const ReplayStats> rows) {
  double times = 0, misses = 0;
  bool timed = true;
  for (const ReplayStats& row : rows) {
    const auto tpot = row.account.tpot_ms.distribution();
    timed = timed && tpot.has_value();
    if (tpot) times += tpot->mean;
    misses += 1.0 - hit_ratio(row.total);
  }
  return (timed ? times : misses) / static_cast<double>(rows.size());
}

class Tuner {
 public:
  Tuner(const TraceReader& validation, const TraceReader* profile, const ReplayOptions& options)
      : validation_(validation), profile_(profile), options_(options) {
    options_.progress = nullptr;
    options_.wanted = nullptr;
    options_.rows_done = nullptr;
    options_.keep_steps = false;
  }

  Tuned tune(const PolicySpec& given) {
    Tuned best{given, given, 0, 0, 0};
    best.score_given = best.score = scores({given}).front();
    best.tried = 1;
    for (int round = 0; round < kRounds; ++round) {
      const PolicyValues before = best.policy.values;
      for (const PolicyParameter& parameter : given.entry->parameters) {
        if (given.values.at(parameter.name) == parameter.value_default) improve(best, parameter);
      }
      if (best.policy.values == before) break;
    }
    return best;
  }

 private:
  void improve(Tuned& best, const PolicyParameter& parameter) {
    std::vector<PolicySpec> candidates;
    for (const double value : parameter.tune) {
      if (value == best.policy.values.at(parameter.name)) continue;
      candidates.push_back(best.policy);
      candidates.back().values[parameter.name] = value;
    }
    if (candidates.empty()) return;
    const std::vector<double> found = scores(candidates);
    best.tried += candidates.size();
    const auto least = std::min_element(found.begin(), found.end());
    if (*least >= best.score) return;
    best.score = *least;
    best.policy = candidates[static_cast<size_t>(least - found.begin())];
  }

  std::vector<double> scores(const std::vector<PolicySpec>& policies) {
    options_.policies = policies;
    const ReplayResult result = replay(validation_, profile_, options_);
    std::vector<double> scores;
    for (size_t i = 0; i < policies.size(); ++i) {
      scores.push_back(score_of(
          std::span(result.rows).subspan(i * options_.budgets.size(), options_.budgets.size())));
    }
    return scores;
  }

  const TraceReader& validation_;
  const TraceReader* profile_;
  ReplayOptions options_;
};

}  // namespace

std::vector<Tuned> tune_policies(const TraceReader& validation, const TraceReader* profile,
                                 const ReplayOptions& options,
                                 const std::function<void(const std::string&)>& say) {
  Tuner tuner(validation, profile, options);
  std::vector<Tuned> tuned;
  for (const PolicySpec& policy : options.policies) {
    if (say) say(policy.label());
    tuned.push_back(tuner.tune(policy));
  }
  return tuned;
}

}  // namespace thermocline
