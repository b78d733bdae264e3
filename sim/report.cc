#include "sim/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/cli.h"
#include "models/units.h"
#include "sim/answer.h"
#include "sim/html.h"
#include "sim/plot.h"

namespace thermocline {
namespace {

constexpr const char* kQuestion =
    "How does dynamic adjustment of the hot-neuron threshold compare with a fixed one?";

std::string paragraph(const std::string& css, const std::string& text) {
  const std::string attribute = css.empty() ? "" : " class=\"" + css + "\"";
  return "<p" + attribute + ">" + escape_html(text) + "</p>\n";
}

std::string milliseconds(double ms) { return fmt::format("{:.{}f} ms", ms, ms < 10 ? 2 : 1); }

std::string bytes_text(double bytes) { return format_bytes(static_cast<uint64_t>(bytes + 0.5)); }

// Kinds of evidence have colours; a kind from data that is none of these goes without.
std::string tag(const std::string& name) {
  const bool known = name == "measured" || name == "modelled" || name == "synthetic";
  return "<span class=\"tag" + (known ? " " + name : "") + "\">" + escape_html(name) + "</span>";
}

// ---- the answer -------------------------------------------------------------------------------

std::string tile(const std::string& value, const std::string& label, const std::string& css = "") {
  const std::string attribute = css.empty() ? "" : " class=\"" + css + "\"";
  return fmt::format("<div class=\"tile\"><b{}>{}</b><span>{}</span></div>\n", attribute,
                     escape_html(value), escape_html(label));
}

Agreement agreement_of(const Results& results) {
  Agreement sum;
  for (const ModelResults& model : results.models) {
    const Agreement one = compare_live(model);
    sum.total += one.total;
    sum.equal += one.equal;
    sum.differences.insert(sum.differences.end(), one.differences.begin(), one.differences.end());
  }
  return sum;
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
  for (const RunRow& run : model.runs) {
    if (!run.tpot_ms) continue;
    html += tile(milliseconds(run.tpot_ms->mean),
                 fmt::format("per token executed here, {} on {} ranks", model.label, run.ranks));
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

std::string answer_section(const Results& results) {
  const ModelResults& model = results.models.front();
  const Answer answer = answer_of(model);
  std::string html = "<h1>" + escape_html(kQuestion) + "</h1>\n";
  html += paragraph("answer", answer.headline);
  if (!answer.memory.empty()) html += paragraph("also", answer.memory);
  for (size_t i = 1; i < results.models.size(); ++i) {
    const ModelResults& other = results.models[i];
    html += paragraph("also", answer_of(other).headline);
  }
  if (!answer.caveats.empty()) {
    html += "<div class=\"caveat\">\n";
    for (const std::string& caveat : answer.caveats) html += paragraph("", caveat);
    html += "</div>\n";
  }
  return html + tiles(results);
}

// ---- one model --------------------------------------------------------------------------------

std::string policy_name_html(const Curve& curve) {
  return fmt::format(
      "<span class=\"policy\"><span class=\"swatch{}\" style=\"color:{}\"></span>{}</span>",
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
  const bool strong = !curve.oracle && row.hit_ratio == best;
  const std::string regret = curve.oracle ? "the bound"
                             : bound < 0  ? ""
                                          : points(row.hit_ratio - bound);
  const auto time = [&](double Distribution::*field) {
    return row.tpot_ms ? milliseconds((*row.tpot_ms).*field) : std::string();
  };
  return {{policy_name_html(curve)},
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
      HtmlCell lead{fmt::format("<b>{:.3g} %</b> {}", row->budget_percent,
                                escape_html(format_bytes(budget)))};
      lead.row_span = static_cast<int>(present.size());
      cells.insert(cells.begin(), lead);
    }
    rows.push_back(html_row(cells));
  }
}

std::string policy_table(const std::vector<Curve>& curves) {
  std::vector<std::string> rows;
  for (const uint64_t budget : budgets_of(curves)) append_budget(rows, curves, budget);
  return html_table(
      {text_cell("Budget of the FFN"), text_cell("Policy"), number_cell("Hit ratio"),
       number_cell("Against oracle"), number_cell("Moved per token"), number_cell("Peak hot bytes"),
       number_cell("Time per token, modelled"), number_cell("p95, modelled")},
      rows);
}

Plot plot_of(const std::vector<Curve>& curves, const std::string& y_label, bool times) {
  Plot plot{"budget for hot neurons, % of the FFN", y_label, {}, times};
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
  return fmt::format(
      "On the machine that recorded the trace, the cost model predicts {} per token "
      "and {} were executed: predicted over executed is {:.2f}.",
      milliseconds(row.predicted_ms), milliseconds(row.executed_ms), row.predicted_over_executed);
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
  return html_table({number_cell("Rank"), number_cell("Stage"), number_cell("Compute per step"),
                     number_cell("Communication"), number_cell("Wait"), number_cell("Peak memory")},
                    rows);
}

std::string execution_part(const ModelResults& model) {
  std::string html = "<h3>Executed here, " + tag("measured") + "</h3>\n";
  const std::string executed = executed_sentence(model);
  if (!executed.empty()) html += paragraph("under", executed);
  for (const RunRow& run : model.runs) {
    std::string text;
    if (run.tpot_ms) {
      text = fmt::format(
          "{} steps in layout {} with {} thread(s) per rank; time per token {} mean, "
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
  for (const RunRow& run : model.runs) return run.model + ", " + run.weights + " weights";
  return model.replayed.empty() ? "" : model.replayed.front().weights + " weights";
}

std::string model_section(const ModelResults& model, size_t index,
                          std::vector<std::string>& problems) {
  const std::vector<Curve> curves = curves_of(model);
  const std::string id = fmt::format("m{}", index);
  std::string html = "<section>\n<h2>" + escape_html(model.label) + "</h2>\n";
  html += paragraph(
      "under", model_subtitle(model) + ". Bold: the best of the policies that could run live.");
  html += policy_table(curves);
  html += "<div class=\"figures\">\n";
  html += figure(plot_of(curves, "hit ratio, %", false), id + "h",
                 "Share of the neurons that fired which were in fast memory.", problems);
  html += figure(plot_of(curves, "time per token, ms", true), id + "t",
                 "Modelled time per token, migrations charged.", problems);
  html += "</div>\n";
  if (!model.runs.empty() || model.executed) html += execution_part(model);
  return html + "</section>\n";
}

// ---- evidence and making ----------------------------------------------------------------------

std::string evidence_row(const std::string& what, const std::string& kind, const std::string& how) {
  return html_row({text_cell(what), {tag(kind)}, text_cell(how)});
}

std::string evidence_section(const Results& results) {
  std::vector<std::string> rows;
  rows.push_back(evidence_row("Which neurons fired; hits, moves, peak bytes", "measured",
                              "recorded from the execution, counted as integers"));
  rows.push_back(evidence_row("Executed time per token, per layer and per rank", "measured",
                              "clocks of the ranks on this machine, weights in one memory"));
  rows.push_back(evidence_row("Time per token of a policy at a budget", "modelled",
                              "from bytes of each step and measured bandwidths; its error on this "
                              "machine is the ratio above"));
  for (const ModelResults& model : results.models) {
    if (model.replayed.empty()) continue;
    const std::string& weights = model.replayed.front().weights;
    rows.push_back(evidence_row("Weights of " + model.label, weights,
                                weights == "synthetic"
                                    ? "generated from a seed"
                                    : "hash " + model.replayed.front().weight_hash));
  }
  return "<section>\n<h2>What was measured, what was modelled</h2>\n" +
         html_table({text_cell("What"), text_cell("Kind"), text_cell("How")}, rows) +
         "</section>\n";
}

std::string agreement_part(const Results& results) {
  const Agreement agreement = agreement_of(results);
  if (agreement.total == 0) {
    return paragraph("", "Live = replay: not compared, these results hold no live counters.");
  }
  std::string html = paragraph(
      "", fmt::format("Live = replay: {} of {} equal. The policies ran inside the execution and "
                      "again over its trace; each counter is compared as an integer.",
                      agreement.equal, agreement.total));
  if (agreement.differences.empty()) return html;
  html += "<pre>";
  for (const std::string& line : agreement.differences) html += escape_html(line) + "\n";
  return html + "</pre>\n";
}

std::string json_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string text;
  for (const Json& item : value) text += (text.empty() ? "" : ", ") + json_text(item);
  return text;
}

std::string fact(const std::string& name, const std::string& value) {
  return html_row({text_cell(name), {"<code>" + escape_html(value) + "</code>"}});
}

void append_facts(std::vector<std::string>& rows, const std::string& prefix, const Json& object) {
  if (!object.is_object()) return;
  for (const auto& [name, value] : object.items()) {
    if (name == "kind" || value.is_null()) continue;
    const bool bytes = name.ends_with("_bytes") && value.is_number_unsigned();
    rows.push_back(
        fact(prefix + name, bytes ? format_bytes(value.get<uint64_t>()) : json_text(value)));
  }
}

std::string model_facts(const ModelResults& model) {
  std::vector<std::string> rows;
  for (const RunRow& run : model.runs) rows.push_back(fact("model", run.model));
  for (const RunRow& run : model.runs) {
    rows.push_back(fact("prompts", run.prompts));
    rows.push_back(fact("seed", std::to_string(run.seed)));
  }
  if (!model.replayed.empty()) {
    rows.push_back(fact("trace hash", model.replayed.front().trace_hash));
    rows.push_back(fact("weight hash", model.replayed.front().weight_hash));
  }
  for (const Curve& curve : curves_of(model)) {
    const std::string& parameters = curve.rows.front()->parameters;
    rows.push_back(
        fact(curve.rows.front()->policy, parameters.empty() ? "no parameters" : parameters));
  }
  return html_table({text_cell(model.label), text_cell("")}, rows);
}

std::string commands_part(const ModelResults& model) {
  std::string lines;
  for (const StageRow& stage : model.stages) {
    lines += fmt::format("# {}, {:.1f} s\n{}\n", stage.stage, stage.seconds, stage.command);
  }
  return lines.empty() ? "" : "<pre>" + escape_html(lines) + "</pre>\n";
}

std::string making_section(const Results& results) {
  std::vector<std::string> rows = {fact("thermocline", results.version)};
  append_facts(rows, "", results.study);
  append_facts(rows, "machine: ", results.machine);
  std::string html = "<section>\n<h2>How it was made</h2>\n" + agreement_part(results) +
                     html_table({text_cell("All models"), text_cell("")}, rows);
  for (const ModelResults& model : results.models) {
    html +=
        "<h3>" + escape_html(model.label) + "</h3>\n" + model_facts(model) + commands_part(model);
  }
  return html + "</section>\n";
}

std::string kicker(const Results& results) {
  const std::string name =
      results.study.is_object() ? " · study " + results.study.value("name", "") : "";
  return "<p class=\"kicker\"><b>thermocline</b> report" + escape_html(name) + "</p>\n";
}

}  // namespace

Report make_report(const Results& results) {
  Report report;
  std::string body = "<header>\n" + kicker(results) + answer_section(results) + "</header>\n";
  for (size_t i = 0; i < results.models.size(); ++i) {
    body += model_section(results.models[i], i, report.problems);
  }
  body += evidence_section(results) + making_section(results);
  body += "<footer>thermocline " + escape_html(results.version) +
          ". This page holds all it shows and fetches nothing.</footer>\n";
  report.html = html_page("thermocline report", body);
  return report;
}

}  // namespace thermocline
