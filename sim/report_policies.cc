// Tables of one model: its policies at a budget, at all budgets, and by batch.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "models/units.h"
#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

// One line of a table, and what its budget's line is judged by.
struct Line {
  const ModelResults& model;
  const std::vector<Curve>& curves;
  const Curve& curve;
  const PolicyRow& row;
};

struct Column {
  HtmlCell head;
  std::function<HtmlCell(const Line&)> cell;  // empty where there is no value
};

std::string small(const std::string& text) { return "<small>" + escape_html(text) + "</small>"; }

// Whether no policy that could run live is better at the row's budget.
template <class Value>
bool is_best(const Line& line, double tie, Value value) {
  if (line.curve.oracle) return false;
  for (const Curve& curve : line.curves) {
    const PolicyRow* other = row_at(curve, line.row.budget_bytes);
    if (other == nullptr || curve.oracle) continue;
    if (value(*other) > value(line.row) + tie) return false;
  }
  return true;
}

std::string strong_if(bool strong, const std::string& html) {
  return strong ? "<strong>" + html + "</strong>" : html;
}

HtmlCell hit_cell(const Line& line) {
  const bool best = is_best(line, kTieRatio, [](const PolicyRow& row) { return row.hit_ratio; });
  return value_cell(line.row.hit_ratio, strong_if(best, percent(line.row.hit_ratio)));
}

// In the unit and with the digits that milliseconds() gives `mean`.
std::string interval_text(const Interval& ms, double mean) {
  if (mean < 0.1) return fmt::format("{:.3g} to {:.3g}", 1000 * ms.low, 1000 * ms.high);
  const int digits = mean < 10 ? 2 : 1;
  return fmt::format("{:.{}f} to {:.{}f}", ms.low, digits, ms.high, digits);
}

HtmlCell time_cell(const Line& line) {
  if (!line.row.tpot_ms) return number_cell("");
  const auto speed = [](const PolicyRow& row) {
    return row.tpot_ms ? -row.tpot_ms->mean : -std::numeric_limits<double>::max();
  };
  const double mean = line.row.tpot_ms->mean;
  std::string html = strong_if(is_best(line, 0.0005 * mean, speed),
                               milliseconds(mean) + (line.row.fits ? "" : " *"));
  if (line.row.tpot_ci95) html += small(interval_text(*line.row.tpot_ci95, mean));
  return value_cell(mean, html);
}

const char* css_of(const ComparisonRow& row) {
  return row.sign() > 0 ? "better" : row.sign() < 0 ? "worse" : "even";
}

// The difference in percent, `scale` times the row's own unit, above its interval.
HtmlCell difference_cell(const Line& line, TaskMetric metric) {
  const std::vector<ComparisonRow>& all = line.model.comparisons;
  const bool any = std::any_of(all.begin(), all.end(),
                               [&](const ComparisonRow& row) { return row.metric == metric; });
  if (!any) return number_cell("");
  const Curve* baseline = baseline_of(line.model, line.curves);
  if (&line.curve == baseline) return value_cell(0, "base", "even");
  const ComparisonRow* one = comparison_of(line.model, line.row, metric);
  if (one == nullptr) return number_cell("");
  const bool time = metric == TaskMetric::tpot_ms;
  if (time && !(one->versus_value > 0)) return number_cell("");
  const double scale = time ? 100 / one->versus_value : 100;
  std::string html = fmt::format("{:+.1f}{}", scale * one->difference, time ? " %" : "");
  if (one->ci95) {
    html +=
        small(fmt::format("{:+.1f} to {:+.1f}", scale * one->ci95->low, scale * one->ci95->high));
  }
  return value_cell(scale * one->difference, html, css_of(*one));
}

// The regret of the row, or against the oracle's own row.
HtmlCell regret_cell(const Line& line, const std::optional<double>& regret,
                     const std::string& oracle) {
  std::optional<double> value = regret;
  for (const Curve& curve : line.curves) {
    if (value || curve.policy() != oracle) continue;
    const PolicyRow* bound = row_at(curve, line.row.budget_bytes);
    if (bound != nullptr) value = bound->hit_ratio - line.row.hit_ratio;
  }
  if (line.curve.policy() == oracle) return value_cell(0, "the oracle", "even");
  if (!value) return number_cell("");
  return value_cell(*value, fmt::format("{:.1f}", 100 * *value));
}

HtmlCell tail_cell(const Line& line) {
  if (!line.row.tpot_ms) return number_cell("");
  const Distribution& time = *line.row.tpot_ms;
  return value_cell(time.p95, milliseconds(time.p95) + small("p99 " + milliseconds(time.p99)));
}

