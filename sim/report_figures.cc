// Plots of one model: over budgets, and over the steps of a task.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "models/plot.h"
#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kBudgetAxis = "budget for hot neurons, % of the FFN";

// One point of a curve: y (NaN for none) and its interval.
struct Point {
  double y = kNone;
  std::pair<double, double> interval = {kNone, kNone};
};

// The plotted curves, as `point_of` sees each row.
template <class PointOf>
Plot over_budgets(const std::vector<Curve>& curves, const std::string& y_label, PointOf point_of) {
  Plot plot{kBudgetAxis, y_label, {}, Legend::none};
  for (const Curve& curve : curves) {
    if (curve.style < 0) continue;
    PlotLine line{curve.name, {}, curve.oracle, curve.style};
    for (const PolicyRow* row : curve.rows) {
      const Point point = point_of(*row);
      if (std::isnan(point.y)) continue;
      line.points.emplace_back(row->budget_percent, point.y);
      line.intervals.push_back(point.interval);
    }
    if (!line.points.empty()) plot.lines.push_back(line);
  }
  return plot;
}

Plot time_plot(const std::vector<Curve>& curves) {
  return over_budgets(curves, "time per token, ms", [](const PolicyRow& row) {
    Point point;
    if (row.tpot_ms) point.y = row.tpot_ms->mean;
    if (row.tpot_ci95) point.interval = {row.tpot_ci95->low, row.tpot_ci95->high};
    return point;
  });
}

Plot hit_plot(const std::vector<Curve>& curves) {
  const auto point_of = [](const PolicyRow& row) { return Point{100 * row.hit_ratio}; };
  Plot plot = over_budgets(curves, "hit ratio, %", point_of);
  plot.to_100 = true;
  return plot;
}

// Moves lines sideways, by a seventh of the least distance of budgets each, so that the intervals
// of one budget stand beside each other.
void spread_out(Plot& plot) {
  std::set<double> xs;
  for (const PlotLine& line : plot.lines) {
    for (const auto& [x, y] : line.points) xs.insert(x);
  }
  double gap = 100;
  for (auto x = xs.begin(); x != xs.end() && std::next(x) != xs.end(); ++x) {
    gap = std::min(gap, *std::next(x) - *x);
  }
  const double middle = (static_cast<double>(plot.lines.size()) - 1) / 2;
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    plot.lines[i].aside = (static_cast<double>(i) - middle) * std::min(gap, 10.0) / 7;
  }
}

// Time against the baseline, %: what the plot of times is too coarse to show.
Plot difference_plot(const ModelResults& model, const std::vector<Curve>& curves) {
  const auto compared = [&](const PolicyRow& row) {
    Point point;
    const ComparisonRow* one = comparison_of(model, row, TaskMetric::tpot_ms);
    if (one == nullptr || !(one->versus_value > 0)) return point;
    const double scale = 100 / one->versus_value;
    point.y = scale * one->difference;
    if (one->ci95) point.interval = {scale * one->ci95->low, scale * one->ci95->high};
    return point;
  };
  Plot plot = over_budgets(curves, "less  -  time against the fixed policy, %  -  more", compared);
  plot.zero_line = true;
  spread_out(plot);
  return plot;
}

// Each policy's threshold has a unit of its own, so each is shown against its own mean.
PlotLine threshold_line(const Curve& curve, const ThresholdSeries& series) {
  PlotLine line{curve.name, {}, curve.oracle, curve.style, false};
  double sum = 0, count = 0;
  for (const auto& value : series.values) {
    if (value) sum += *value, ++count;
  }
  const double mean = count > 0 ? sum / count : 0;
  if (!(mean > 0)) return line;
  for (size_t i = 0; i < series.values.size(); ++i) {
    const double y = series.values[i] ? 100 * *series.values[i] / mean : kNone;
    line.points.emplace_back(static_cast<double>(i + 1), y);
  }
  return line;
}

Plot threshold_plot(const std::vector<Curve>& curves, std::string& caption) {
  Plot plot{"decode step of the task", "hot threshold, % of its mean", {}, Legend::none};
  for (const Curve& curve : curves) {
    const PolicyRow* row = row_at(curve, middle_budget(curves));
    if (curve.style < 0 || curve.oracle || row == nullptr || !row->thresholds) continue;
    const PlotLine line = threshold_line(curve, *row->thresholds);
    if (line.points.empty()) continue;
    plot.lines.push_back(line);
    const std::string& task = row->thresholds->task_id;
    caption = fmt::format(
        "Hot threshold over the steps of {} at {:.3g} % of the FFN. Each policy scores neurons in "
        "a unit of its own, so each is shown against its mean over these steps.",
        task.empty() ? "one task" : "task " + task, row->budget_percent);
  }
  return plot;
}

