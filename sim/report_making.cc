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
    facts.emplace_back("trace hash", model.replayed.front().trace_hash);
    facts.emplace_back("weight hash", model.replayed.front().weight_hash);
  }
  for (const Curve& curve : curves_of(model)) {
    const PolicyRow& row = *curve.rows.front();
    facts.emplace_back(row.policy, row.parameters.empty() ? "no parameters" : row.parameters);
  }
  return html_facts(facts);
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
