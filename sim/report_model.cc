#include <fmt/format.h>

#include "models/units.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

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
  return model.replayed.empty() ? "" : "Weights: " + model.replayed.front().weights;
}

// How the policies were replayed, as far as the rows say.
std::string settings_sentence(const ModelResults& model) {
  if (model.replayed.empty()) return "";
  const PolicyRow& row = model.replayed.front();
  std::vector<std::string> parts;
  if (!row.regime.empty()) parts.push_back("activity regime " + row.regime);
  if (!row.pools.empty()) parts.push_back("a budget for each " + row.pools);
  if (row.fill == "demand") parts.push_back("misses enter fast memory on demand");
  if (row.fill == "step") parts.push_back("hot sets change between steps");
  if (row.migration_bytes) {
    parts.push_back(fmt::format("at most {} moved in a step", format_bytes(*row.migration_bytes)));
  }
  if (row.warmup_steps > 0) {
    parts.push_back(fmt::format("the first {} steps not counted", row.warmup_steps));
  }
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? " Replayed: " : ", ") + part;
  return text.empty() ? "" : text + ".";
}

}  // namespace

std::string model_section(const ModelResults& model, size_t index,
                          std::vector<std::string>& problems) {
  std::vector<Curve> curves = curves_of(model);
  choose_styles(model, curves);
  std::string html = "<section>\n<h2>" + escape_html(model.label) + "</h2>\n";
  html += paragraph("under", model_subtitle(model) + "." + settings_sentence(model));
  html += figures_part(model, curves, fmt::format("m{}", index), problems);
  html += policies_part(model, curves) + layers_part(curves) + batches_part(model, curves);
  html += executions_part(model) + activity_part(model);
  if (model.run || model.executed) html += execution_part(model);
  return html + "</section>\n";
}

}  // namespace thermocline