std::string figure(const Plot& plot, const std::string& id, const std::string& caption,
                   std::vector<std::string>& problems) {
  const Drawing drawing = draw(plot, id);
  std::string inside = drawing.svg;
  if (inside.empty()) {
    inside = "<div class=\"noplot\">" + escape_html(drawing.problem) + "</div>";
    if (std::count(problems.begin(), problems.end(), drawing.problem) == 0) {
      problems.push_back(drawing.problem);
    }
  }
  return "<figure>\n" + inside + "\n<figcaption>" + escape_html(caption) +
         "</figcaption>\n</figure>\n";
}

// Where modelled times hold, and what they leave out.
std::string time_caption(const ModelResults& model) {
  std::string text = "Modelled time per token, migrations charged";
  for (const PolicyRow& row : model.replayed) {
    if (row.cluster.empty()) continue;
    text += fmt::format("; on {} ({} figures)", row.cluster,
                        row.cluster_measured ? "measured" : "published");
    if (row.gate == "predicted") {
      text += "; a step reads its active neurons only, and what would predict them is not charged";
    }
    break;
  }
  return text + ".";
}

// Which line is which, once for all plots of the model.
std::string legend(const std::vector<Curve>& curves) {
  std::string html = "<ul class=\"legend\">\n";
  size_t hidden = 0;
  for (const bool oracle : {false, true}) {
    for (int style = 0; style < static_cast<int>(curves.size()); ++style) {
      for (const Curve& curve : curves) {
        if (curve.oracle != oracle || curve.style != style) continue;
        html += "<li>" + policy_name_html(curve) + (oracle ? " (oracle)" : "") + "</li>\n";
      }
    }
  }
  for (const Curve& curve : curves) hidden += curve.style < 0 ? 1 : 0;
  if (hidden > 0) {
    html += fmt::format("<li class=\"oracle\">{} more in the table only</li>\n", hidden);
  }
  return html + "</ul>\n";
}

}  // namespace

std::string policy_name_html(const Curve& curve) {
  const std::string name = escape_html(curve.name);
  std::string swatch = "<span class=\"swatch\"></span>";
  if (curve.style >= 0) {
    const std::string dash = curve.oracle ? "┅" : "━";
    swatch = fmt::format("<span class=\"swatch\" style=\"color:{}\">{}{}{}</span>",
                         plot_colour(curve.style, curve.oracle), dash,
                         plot_marker(curve.style, curve.oracle), dash);
  }
  return swatch + (curve.oracle ? "<span class=\"oracle\">" + name + "</span>" : name);
}

// What the grey lines are worth.
std::string oracle_note(const std::vector<Curve>& curves) {
  const auto has = [&](const std::string& policy) {
    return std::any_of(curves.begin(), curves.end(),
                       [&](const Curve& curve) { return curve.policy() == policy; });
  };
  std::string note;
  if (has("oracle-static")) note += " No set that stays can pass oracle-static.";
  if (has("belady")) {
    note += " belady knows the future, but may move as little as all others: no bound.";
  }
  return note;
}

std::string figures_part(const ModelResults& model, const std::vector<Curve>& curves,
                         const std::string& id, std::vector<std::string>& problems) {
  std::string html = legend(curves) + "<div class=\"figures\">\n";
  html += figure(time_plot(curves), id + "t", time_caption(model), problems);
  const Plot differences = difference_plot(model, curves);
  const Curve* baseline = baseline_of(model, curves);
  if (!differences.lines.empty() && baseline != nullptr) {
    html += figure(differences, id + "d",
                   fmt::format("The same against {} at the same budget, each task against itself. "
                               "Bars: 95 % intervals over tasks; below zero is faster.",
                               baseline->name),
                   problems);
  }
  html += figure(hit_plot(curves), id + "h",
                 "Share of the neurons that fired which were in fast memory." + oracle_note(curves),
                 problems);
  std::string caption;
  const Plot thresholds = threshold_plot(curves, caption);
  if (!thresholds.lines.empty()) html += figure(thresholds, id + "s", caption, problems);
  return html + "</div>\n";
}

}  // namespace thermocline
