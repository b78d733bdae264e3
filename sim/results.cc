#include "sim/results.h"

#include <fmt/format.h>

#include <filesystem>

#include "models/cli.h"
#include "models/error.h"
#include "sim/row_reader.h"
#include "traces/activity_figures.h"

namespace thermocline {
namespace {

constexpr size_t kRowsMax = 1 << 22;

void add_run(ModelResults& model, const RowReader& reader) {
  RunRow row;
  row.model = reader.text("model");
  row.weights = reader.text("weights");
  row.layout = reader.text("layout");
  row.prompts = reader.text_or("prompts", "");
  row.ranks = reader.count("ranks");
  row.threads = reader.count("threads");
  row.step_count = reader.count("step_count");
  row.seed = reader.count_or("seed", 0);
  row.peak_rss_bytes = reader.count_or("peak_rss_bytes", 0);
  row.ttft_ms = reader.distribution("ttft_ms");
  row.tpot_ms = reader.distribution("tpot_ms");
  row.layer_ms = reader.optional_number("layer_ms");
  row.layer_gb_per_s = reader.optional_number("layer_gb_per_s");
  row.read_gb_per_s = reader.optional_number("read_gb_per_s");
  model.run = row;
}

void add_rank(ModelResults& model, const RowReader& reader) {
  model.ranks.push_back({reader.count("rank"), reader.count_or("stage", 0),
                         reader.count_or("peak_rss_bytes", 0), reader.number("compute_ms"),
                         reader.number("comm_ms"), reader.number("wait_ms")});
}

// A time is a number or a distribution, of which the mean counts.
double mean_ms(const RowReader& reader, const char* key) {
  const Json* value = reader.find(key);
  if (value != nullptr && value->is_object()) return reader.distribution(key)->mean;
  return reader.number(key);
}

void add_executed(ModelResults& model, const RowReader& reader) {
  model.executed =
      ExecutedRow{mean_ms(reader, "executed_tpot_ms"), mean_ms(reader, "predicted_tpot_ms"),
                  reader.number("predicted_over_executed"),
                  reader.optional_number("compute_predicted_over_measured"),
                  reader.optional_number("measured_overhead_ms")};
}

// Rows of single layers are for other readers.
void add_activity(ModelResults& model, const RowReader& reader) {
  if (reader.text("scope") != "model") return;
  ActivityRow row;
  row.weights = reader.text("weights");
  row.step_count = reader.count("step_count");
  row.task_count = reader.count("task_count");
  for (const ActivityFigure& figure : kActivityFigures) {
    const std::string key(figure.key);
    if (reader.find(key.c_str()) == nullptr) continue;  // nothing was there to measure
    row.figures[key] = reader.number_from(key.c_str(), 0, 1);
  }
  model.activity = row;
}

void add_stage(ModelResults& model, const RowReader& reader) {
  model.stages.push_back({reader.text("stage"), reader.text("command"), reader.number("seconds")});
}

ModelResults& model_of(Results& results, const std::string& label) {
  for (ModelResults& model : results.models) {
    if (model.label == label) return model;
  }
  results.models.emplace_back().label = label;
  return results.models.back();
}

using AddRow = void (*)(ModelResults&, const RowReader&);
const std::map<std::string, AddRow> kAddByKind = {
    {"policy", add_policy_row}, {"comparison", add_comparison_row}, {"run", add_run},
    {"rank", add_rank},         {"executed", add_executed},         {"activity", add_activity},
    {"stage", add_stage},       {"execution", add_execution_row}};

void add_row(Results& results, const Json& row, const std::string& place) {
  const RowReader reader(row, place);
  const std::string kind = reader.text("kind");
  const std::string stage = reader.text_or("recorded_by", "");
  if (stage == "profile") return;  // what policies learned from
  // Rows of kind "execution" say what these came to.
  if (stage.starts_with("execute ") || stage.starts_with("predict ")) return;
  if (kind == "study") {
    results.study = row;
    results.study_name = reader.text("name");
    return;
  }
  const auto add = kAddByKind.find(kind);
  if (add == kAddByKind.end()) return;  // of a newer version, or not for the report
  add->second(model_of(results, reader.text_or("label", reader.text_or("model", ""))), reader);
}

Json parse_document(const std::string& path) {
  const std::string bytes = read_file(path);
  try {
    return Json::parse(bytes);
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path, "JSON, as --json writes it", error.what());
  }
}

const Json& rows_of(const Json& document, const std::string& origin) {
  if (!document.is_object() || !document.contains("rows") || !document["rows"].is_array()) {
    throw bad_input(origin, "an object with command, version, machine and rows", "something else");
  }
  if (document["rows"].size() > kRowsMax) {
    throw bad_input(origin, fmt::format("at most {} rows", kRowsMax), "more");
  }
  return document["rows"];
}

std::string file_of(const std::string& path) {
  if (!std::filesystem::is_directory(path)) return path;
  const std::string file = path + "/results.json";
  if (std::filesystem::exists(file)) return file;
  throw bad_input(path, "results.json of a finished study", "none");
}

}  // namespace

Json open_rows(const std::string& path) {
  Json rows = rows_of(parse_document(path), path);
  for (size_t i = 0; i < rows.size(); ++i) {
    RowReader(rows[i], fmt::format("{}: row {}", path, i)).text("kind");
  }
  return rows;
}

Results parse_results(const Json& document, const std::string& origin) {
  const Json& rows = rows_of(document, origin);
  Results results;
  results.version = RowReader(document, origin).text_or("version", "unknown");
  results.machine = document.value("machine", Json::object());
  for (size_t i = 0; i < rows.size(); ++i) {
    add_row(results, rows[i], fmt::format("{}: row {}", origin, i));
  }
  return results;
}

Json open_documents(const std::vector<std::string>& paths) {
  Json all;
  for (const std::string& path : paths) {
    const std::string file = file_of(path);
    Json document = parse_document(file);
    const Json& rows = rows_of(document, file);
    if (all.is_null()) {
      all = std::move(document);
    } else {
      all["rows"].insert(all["rows"].end(), rows.begin(), rows.end());
    }
  }
  return all;
}

Results open_results(const std::vector<std::string>& paths) {
  std::string origin;
  for (const std::string& path : paths) origin += (origin.empty() ? "" : " + ") + path;
  return parse_results(open_documents(paths), origin);
}

}  // namespace thermocline
