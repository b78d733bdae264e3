#include <fmt/format.h>

#include <algorithm>

#include "models/plot.h"
#include "models/units.h"
#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

std::string bytes_text(double bytes) { return format_bytes(static_cast<uint64_t>(bytes + 0.5)); }

std::string policy_name_html(const Curve& curve) {
  return fmt::format("<span class=\"swatch{}\" style=\"color:{}\"></span>{}",
                     curve.oracle ? " dash" : "", plot_colour(curve.style, curve.oracle),
                     curve.oracle ? "<span class=\"oracle\">" + escape_html(curve.name) + "</span>"
                                  : escape_html(curve.name));
}

double best_hit_ratio(const std::vector<Curve>& curves, uint64_t budget, bool oracle) {
  double best = -1;
  for (const Curve& curve : curves) {
    const PolicyRow* row = row_at(curve, budget);
    if (row != nullptr && curve.oracle == oracle) best = std::max(best, row->hit_ratio);
  }
  return best;
}

std::vector<HtmlCell> policy_cells(const Curve& curve, const PolicyRow& row, double best,
                                   double bound) {
  const bool strong = !curve.oracle && best - row.hit_ratio < kTieRatio;
  const std::string regret = curve.oracle ? "the bound"
                             : bound < 0  ? ""
                                          : points(row.hit_ratio - bound);
  const auto time = [&](double Distribution::*field) {
    return row.tpot_ms ? milliseconds((*row.tpot_ms).*field) + (row.fits ? "" : " *")
                       : std::string();
  };
  return {{policy_name_html(curve), "policy", 1},
          number_cell(percent(row.hit_ratio), strong),
          number_cell(regret),
          number_cell(bytes_text(row.moved_bytes_per_token)),
          number_cell(format_bytes(row.hot_bytes_peak)),
          number_cell(time(&Distribution::mean)),
          number_cell(time(&Distribution::p95))};
}

void append_budget(std::vector<std::string>& rows, const std::vector<Curve>& curves,
                   uint64_t budget) {
  const double best = best_hit_ratio(curves, budget, false);
  const double bound = best_hit_ratio(curves, budget, true);
  std::vector<std::pair<const Curve*, const PolicyRow*>> present;
  for (const Curve& curve : curves) {
    if (const PolicyRow* row = row_at(curve, budget)) present.emplace_back(&curve, row);
  }
  for (size_t i = 0; i < present.size(); ++i) {
    const auto [curve, row] = present[i];
    std::vector<HtmlCell> cells = policy_cells(*curve, *row, best, bound);
    if (i == 0) {
      const HtmlCell lead{
          fmt::format("<b>{:.3g} %</b> {}", row->budget_percent, escape_html(format_bytes(budget))),
          "lead", static_cast<int>(present.size())};
      cells.insert(cells.begin(), lead);
    }
    rows.push_back(html_row(cells));
  }
}

std::string policy_table(const std::vector<Curve>& curves) {
  std::vector<std::string> rows;
  for (const uint64_t budget : budgets_of(curves)) append_budget(rows, curves, budget);
  return html_table({text_cell("Budget of the FFN"),
                     {"Policy", "policy", 1},
                     number_cell("Hit ratio"),
                     number_cell("Against oracle"),
                     number_cell("Moved per token"),
                     number_cell("Peak hot bytes"),
                     number_cell("Time per token, modelled"),
                     number_cell("p95, modelled")},
                    rows);
}