// The name, and below it where the weights come from.
HtmlCell policy_cell(const Line& line) {
  return {policy_name_html(line.curve) + small(line.row.weights + " weights"), "policy", 1,
          line.curve.name};
}

HtmlCell moved_cell(const Line& line) {
  HtmlCell cell = bytes_cell(line.row.moved_bytes_per_token);
  if (line.row.wasted_bytes_per_token && line.row.moved_bytes_per_token > 0) {
    const double share = *line.row.wasted_bytes_per_token / line.row.moved_bytes_per_token;
    cell.html += small(fmt::format("{:.0f} % wasted", 100 * share));
  }
  return cell;
}

HtmlCell peak_cell(const Line& line) {
  HtmlCell cell = bytes_cell(static_cast<double>(line.row.hot_bytes_peak));
  if (line.row.hot_bytes_mean) {
    const auto mean = static_cast<uint64_t>(*line.row.hot_bytes_mean + 0.5);
    cell.html += small("mean " + format_bytes(mean));
  }
  return cell;
}

HtmlCell optional_cell(const std::optional<double>& value, const char* format) {
  return value ? value_cell(*value, fmt::format(fmt::runtime(format), *value)) : number_cell("");
}

HtmlCell budget_cell(const Line& line) {
  HtmlCell cell = value_cell(static_cast<double>(line.row.budget_bytes),
                             fmt::format("{:.3g} %", line.row.budget_percent));
  cell.html += small(format_bytes(line.row.budget_bytes));
  return cell;
}

HtmlCell first_token_cell(const Line& line) {
  if (!line.row.ttft_ms) return number_cell("");
  return value_cell(line.row.ttft_ms->mean, milliseconds(line.row.ttft_ms->mean));
}

std::vector<Column> result_columns(const std::string& baseline) {
  const auto difference = [](TaskMetric metric) {
    return [metric](const Line& line) { return difference_cell(line, metric); };
  };
  const auto below_static = [](const Line& line) {
    return regret_cell(line, line.row.regret_static, "oracle-static");
  };
  const auto below_clairvoyant = [](const Line& line) {
    return regret_cell(line, line.row.regret_clairvoyant, "belady");
  };
  const auto missed = [](const Line& line) { return bytes_cell(line.row.miss_bytes_per_token); };
  return {{{"Policy", "policy", 1}, policy_cell},
          {number_cell("Time per token"), time_cell},
          {number_cell("against " + baseline), difference(TaskMetric::tpot_ms)},
          {number_cell("Time p95"), tail_cell},
          {number_cell("Hit ratio"), hit_cell},
          {number_cell("points against " + baseline), difference(TaskMetric::hit_ratio)},
          {number_cell("Points below static oracle"), below_static},
          {number_cell("Points below clairvoyant"), below_clairvoyant},
          {number_cell("Missed per token"), missed},
          {number_cell("Moved per token"), moved_cell},
          {number_cell("Peak hot bytes"), peak_cell}};
}

std::vector<Column> further_columns() {
  const auto moves = [](const Line& line) {
    return optional_cell(line.row.migrations_per_token, "{:.1f}");
  };
  const auto hidden = [](const Line& line) {
    const std::optional<double>& ms = line.row.tpot_hidden_ms;
    return ms ? value_cell(*ms, milliseconds(*ms)) : number_cell("");
  };
  const auto per_gib = [](const Line& line) {
    return optional_cell(line.row.tokens_per_s_per_gib, "{:.3g}");
  };
  return {{number_cell("Moves per token"), moves},
          {number_cell("Moving hidden behind compute"), hidden},
          {number_cell("First token"), first_token_cell},
          {number_cell("Tokens/s per GiB"), per_gib}};
}

// `all`: of every budget, with the columns that a first look does without.
std::vector<Column> columns_of(const ModelResults& model, const std::vector<Curve>& curves,
                               bool all) {
  const Curve* baseline = baseline_of(model, curves);
  std::vector<Column> columns;
  if (all) columns.push_back({number_cell("Budget of the FFN"), budget_cell});
  for (const auto& column : result_columns(baseline == nullptr ? "fixed" : baseline->name)) {
    columns.push_back(column);
  }
  if (!all) return columns;
  for (const Column& column : further_columns()) columns.push_back(column);
  return columns;
}

// Fastest first, or by hits where no time was modelled; oracles last.
std::vector<Line> lines_at(const ModelResults& model, const std::vector<Curve>& curves,
                           uint64_t budget) {
  std::vector<const Curve*> order;
  for (const Curve& curve : curves) {
    if (row_at(curve, budget) != nullptr) order.push_back(&curve);
  }
  const auto key = [&](const Curve* curve) {
    const PolicyRow& row = *row_at(*curve, budget);
    return std::tuple(curve->oracle, row.tpot_ms ? row.tpot_ms->mean : 0, -row.hit_ratio);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Curve* a, const Curve* b) { return key(a) < key(b); });
  std::vector<Line> lines;
  for (const Curve* curve : order)
    lines.push_back({model, curves, *curve, *row_at(*curve, budget)});
  return lines;
}

