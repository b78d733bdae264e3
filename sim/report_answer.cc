#include <fmt/format.h>

#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

constexpr const char* kQuestion =
    "How does dynamic adjustment of the hot-neuron threshold compare with a fixed one?";

std::string tile(const std::string& value, const std::string& label, const std::string& css = "") {
  const std::string attribute = css.empty() ? "" : " class=\"" + css + "\"";
  return fmt::format("<div class=\"tile\"><b{}>{}</b><span>{}</span></div>\n", attribute,
                     escape_html(value), escape_html(label));
}

// Each policy's hit ratio at the middle budget.
std::string hit_tile(const std::vector<Curve>& curves) {
  const std::vector<uint64_t> budgets = budgets_of(curves);
  if (budgets.empty()) return "";
  std::string values, names;
  double budget_percent = 0;
  for (const Curve& curve : curves) {
    const PolicyRow* row = row_at(curve, budgets[budgets.size() / 2]);
    if (row == nullptr || curve.oracle) continue;
    values += (values.empty() ? "" : " / ") + fmt::format("{:.1f}", 100 * row->hit_ratio);
    names += (names.empty() ? "" : " / ") + curve.name;
    budget_percent = row->budget_percent;
  }
  return tile(values + " %", fmt::format("hit ratio of {} at {:.3g} % of the FFN in fast memory",
                                         names, budget_percent));
}

std::string tiles(const Results& results) {
  const ModelResults& model = results.models.front();
  std::string html = hit_tile(curves_of(model));
  if (model.run && model.run->tpot_ms) {
    html +=
        tile(milliseconds(model.run->tpot_ms->mean),
             fmt::format("per token executed here, {} on {} ranks", model.label, model.run->ranks));
  }
  if (model.executed) {
    html += tile(fmt::format("{:.2f}", model.executed->predicted_over_executed),
                 "predicted time over executed time, same machine");
  }
  const Agreement agreement = agreement_of(results);
  if (agreement.total > 0) {
    html += tile(fmt::format("{} of {}", agreement.equal, agreement.total),
                 "live = replay: sets of counters that are equal to the last integer",
                 agreement.holds() ? "good" : "bad");
  }
  return "<div class=\"tiles\">\n" + html + "</div>\n";
}

}  // namespace

std::string answer_section(const Results& results) {
  const ModelResults& model = results.models.front();
  const Answer answer = answer_of(model);
  std::string html = "<h1>" + escape_html(kQuestion) + "</h1>\n";
  html += paragraph("answer", answer.headline);
  if (!answer.memory.empty()) html += paragraph("also", answer.memory);
  if (!answer.following.empty()) html += paragraph("also", answer.following);
  for (size_t i = 1; i < results.models.size(); ++i) {
    const ModelResults& other = results.models[i];
    const Answer more = answer_of(other);
    html += paragraph("also", more.headline + (more.following.empty() ? "" : " ") + more.following);
  }
  if (!answer.caveats.empty()) {
    html += "<div class=\"caveat\">\n";
    for (const std::string& caveat : answer.caveats) html += paragraph("", caveat);
    html += "</div>\n";
  }
  return html + tiles(results);
}

}  // namespace thermocline