Plot plot_of(const std::vector<Curve>& curves, const std::string& y_label, bool times) {
  Plot plot{
      "budget for hot neurons, % of the FFN", y_label, {}, times ? Legend::top : Legend::bottom};
  for (const Curve& curve : curves) {
    PlotLine line{curve.name + (curve.oracle ? " (bound)" : ""), {}, curve.oracle, curve.style};
    for (const PolicyRow* row : curve.rows) {
      if (times && !row->tpot_ms) continue;
      line.points.emplace_back(row->budget_percent,
                               times ? row->tpot_ms->mean : 100 * row->hit_ratio);
    }
    if (!line.points.empty()) plot.lines.push_back(line);
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

std::string executed_sentence(const ModelResults& model) {
  if (!model.executed) return "";
  const ExecutedRow& row = *model.executed;
  std::string text = fmt::format(
      "On the machine that recorded the trace {} per token were executed and {} predicted: "
      "predicted over executed is {:.2f}",
      milliseconds(row.executed_ms), milliseconds(row.predicted_ms), row.predicted_over_executed);
  if (row.reading_ratio && row.overhead_ms) {
    text += fmt::format(
        " ({:.2f} for reading weights alone; {} of communication and waiting are taken as "
        "measured)",
        *row.reading_ratio, milliseconds(*row.overhead_ms));
  }
  return text + ".";
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

std::string table_note(const ModelResults& model) {
  std::string text = "Bold: the best of the policies that could run live, ties included.";
  const bool all_fit = std::all_of(model.replayed.begin(), model.replayed.end(),
                                   [](const PolicyRow& row) { return row.fits; });
  return all_fit ? text : text + " *: does not fit into the memory of the cluster modelled.";
}

std::string layer_sentence(const RunRow& run) {
  if (!run.layer_ms || !run.layer_gb_per_s) return "";
  std::string text = fmt::format("One layer takes {} and reads {:.1f} GB/s",
                                 milliseconds(*run.layer_ms), *run.layer_gb_per_s);
  if (run.read_gb_per_s && *run.read_gb_per_s > 0) {
    text += fmt::format(", {:.0f} % of the {:.1f} GB/s that the same ranks read at once",
                        100 * *run.layer_gb_per_s / *run.read_gb_per_s, *run.read_gb_per_s);
  }
  return text + ".";
}

std::string rank_table(const std::vector<RankRow>& ranks) {
  std::vector<std::string> rows;
  for (const RankRow& rank : ranks) {
    rows.push_back(html_row(
        {number_cell(std::to_string(rank.rank)), number_cell(std::to_string(rank.stage)),
         number_cell(milliseconds(rank.compute_ms)), number_cell(milliseconds(rank.comm_ms)),
         number_cell(milliseconds(rank.wait_ms)), number_cell(format_bytes(rank.peak_rss_bytes))}));
  }
  return html_table(
      {number_cell("Rank"), number_cell("Stage"), number_cell("Compute per decode step"),
       number_cell("Communication"), number_cell("Wait"), number_cell("Peak memory")},
      rows);
}

std::string execution_part(const ModelResults& model) {
  std::string html = "<h3>Executed here, " + tag("measured") + "</h3>\n";
  const std::string executed = executed_sentence(model);
  if (!executed.empty()) html += paragraph("under", executed);
  if (model.run) {
    const RunRow& run = *model.run;
    std::string text;
    if (run.tpot_ms) {
      text = fmt::format(
          "{} steps in layout {}, threads per rank: {}; time per token {} mean, "
          "{} p95. ",
          run.step_count, run.layout, run.threads, milliseconds(run.tpot_ms->mean),
          milliseconds(run.tpot_ms->p95));
    }
    html += paragraph("under", text + layer_sentence(run));
  }
  if (!model.ranks.empty()) html += rank_table(model.ranks);
  return html;
}

std::string model_subtitle(const ModelResults& model) {
  if (model.run) return model.run->model + ", " + model.run->weights + " weights";
  return model.replayed.empty() ? "" : model.replayed.front().weights + " weights";
}

}  // namespace

std::string model_section(const ModelResults& model, size_t index,
                          std::vector<std::string>& problems) {
  const std::vector<Curve> curves = curves_of(model);
  const std::string id = fmt::format("m{}", index);
  std::string html = "<section>\n<h2>" + escape_html(model.label) + "</h2>\n";
  html += paragraph("under", model_subtitle(model) + ". " + table_note(model));
  html += policy_table(curves);
  html += "<div class=\"figures\">\n";
  html += figure(plot_of(curves, "hit ratio, %", false), id + "h",
                 "Share of the neurons that fired which were in fast memory.", problems);
  html +=
      figure(plot_of(curves, "time per token, ms", true), id + "t", time_caption(model), problems);
  html += "</div>\n" + activity_part(model);
  if (model.run || model.executed) html += execution_part(model);
  return html + "</section>\n";
}

}  // namespace thermocline
