#include <fmt/format.h>

#include "sim/answer.h"
#include "sim/following.h"
#include "sim/html.h"
#include "sim/report_parts.h"
#include "traces/activity_figures.h"

namespace thermocline {
namespace {

// A figure that was published more than once has a line for each.
void append_figure(std::vector<std::string>& rows, const ActivityFigure& figure,
                   const ActivityRow& activity) {
  const auto measured = activity.figures.find(std::string(figure.key));
  const std::string here = measured == activity.figures.end() ? "" : percent(measured->second);
  const std::vector<PublishedFigure> published = published_of(figure.key);
  const int span = std::max(static_cast<int>(published.size()), 1);
  std::vector<HtmlCell> cells = {{escape_html(figure.name), "", span},
                                 {escape_html(here), "n", span}};
  if (published.empty()) cells.insert(cells.end(), {number_cell(""), text_cell("")});
  for (const PublishedFigure& one : published) {
    cells.push_back(number_cell(one.text()));
    cells.push_back(text_cell(fmt::format("{} ({})", one.of, one.source)));
    if (&one != &published.back()) {
      rows.push_back(html_row(cells));
      cells.clear();
    }
  }
  rows.push_back(html_row(cells));
}

}  // namespace

std::string activity_part(const ModelResults& model) {
  if (!model.activity) return "";
  const ActivityRow& activity = *model.activity;
  std::vector<std::string> rows;
  for (const ActivityFigure& figure : kActivityFigures) append_figure(rows, figure, activity);
  std::string html = "<h3>Is there anything to follow? " + tag("measured") + "</h3>\n";
  for (const std::string& text : {overlap_sentence(model), gain_sentence(model)}) {
    if (!text.empty()) html += paragraph("under", text);
  }
  html += html_table({text_cell("Share of neurons or of firings, all layers"),
                      number_cell("This trace"), number_cell("Published"), text_cell("Of, by")},
                     rows);
  return html + paragraph("under", fmt::format("{} steps of {} tasks.", activity.step_count,
                                               activity.task_count));
}

}  // namespace thermocline
