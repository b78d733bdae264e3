#include <fmt/format.h>

#include <algorithm>

#include "models/units.h"
#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

std::string evidence_row(const std::string& what, const std::string& kind, const std::string& how) {
  return html_row({text_cell(what), {tag(kind), "", 1}, text_cell(how)});
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

using Facts = std::vector<std::pair<std::string, std::string>>;

void append_facts(Facts& facts, const Json& object) {
  if (!object.is_object()) return;
  for (const auto& [key, value] : object.items()) {
    if (key == "kind" || value.is_null()) continue;
    const bool bytes = key.ends_with("_bytes") && value.is_number_unsigned();
    std::string name = bytes ? key.substr(0, key.size() - 6) : key;
    std::replace(name.begin(), name.end(), '_', ' ');
    facts.emplace_back(name, bytes ? format_bytes(value.get<uint64_t>()) : json_text(value));
  }
}

std::string parameters_text(const PolicyRow& row) {
  return row.parameters.empty() ? "none" : row.parameters;
}

// Parameters of a curve: once where all budgets share them, else by budget.
std::string parameters_of(const Curve& curve) {
  const auto same = [&](const PolicyRow* row) {
    return row->parameters == curve.rows.front()->parameters;
  };
  if (std::all_of(curve.rows.begin(), curve.rows.end(), same)) {
    return parameters_text(*curve.rows.front());
  }
  std::string text;
  for (const PolicyRow* row : curve.rows) {
    text += fmt::format("{}{:.3g} %: {}", text.empty() ? "" : "; ", row->budget_percent,
                        parameters_text(*row));
  }
  return text;
}

std::string parameter_table(const ModelResults& model) {
  std::vector<std::string> rows;
  for (const Curve& curve : curves_of(model)) {
    const std::string& tuned_on = curve.rows.front()->tuned_on;
    rows.push_back(html_row({text_cell(curve.name), text_cell(parameters_of(curve)),
                             text_cell(tuned_on.empty() ? "not tuned" : "trace " + tuned_on)}));
  }
  if (rows.empty()) return "";
  return html_table({text_cell("Policy"), text_cell("Parameters"), text_cell("Tuned on")}, rows);
}

// How the policies were replayed, where the rows say it.
void append_replay(Facts& facts, const ModelResults& model) {
  const PolicyRow& row = model.replayed.front();
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) facts.emplace_back(name, value);
  };
  add("trace hash", row.trace_hash);
  add("weight hash", row.weight_hash);
  add("weights", row.weights);
  add("activity regime", row.regime);
  add("budget for each", row.pools);
  add("group", row.group);
  add("fill", row.fill);
  if (row.migration_bytes) add("moved in a step, at most", format_bytes(*row.migration_bytes));
  if (row.warmup_steps > 0) add("warm-up, not counted", fmt::format("{} steps", row.warmup_steps));
  if (!model.comparisons.empty()) {
    const ComparisonRow& one = model.comparisons.front();
    add("intervals",
        fmt::format("paired bootstrap, {} tasks, {} resamples", one.tasks, one.resamples));
  }
}

std::string model_facts(const ModelResults& model) {
  Facts facts;
  if (model.run) {
    const RunRow& run = *model.run;
    facts.insert(facts.end(), {{"model", run.model},
                               {"prompts", run.prompts},
                               {"layout", run.layout},
                               {"seed", std::to_string(run.seed)}});
  }
  if (!model.replayed.empty()) {
    append_replay(facts, model);
  }
  return html_facts(facts) + parameter_table(model);
}

std::string commands_part(const ModelResults& model) {
  std::string lines;
  for (const StageRow& stage : model.stages) {
    lines += fmt::format("# {}, {:.1f} s\n{}\n", stage.stage, stage.seconds, stage.command);
  }
  return lines.empty() ? "" : "<pre>" + escape_html(lines) + "</pre>\n";
}

}  // namespace

std::string evidence_section(const Results& results) {
  std::vector<std::string> rows;
  rows.push_back(evidence_row("Which neurons fired; hits, moves, peak bytes", "measured",
                              "recorded from the execution, counted as integers"));
  rows.push_back(evidence_row("Executed time per token, per layer and per rank", "measured",
                              "clocks of the ranks on this machine, weights in one memory"));
  rows.push_back(evidence_row("Time per token of a policy at a budget", "modelled",
                              "from the bytes of each step and the bandwidths of the cluster named "
                              "under each plot; its error is known only for this machine, as "
                              "predicted over executed"));
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

std::string making_section(const Results& results) {
  Facts facts = {{"thermocline", results.version}};
  append_facts(facts, results.study);
  append_facts(facts, results.machine);
  std::string html =
      "<section>\n<h2>How it was made</h2>\n" + agreement_part(results) + html_facts(facts);
  for (const ModelResults& model : results.models) {
    html +=
        "<h3>" + escape_html(model.label) + "</h3>\n" + model_facts(model) + commands_part(model);
  }
  return html + "</section>\n";
}

}  // namespace thermocline
