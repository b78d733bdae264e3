#include "sim/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "sim/answer_parts.h"
#include "sim/following.h"

namespace thermocline {
namespace {

constexpr double kTieTime = 0.002;  // relative times nearer than this are called equal

// One policy less another at the budgets that both have.
struct Comparison {
  std::string dynamic, fixed;
  std::string cluster;             // that times are modelled on; may be empty
  std::vector<double> percents;    // budgets, of the FFN
  std::vector<double> hit_points;  // dynamic - fixed
  std::vector<double> time_share;  // dynamic / fixed - 1; empty where no times
};

Comparison compare(const Curve& fixed, const Curve& dynamic) {
  Comparison result{dynamic.name, fixed.name, fixed.rows.front()->cluster, {}, {}, {}};
  for (const PolicyRow* a : fixed.rows) {
    const PolicyRow* b = row_at(dynamic, a->budget_bytes);
    if (b == nullptr) continue;
    result.percents.push_back(a->budget_percent);
    result.hit_points.push_back(b->hit_ratio - a->hit_ratio);
    if (a->tpot_ms && b->tpot_ms && a->tpot_ms->mean > 0) {
      result.time_share.push_back(b->tpot_ms->mean / a->tpot_ms->mean - 1);
    }
  }
  return result;
}

// The budgets whose difference has this sign (-1, 0, 1), ties by `tie`.
std::vector<bool> chosen(const std::vector<double>& differences, int sign, double tie) {
  std::vector<bool> list;
  for (const double d : differences) {
    list.push_back((d > tie ? 1 : d < -tie ? -1 : 0) == sign);
  }
  return list;
}

// Least and greatest size of the differences that are no ties and have this sign.
std::pair<double, double> extent(const std::vector<double>& differences, int sign, double tie) {
  double low = INFINITY, high = 0;
  for (const double d : differences) {
    if (sign * d <= tie) continue;
    low = std::min(low, std::abs(d));
    high = std::max(high, std::abs(d));
  }
  return {low, high};
}

std::string hit_sentence(const Comparison& c) {
  const auto at = [&](int sign) { return chosen(c.hit_points, sign, kTieRatio); };
  const auto some = [&](int sign) {
    const std::vector<bool> list = at(sign);
    return std::find(list.begin(), list.end(), true) != list.end();
  };
  const auto by = [&](int sign) {
    const auto [low, high] = extent(c.hit_points, sign, kTieRatio);
    return "by " + range_of(100 * low, 100 * high, " points", high < 0.01 ? 2 : 1);
  };
  if (!some(1) && !some(-1)) {
    return fmt::format("{} and {} have the same hit ratio at {} of the FFN, within 0.05 points.",
                       c.dynamic, c.fixed, budgets_text(c.percents, at(0)));
  }
  std::string text;
  for (const int sign : {1, -1}) {
    if (!some(sign)) continue;
    const std::string& winner = sign > 0 ? c.dynamic : c.fixed;
    const std::string where = budgets_text(c.percents, at(sign));
    text += text.empty() ? fmt::format("{} has the higher hit ratio at {} of the FFN, {}", winner,
                                       where, by(sign))
                         : fmt::format("; {} at {}, {}", winner, where, by(sign));
  }
  if (some(0)) text += "; they tie at " + budgets_text(c.percents, at(0));
  return text + ".";
}

// The same where the least may be none to speak of.
std::string share_range(double low, double high) {
  return low < kTieTime ? "up to " + shares(high, high) : shares(low, high);
}

std::string time_sentence(const Comparison& c) {
  if (c.time_share.empty()) return "No time was modelled.";
  const auto [low, high] = std::minmax_element(c.time_share.begin(), c.time_share.end());
  const std::string begin =
      c.cluster.empty() ? "In the model" : fmt::format("Modelled on {}", c.cluster);
  if (*low > -kTieTime && *high < kTieTime) {
    return begin + ", a token takes both the same time within 0.2 %.";
  }
  const std::string subject = fmt::format("{}, a token takes {} ", begin, c.dynamic);
  if (*high < kTieTime) return subject + share_range(-*high, -*low) + " less time.";
  if (*low > -kTieTime) return subject + share_range(*low, *high) + " more time.";
  return subject +
         fmt::format("from {} less to {} more time.", shares(-*low, -*low), shares(*high, *high));
}

// At the middle budget of `fixed`: what the other needs for the same hit ratio.
std::string memory_sentence(const Curve& fixed, const Curve& dynamic) {
  const PolicyRow& middle = *fixed.rows[fixed.rows.size() / 2];
  const std::string goal =
      fmt::format("the hit ratio that {} has at {:.3g} % of the FFN ({})", fixed.name,
                  middle.budget_percent, percent(middle.hit_ratio));
  const auto needed = percent_for_hit_ratio(dynamic, middle.hit_ratio);
  if (!needed) {
    return fmt::format("Memory: {} does not reach {} within these budgets.", dynamic.name, goal);
  }
  if (*needed <= dynamic.rows.front()->budget_percent) {
    return fmt::format("Memory: {} reaches {} with its least budget, {:.3g} % or less.",
                       dynamic.name, goal, *needed);
  }
  const double share = *needed / middle.budget_percent - 1;
  if (std::abs(share) < 0.005) {
    return fmt::format("Memory: {} needs the same for {}.", dynamic.name, goal);
  }
  return fmt::format(
      "Memory: for {}, {} needs {:.1f} % of it: {:.0f} % {} (interpolated between "
      "budgets).",
      goal, dynamic.name, *needed, 100 * std::abs(share), share < 0 ? "less" : "more");
}

double mean_hit_ratio(const Curve& curve) {
  double sum = 0;
  for (const PolicyRow* row : curve.rows) sum += row->hit_ratio;
  return sum / static_cast<double>(curve.rows.size());
}

// The dynamic policy with the best mean hit ratio.
const Curve* challenger_of(const std::vector<Curve>& curves, const Curve* baseline) {
  const Curve* best = nullptr;
  for (const Curve& curve : curves) {
    if (curve.oracle || &curve == baseline) continue;
    if (best == nullptr || mean_hit_ratio(curve) > mean_hit_ratio(*best)) best = &curve;
  }
  return best;
}

std::vector<std::string> caveats_of(const ModelResults& model) {
  std::set<std::string> weights;
  for (const PolicyRow& row : model.replayed) weights.insert(row.weights);
  if (model.run) weights.insert(model.run->weights);
  if (model.activity) weights.insert(model.activity->weights);
  std::vector<std::string> caveats;
  if (weights.count("synthetic") != 0) {
    caveats.push_back(
        "The weights are synthetic. Sizes, arithmetic and how often neurons fire follow the model "
        "and published statistics; which neurons fire together, and how that changes from task to "
        "task, was generated. So this tells what each policy costs at these sizes. It does "
        "not tell which policy wins on the real checkpoint: for that, a study names its path.");
  }
  if (weights.count("trained-demo") != 0) {
    caveats.push_back(
        "The weights are those of a small model trained for demonstration: its neurons fire as "
        "trained ones do, at sizes far from 70B. So this does not tell which policy wins on "
        "LLaMA-70B: for that, a study names its path.");
  }
  if (model.run && model.comparisons.empty()) {
    caveats.push_back(
        fmt::format("One test trace of {} steps, one seed: differences carry no "
                    "confidence interval.",
                    model.run->step_count));
  }
  return caveats;
}

std::string headline_of(const ModelResults& model, const Curve& fixed, const Curve& dynamic) {
  const Comparison comparison = compare(fixed, dynamic);
  if (comparison.percents.empty()) {
    return "Nothing to compare: no budget is common to two policies.";
  }
  return fmt::format("On {} ({} weights), {} {}", model.label, fixed.rows.front()->weights,
                     hit_sentence(comparison), time_sentence(comparison));
}

const Curve* named(const std::vector<Curve>& curves, const std::string& name) {
  const auto found = std::find_if(curves.begin(), curves.end(),
                                  [&](const Curve& curve) { return curve.name == name; });
  return found == curves.end() ? nullptr : &*found;
}

}  // namespace

std::string range_of(double low, double high, const std::string& unit, int digits) {
  const std::string a = fmt::format("{:.{}f}", low, digits);
  const std::string b = fmt::format("{:.{}f}", high, digits);
  return a == b ? a + unit : a + " to " + b + unit;
}

std::string shares(double low, double high) {
  return range_of(100 * low, 100 * high, " %", high < 0.1 ? 1 : 0);
}

std::string budgets_text(const std::vector<double>& percents, const std::vector<bool>& at) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < at.size(); ++i) {
    if (!at[i]) continue;
    size_t end = i;
    while (end + 1 < at.size() && at[end + 1]) ++end;
    const std::string first = fmt::format("{:.3g}", percents[i]);
    if (end >= i + 2) {
      parts.push_back(fmt::format("{} to {:.3g}", first, percents[end]));
      i = end;
    } else {
      parts.push_back(first);
    }
  }
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
  }
  return text + " %";
}

Answer answer_of(const ModelResults& model) {
  const std::vector<Curve> curves = curves_of(model);
  Answer answer = answer_over_tasks(model).value_or(Answer());
  const std::vector<std::string> caveats = caveats_of(model);
  answer.caveats.insert(answer.caveats.begin(), caveats.begin(), caveats.end());
  answer.following = gain_in_short(model);
  const Curve* fixed = baseline_of(model, curves);
  const Curve* dynamic = named(curves, answer.dynamic);
  if (dynamic == nullptr) dynamic = challenger_of(curves, fixed);
  if (fixed == nullptr || dynamic == nullptr) {
    answer.headline = "Nothing to compare: these results hold fewer than two policies.";
    return answer;
  }
  answer.dynamic = dynamic->name;
  if (answer.headline.empty()) answer.headline = headline_of(model, *fixed, *dynamic);
  if (!compare(*fixed, *dynamic).percents.empty()) {
    answer.memory = memory_sentence(*fixed, *dynamic);
  }
  return answer;
}

std::string percent(double ratio, int digits) {
  return fmt::format("{:.{}f} %", 100 * ratio, digits);
}

std::string points(double difference) { return fmt::format("{:+.1f} points", 100 * difference); }

}  // namespace thermocline
