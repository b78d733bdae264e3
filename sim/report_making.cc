#include <fmt/format.h>

#include "models/units.h"
#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

std::string evidence_row(const std::string& what, const std::string& kind, const std::string& how) {
  return html_row({text_cell(what), {tag(kind)}, text_cell(how)});
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

}  // namespace thermocline
