// The answer where policies were compared task by task: differences with their intervals.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sim/answer_parts.h"

namespace thermocline {
namespace {

using Comparisons = std::vector<const ComparisonRow*>;  // of one metric, budgets ascending

// A dynamic policy against the baseline.
struct Duel {
  const Curve* dynamic = nullptr;
  const Curve* fixed = nullptr;
  const ComparisonRow* hit = nullptr;   // at the middle budget; null where not compared
  const ComparisonRow* time = nullptr;  // the same
  Comparisons hits, times;
};

Duel duel_of(const ModelResults& model, const Curve& fixed, const Curve& dynamic, uint64_t middle) {
  Duel duel{&dynamic, &fixed, nullptr, nullptr, {}, {}};
  for (const PolicyRow* row : dynamic.rows) {
    const ComparisonRow* hit = comparison_of(model, *row, TaskMetric::hit_ratio);
    const ComparisonRow* time = comparison_of(model, *row, TaskMetric::tpot_ms);
    if (hit != nullptr) duel.hits.push_back(hit);
    if (time != nullptr) duel.times.push_back(time);
    if (row->budget_bytes == middle) duel.hit = hit, duel.time = time;
  }
  return duel;
}

// Shares of the other side for times, as they are for hit ratios; more is better.
double gain_of(const ComparisonRow& row) {
  if (row.metric == TaskMetric::hit_ratio) return row.difference;
  return row.versus_value > 0 ? -row.difference / row.versus_value : 0;
}

std::vector<Duel> duels_of(const ModelResults& model, const std::vector<Curve>& curves) {
  std::vector<Duel> duels;
  const Curve* fixed = baseline_of(model, curves);
  const uint64_t middle = middle_budget(curves);
  for (const Curve& curve : curves) {
    if (curve.oracle || &curve == fixed || is_fixed(curve)) continue;
    const Duel duel = duel_of(model, *fixed, curve, middle);
    if (duel.hit != nullptr || duel.time != nullptr) duels.push_back(duel);
  }
  return duels;
}

// The greatest gain at the middle budget; null where none has that comparison.
const Duel* best_of(const std::vector<Duel>& duels, const ComparisonRow* Duel::*metric) {
  const Duel* best = nullptr;
  for (const Duel& duel : duels) {
    if (duel.*metric == nullptr) continue;
    if (best == nullptr || gain_of(*(duel.*metric)) > gain_of(*(best->*metric))) best = &duel;
  }
  return best;
}

// "95 % interval 1.5 to 2.1 points, more in 478 of 500 tasks", of sizes rather than signs where
// the interval is on one side of zero.
std::string support(const ComparisonRow& row, double scale, const std::string& unit, int digits,
                    const std::string& word) {
  const bool below = row.difference < 0;
  const uint64_t agreeing = row.sign() >= 0 ? row.tasks_won : row.tasks_lost;
  const std::string tasks = fmt::format("{} in {} of {} tasks", word, agreeing, row.tasks);
  if (!row.ci95) return tasks + ", too few for an interval";
  double low = scale * row.ci95->low, high = scale * row.ci95->high;
  if (row.sign() == 0) {
    return fmt::format("95 % interval {:+.{}f} to {:+.{}f}{}, {}", low, digits, high, digits, unit,
                       tasks);
  }
  if (below) std::tie(low, high) = std::pair(-high, -low);
  return "95 % interval " + range_of(low, high, unit, digits) + ", " + tasks;
}

std::string hit_sentence(const Duel& duel) {
  const ComparisonRow& row = *duel.hit;
  const std::string where = fmt::format("at {:.3g} % of the FFN", row.budget_percent);
  const int digits = std::abs(row.difference) < 0.002 ? 2 : 1;
  if (row.sign() == 0) {
    return fmt::format(
        "{} and {} hit alike {}, as far as the tasks can tell ({:+.{}f} points; {}).",
        duel.dynamic->name, duel.fixed->name, where, 100 * row.difference, digits,
        support(row, 100, "", digits, "more"));
  }
  const std::string word = row.sign() > 0 ? "more" : "fewer";
  return fmt::format("{} hits {:.{}f} points {} than {} {} ({}).", duel.dynamic->name,
                     100 * std::abs(row.difference), digits, row.sign() > 0 ? "more" : "less",
                     duel.fixed->name, where, support(row, 100, "", digits, word));
}

std::vector<bool> with_sign(const Comparisons& rows, int sign) {
  std::vector<bool> at;
  for (const ComparisonRow* row : rows) at.push_back(row->sign() == sign);
  return at;
}

bool any(const std::vector<bool>& at) { return std::find(at.begin(), at.end(), true) != at.end(); }

std::string budgets_with(const Comparisons& rows, int sign) {
  std::vector<double> percents;
  for (const ComparisonRow* row : rows) percents.push_back(row->budget_percent);
  return budgets_text(percents, with_sign(rows, sign));
}

// The least and the greatest gain of one side, as sizes.
std::string gains_with(const Comparisons& rows, int sign) {
  double low = std::numeric_limits<double>::max(), high = 0;
  for (const ComparisonRow* row : rows) {
    if (row->sign() != sign) continue;
    low = std::min(low, std::abs(gain_of(*row)));
    high = std::max(high, std::abs(gain_of(*row)));
  }
  if (rows.front()->metric == TaskMetric::tpot_ms) return shares(low, high);
  return range_of(100 * low, 100 * high, " points", high < 0.01 ? 2 : 1);
}

// What follows the time at the middle budget: where the other side wins.
std::string elsewhere(const Duel& duel) {
  const int here = duel.time->sign();
  const auto side = [&](int sign) {
    return fmt::format("{} is faster at {}, by {}",
                       sign > 0 ? duel.dynamic->name : duel.fixed->name,
                       budgets_with(duel.times, sign), gains_with(duel.times, sign));
  };
  const bool dynamic_somewhere = any(with_sign(duel.times, 1));
  const bool fixed_somewhere = any(with_sign(duel.times, -1));
  if (here > 0 && fixed_somewhere) return "; but " + side(-1) + ".";
  if (here > 0) return fmt::format("; {} is faster at no budget.", duel.fixed->name);
  if (here < 0 && dynamic_somewhere) return "; " + side(1) + ".";
  if (here < 0) return fmt::format("; {} is faster at no budget.", duel.dynamic->name);
  std::string text;
  for (const int sign : {1, -1}) {
    if (any(with_sign(duel.times, sign))) text += "; " + side(sign);
  }
  return text + ".";
}

std::string time_sentence(const Duel& duel) {
  if (duel.time == nullptr) return "No time was modelled.";
  const ComparisonRow& row = *duel.time;
  const std::string& cluster = duel.dynamic->rows.front()->cluster;
  const std::string begin = cluster.empty() ? "In the model" : "Modelled on " + cluster;
  // In microseconds where there are fewer than 0.1 ms.
  const bool small = std::abs(row.difference) < 0.1;
  const double scale = small ? 1000 : 1, size = scale * std::abs(row.difference);
  const std::string unit = small ? " µs" : " ms";
  const int digits = size < 10 ? 2 : 1;
  const std::string share = shares(std::abs(gain_of(row)), std::abs(gain_of(row)));
  if (row.sign() == 0) {
    return fmt::format(
               "{}, a token takes both the same time there as far as the tasks can tell ({})",
               begin, support(row, scale, unit, digits, "less")) +
           elsewhere(duel);
  }
  const std::string word = row.sign() > 0 ? "less" : "more";
  return fmt::format("{}, a token takes {:.{}f}{} ({}) {} there ({})", begin, size, digits, unit,
                     share, word, support(row, scale, unit, digits, word)) +
         elsewhere(duel);
}

// "Hit ratio by budget: ewma is ahead at 10 and 20 % (by 1.0 to 2.0 points), fixed at 30 % (...)".
std::string by_budget(const Duel& duel, const Comparisons& rows, const std::string& what) {
  if (rows.size() < 2) return "";
  std::string text;
  for (const int sign : {1, -1}) {
    if (!any(with_sign(rows, sign))) continue;
    text += fmt::format("{}{}{} at {} (by {})", text.empty() ? "" : ", ",
                        sign > 0 ? duel.dynamic->name : duel.fixed->name,
                        text.empty() ? " is ahead" : "", budgets_with(rows, sign),
                        gains_with(rows, sign));
  }
  if (any(with_sign(rows, 0))) {
    text += fmt::format("{}the tasks cannot tell at {}", text.empty() ? "" : "; ",
                        budgets_with(rows, 0));
  }
  return what + " by budget: " + text + ".";
}

// Where the fastest policy is not the one that hits most.
std::string most_hits(const Duel& chosen, const Duel& most) {
  if (&chosen == &most || chosen.hit == nullptr) return "";
  const double more = most.hit->difference - chosen.hit->difference;
  if (more < kTieRatio) return "";
  std::string text =
      fmt::format("Most hits at {:.3g} %: {}, {} against {} ({})", most.hit->budget_percent,
                  most.dynamic->name, points(most.hit->difference), most.fixed->name,
                  support(*most.hit, 100, "", 1, most.hit->sign() >= 0 ? "more" : "fewer"));
  if (most.time == nullptr) return text + ".";
  const double gain = gain_of(*most.time);
  return text + fmt::format("; its token takes {} {} time than {}'s.",
                            shares(std::abs(gain), std::abs(gain)), gain >= 0 ? "less" : "more",
                            most.fixed->name);
}

std::string choice_caveat(const Duel& chosen, size_t count, bool by_time) {
  const ComparisonRow& row = by_time ? *chosen.time : *chosen.hit;
  std::string text = fmt::format("Intervals are over the {} tasks of one test trace", row.tasks);
  if (count > 1) {
    text += fmt::format(
        ". {} is the best of {} dynamic policies by {} on these same tasks, a choice that its own "
        "interval does not account for",
        chosen.dynamic->name, count, by_time ? "time" : "hits");
  }
  return text + ".";
}

}  // namespace

std::optional<Answer> answer_over_tasks(const ModelResults& model) {
  const std::vector<Curve> curves = curves_of(model);
  if (model.comparisons.empty() || curves.empty()) return std::nullopt;
  const std::vector<Duel> duels = duels_of(model, curves);
  const Duel* by_time = best_of(duels, &Duel::time);
  const Duel* by_hits = best_of(duels, &Duel::hit);
  const Duel* chosen = by_time != nullptr ? by_time : by_hits;
  if (chosen == nullptr || chosen->hit == nullptr) return std::nullopt;
  Answer answer;
  answer.headline =
      fmt::format("On {} ({}), {} {}", model.label, provenance_of(*chosen->fixed->rows.front()),
                  hit_sentence(*chosen), time_sentence(*chosen));
  for (const std::string& text :
       {by_budget(*chosen, chosen->hits, "Hit ratio"), by_budget(*chosen, chosen->times, "Time"),
        most_hits(*chosen, *by_hits)}) {
    if (!text.empty()) answer.details.push_back(text);
  }
  answer.dynamic = chosen->dynamic->name;
  answer.caveats.push_back(choice_caveat(*chosen, duels.size(), by_time != nullptr));
  return answer;
}

}  // namespace thermocline
