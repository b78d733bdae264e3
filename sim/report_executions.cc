// What was executed in tiers, beside what the replay predicted.
#include <fmt/format.h>

#include <algorithm>

#include "sim/execution.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

HtmlCell ms_cell(const std::optional<double>& ms) {
  return ms ? value_cell(*ms, milliseconds(*ms)) : number_cell("");
}

// "30", with three tiers "30; host 60".
std::string with_host(const ExecutionRow& row, const std::string& device, double host,
                      int decimals) {
  return row.host ? fmt::format("{}; host {:.{}f}", device, host, decimals) : device;
}

std::string line_of(const std::vector<ExecutionRow>& rows, const ExecutionRow& row) {
  const std::optional<double> executed =
      row.tpot_ms ? std::optional(row.tpot_ms->mean) : std::nullopt;
  const HostExecution host = row.host.value_or(HostExecution{});
  const std::string budget =
      with_host(row, fmt::format("{:.0f}", row.budget_percent), host.budget_percent, 0);
  const std::string hits =
      with_host(row, fmt::format("{:.1f}", 100 * row.hit_ratio), 100 * host.hit_ratio, 1);
  return html_row({text_cell(row.tiers), text_cell(execution_name(rows, row)),
                   value_cell(row.budget_percent, budget), value_cell(row.hit_ratio, hits),
                   ms_cell(executed), ms_cell(row.predicted_ms),
                   row.predicted_over_executed
                       ? value_cell(*row.predicted_over_executed,
                                    fmt::format("{:.2f}", *row.predicted_over_executed))
                       : number_cell(""),
                   bytes_cell(row.read_bytes_per_step), bytes_cell(row.moved_bytes_per_step),
                   bytes_cell(row.hot_bytes), bytes_cell(static_cast<double>(row.peak_rss_bytes))});
}

// How far predictions are from executions.
std::string residual_sentence(const std::vector<ExecutionRow>& rows) {
  double least = 0, most = 0;
  size_t count = 0;
  for (const ExecutionRow& row : rows) {
    if (!row.predicted_over_executed) continue;
    const double ratio = *row.predicted_over_executed;
    least = count == 0 ? ratio : std::min(least, ratio);
    most = count == 0 ? ratio : std::max(most, ratio);
    ++count;
  }
  if (count == 0) return "";
  return fmt::format(
      "Predicted over executed time per token is {:.2f} to {:.2f} over these {} runs. The "
      "prediction is the replay's, on a cluster file of that machine, migrations hidden.",
      least, most, count);
}

const ExecutionRow* at(const std::vector<ExecutionRow>& rows, const ExecutionRow& like,
                       std::string_view policy) {
  for (const ExecutionRow& row : rows) {
    if (row.tiers == like.tiers && row.budget_bytes == like.budget_bytes && row.policy == policy) {
      return &row;
    }
  }
  return nullptr;
}

// Each policy's time against the fixed set's, budget by budget.
std::string difference_sentence(const std::vector<ExecutionRow>& rows) {
  std::string text;
  for (const ExecutionRow& row : rows) {
    const ExecutionRow* fixed = at(rows, row, "fixed-topk");
    if (fixed == nullptr || fixed == &row || !row.tpot_ms || !fixed->tpot_ms) continue;
    text += fmt::format("{}{} at {:.0f} % ({}): {:+.1f} %", text.empty() ? "" : "; ",
                        execution_name(rows, row), row.budget_percent, row.tiers,
                        100 * (row.tpot_ms->mean / fixed->tpot_ms->mean - 1));
  }
  return text.empty() ? "" : "Executed time per token against fixed-topk: " + text + ".";
}

}  // namespace

std::string executions_part(const ModelResults& model) {
  if (model.executions.empty()) return "";
  std::vector<std::string> rows;
  for (const ExecutionRow& row : model.executions) rows.push_back(line_of(model.executions, row));
  std::string html = "<h3>Executed in tiers, " + tag("measured") + ", beside the prediction</h3>\n";
  for (const std::string& text :
       {residual_sentence(model.executions), difference_sentence(model.executions)}) {
    if (!text.empty()) html += paragraph("under", text);
  }
  return html +
         html_sortable_table(
             {text_cell("Tiers"), text_cell("Policy"), number_cell("Budget, % of FFN"),
              number_cell("Hits, %"), number_cell("Executed"), number_cell("Predicted"),
              number_cell("Ratio"), number_cell("Read per step"), number_cell("Moved per step"),
              number_cell("Hot bytes held"), number_cell("Peak memory")},
             rows);
}

}  // namespace thermocline
