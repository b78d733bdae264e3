#include "sim/curves.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>

#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

// What sets a row apart from another of its policy. Parameters tuned for each budget are one curve.
std::vector<std::string> settings_of(const PolicyRow& row) {
  std::vector<std::string> settings;
  if (!row.tuned_on.empty()) {
    settings.push_back("tuned");
  } else {
    for (const std::string_view one : split(row.parameters, ',')) settings.emplace_back(one);
  }
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) settings.push_back(std::string(key) + "=" + value);
  };
  add("fill", row.fill);
  add("pools", row.pools);
  add("group", row.group);
  add("regime", row.regime);
  if (row.migration_bytes) add("migration", format_bytes(*row.migration_bytes));
  return settings;
}

// The policy, and those of its settings that another curve of the same policy has otherwise.
std::string name_among(const std::vector<Curve>& curves, const PolicyRow& row) {
  std::string name = row.policy;
  for (const std::string& setting : settings_of(row)) {
    const auto differs = [&](const Curve& other) {
      const std::vector<std::string> theirs = settings_of(*other.rows.front());
      return other.policy() == row.policy && std::count(theirs.begin(), theirs.end(), setting) == 0;
    };
    if (setting.empty() || std::none_of(curves.begin(), curves.end(), differs)) continue;
    name += name == row.policy ? ':' : ',';
    name += setting;
  }
  return name;
}

// Less is better; policies without the value come last.
using Score = double (*)(const PolicyRow&);
double time_score(const PolicyRow& row) {
  return row.tpot_ms ? row.tpot_ms->mean : std::numeric_limits<double>::max();
}
double hit_score(const PolicyRow& row) { return -row.hit_ratio; }

// Candidates for a line, the best at `budget` first.
std::vector<Curve*> ranked(std::vector<Curve>& curves, uint64_t budget, Score score) {
  std::vector<std::pair<double, Curve*>> scored;
  for (Curve& curve : curves) {
    const PolicyRow* row = row_at(curve, budget);
    if (row != nullptr && !curve.oracle) scored.emplace_back(score(*row), &curve);
  }
  std::stable_sort(scored.begin(), scored.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Curve*> order;
  for (const auto& [value, curve] : scored) order.push_back(curve);
  return order;
}

}  // namespace

std::vector<uint64_t> batches_of(const ModelResults& model) {
  std::vector<uint64_t> batches;
  for (const PolicyRow& row : model.replayed) {
    if (std::count(batches.begin(), batches.end(), row.batch) == 0) batches.push_back(row.batch);
  }
  return batches;
}

std::vector<Curve> curves_of(const ModelResults& model, std::optional<uint64_t> batch) {
  std::vector<Curve> curves;
  if (model.replayed.empty()) return curves;
  for (const PolicyRow& row : model.replayed) {
    if (row.batch != batch.value_or(model.replayed.front().batch)) continue;
    auto found = std::find_if(curves.begin(), curves.end(), [&](const Curve& curve) {
      return curve.policy() == row.policy && settings_of(*curve.rows.front()) == settings_of(row);
    });
    if (found == curves.end()) {
      const auto style = std::count_if(curves.begin(), curves.end(),
                                       [&](const Curve& c) { return c.oracle == row.oracle; });
      curves.push_back({"", row.oracle, static_cast<int>(style), {}});
      found = curves.end() - 1;
    }
    found->rows.push_back(&row);
  }
  for (Curve& curve : curves) {
    std::sort(curve.rows.begin(), curve.rows.end(), [](const PolicyRow* a, const PolicyRow* b) {
      return a->budget_bytes < b->budget_bytes;
    });
    curve.name = name_among(curves, *curve.rows.front());
  }
  return curves;
}

const PolicyRow* row_at(const Curve& curve, uint64_t budget_bytes) {
  for (const PolicyRow* row : curve.rows) {
    if (row->budget_bytes == budget_bytes) return row;
  }
  return nullptr;
}

std::vector<uint64_t> budgets_of(const std::vector<Curve>& curves) {
  std::set<uint64_t> budgets;
  for (const Curve& curve : curves) {
    for (const PolicyRow* row : curve.rows) budgets.insert(row->budget_bytes);
  }
  return {budgets.begin(), budgets.end()};
}

std::optional<double> percent_for_hit_ratio(const Curve& curve, double hit_ratio) {
  const PolicyRow* before = nullptr;
  for (const PolicyRow* row : curve.rows) {
    if (row->hit_ratio >= hit_ratio) {
      if (before == nullptr) return row->budget_percent;
      const double rise = row->hit_ratio - before->hit_ratio;
      const double share = (hit_ratio - before->hit_ratio) / rise;
      return before->budget_percent + share * (row->budget_percent - before->budget_percent);
    }
    before = row;
  }
  return std::nullopt;
}

uint64_t middle_budget(const std::vector<Curve>& curves) {
  for (const Curve& curve : curves) {
    for (const PolicyRow* row : curve.rows) {
      if (row->thresholds) return row->budget_bytes;
    }
  }
  const std::vector<uint64_t> budgets = budgets_of(curves);
  return budgets.empty() ? 0 : budgets[budgets.size() / 2];
}

bool is_fixed(const Curve& curve) {
  const auto still = [](const PolicyRow* row) { return row->moved_bytes_per_token == 0; };
  return curve.policy().starts_with("fixed") ||
         std::all_of(curve.rows.begin(), curve.rows.end(), still);
}

const Curve* baseline_of(const ModelResults& model, const std::vector<Curve>& curves) {
  const auto first = [&](auto fits) -> const Curve* {
    const auto found = std::find_if(curves.begin(), curves.end(),
                                    [&](const Curve& c) { return !c.oracle && fits(c); });
    return found == curves.end() ? nullptr : &*found;
  };
  if (!model.comparisons.empty()) {
    const std::string& versus = model.comparisons.front().versus;
    const Curve* named = first([&](const Curve& curve) { return curve.policy() == versus; });
    if (named != nullptr) return named;
  }
  const Curve* fixed =
      first([](const Curve& curve) { return curve.policy().starts_with("fixed"); });
  return fixed != nullptr ? fixed : first([](const Curve&) { return true; });
}

const ComparisonRow* comparison_of(const ModelResults& model, const PolicyRow& row,
                                   TaskMetric metric) {
  for (const ComparisonRow& one : model.comparisons) {
    if (one.metric == metric && one.budget_bytes == row.budget_bytes && one.batch == row.batch &&
        one.policy == row.policy && one.parameters == row.parameters) {
      return &one;
    }
  }
  return nullptr;
}

void choose_styles(const ModelResults& model, std::vector<Curve>& curves) {
  const std::vector<uint64_t> budgets = budgets_of(curves);
  if (budgets.empty()) return;
  const uint64_t middle = middle_budget(curves);
  for (Curve& curve : curves) {
    if (!curve.oracle) curve.style = -1;
  }
  int next = 0;
  const auto choose = [&](const Curve* chosen) {
    for (Curve& curve : curves) {
      if (&curve == chosen && curve.style < 0 && next < kStylesMax) curve.style = next++;
    }
  };
  choose(baseline_of(model, curves));
  for (const uint64_t budget : {middle, budgets.front(), budgets.back()}) {
    for (const Score score : {time_score, hit_score}) {
      const std::vector<Curve*> order = ranked(curves, budget, score);
      if (!order.empty()) choose(order.front());
    }
  }
  for (const Curve* curve : ranked(curves, middle, time_score)) choose(curve);
}

}  // namespace thermocline
