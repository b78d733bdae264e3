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

// "50.4 / 48.2 ms", in microseconds where the first is so short.
std::string times_text(const std::vector<double>& ms) {
  const bool micro = ms.front() < 0.1;
  std::string text;
  for (const double one : ms) {
    text += text.empty() ? "" : " / ";
    text += micro ? fmt::format("{:.3g}", 1000 * one)
                  : fmt::format("{:.{}f}", one, ms.front() < 10 ? 2 : 1);
  }
  return text + (micro ? " µs" : " ms");
}

// The baseline and the policy of the answer, at the middle budget.
std::string pair_tiles(const ModelResults& model) {
  const std::vector<Curve> curves = curves_of(model);
  const uint64_t middle = middle_budget(curves);
  const Curve* fixed = baseline_of(model, curves);
  const std::string dynamic = answer_of(model).dynamic;
  std::string hits, names;
  std::vector<double> times;
  double budget_percent = 0;
  for (const Curve& curve : curves) {
    const PolicyRow* row = row_at(curve, middle);
    if (row == nullptr || (&curve != fixed && curve.name != dynamic)) continue;
    hits += (hits.empty() ? "" : " / ") + fmt::format("{:.1f}", 100 * row->hit_ratio);
    names += (names.empty() ? "" : " / ") + curve.name;
    if (row->tpot_ms) times.push_back(row->tpot_ms->mean);
    budget_percent = row->budget_percent;
  }
  if (hits.empty()) return "";
  const std::string of = fmt::format("of {} at {:.3g} % of the FFN", names, budget_percent);
  return tile(hits + " %", "hit ratio " + of) +
         (times.empty() ? "" : tile(times_text(times), "modelled time per token " + of));
}

std::string tiles(const Results& results) {
  const ModelResults& model = results.models.front();
  std::string html = pair_tiles(model);
  if (model.run && model.run->tpot_ms) {
    html += tile(milliseconds(model.run->tpot_ms->mean),
                 fmt::format("per token executed here, {} on {} {}", model.label, model.run->ranks,
                             model.run->ranks == 1 ? "rank" : "ranks"));
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
  for (const std::string& detail : answer.details) html += paragraph("also", detail);
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