// Without the columns in which no line has a value.
std::string table_of(const std::vector<Column>& columns, const std::vector<Line>& lines) {
  std::vector<std::vector<HtmlCell>> rows(lines.size());
  std::vector<HtmlCell> head;
  for (const Column& column : columns) {
    std::vector<HtmlCell> cells;
    for (const Line& line : lines) cells.push_back(column.cell(line));
    const auto empty = [](const HtmlCell& cell) { return cell.html.empty(); };
    if (std::all_of(cells.begin(), cells.end(), empty)) continue;
    head.push_back(column.head);
    for (size_t i = 0; i < lines.size(); ++i) rows[i].push_back(cells[i]);
  }
  std::vector<std::string> html;
  for (const auto& row : rows) html.push_back(html_row(row));
  return html_sortable_table(head, html);
}

std::string table_note(const ModelResults& model) {
  std::string text =
      "Fastest first, oracles last. Bold: the best of the policies that could run live, ties "
      "included. Missed: read from slow memory. A click on a head sorts.";
  if (!model.comparisons.empty()) {
    text += " Small: 95 % intervals over tasks; grey: the interval holds zero.";
  }
  const bool all_fit = std::all_of(model.replayed.begin(), model.replayed.end(),
                                   [](const PolicyRow& row) { return row.fits; });
  return all_fit ? text : text + " *: does not fit into the memory of the cluster modelled.";
}

std::string batch_text(uint64_t batch) {
  return batch == 1 ? "one sequence" : fmt::format("batch of {}", batch);
}

}  // namespace

std::string policies_part(const ModelResults& model, const std::vector<Curve>& curves) {
  const uint64_t middle = middle_budget(curves);
  const std::vector<Line> lines = lines_at(model, curves, middle);
  if (lines.empty()) return "";
  std::string html = fmt::format("<h3>All policies at {:.3g} % of the FFN, {} {}</h3>\n",
                                 lines.front().row.budget_percent,
                                 escape_html(format_bytes(middle)), tag("modelled"));
  html += paragraph("under", table_note(model));
  html += table_of(columns_of(model, curves, false), lines);
  const std::vector<uint64_t> budgets = budgets_of(curves);
  if (budgets.size() < 2) return html;
  std::vector<Line> all;
  for (const uint64_t budget : budgets) {
    for (const Line& line : lines_at(model, curves, budget)) all.push_back(line);
  }
  return html + html_details(fmt::format("All {} budgets, with more columns", budgets.size()),
                             table_of(columns_of(model, curves, true), all));
}

std::string batches_part(const ModelResults& model, const std::vector<Curve>& curves) {
  const std::vector<uint64_t> batches = batches_of(model);
  if (batches.size() < 2) return "";
  const uint64_t middle = middle_budget(curves);
  std::vector<HtmlCell> head = {{"Policy", "policy", 1}};
  std::vector<std::vector<Curve>> by_batch;
  for (const uint64_t batch : batches) {
    by_batch.push_back(curves_of(model, batch));
    head.push_back(number_cell("Hit ratio, " + batch_text(batch)));
    head.push_back(number_cell("Time per token, " + batch_text(batch)));
  }
  std::vector<std::string> rows;
  for (const Curve& curve : curves) {
    if (curve.style < 0) continue;
    std::vector<HtmlCell> cells = {{policy_name_html(curve), "policy", 1, curve.name}};
    for (const std::vector<Curve>& others : by_batch) {
      const auto found = std::find_if(others.begin(), others.end(),
                                      [&](const Curve& other) { return other.name == curve.name; });
      const PolicyRow* row = found == others.end() ? nullptr : row_at(*found, middle);
      const bool time = row != nullptr && row->tpot_ms;
      cells.push_back(row == nullptr ? number_cell("")
                                     : value_cell(row->hit_ratio, percent(row->hit_ratio)));
      cells.push_back(time ? value_cell(row->tpot_ms->mean, milliseconds(row->tpot_ms->mean))
                           : number_cell(""));
    }
    rows.push_back(html_row(cells));
  }
  const PolicyRow* any = curves.empty() ? nullptr : row_at(curves.front(), middle);
  return fmt::format("<h3>Batches, at {:.3g} % of the FFN {}</h3>\n",
                     any == nullptr ? 0 : any->budget_percent, tag("modelled")) +
         html_sortable_table(head, rows);
}

}  // namespace thermocline
