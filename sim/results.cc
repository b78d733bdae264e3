#include "sim/results.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "models/cli.h"
#include "models/error.h"
#include "sim/policy_driver.h"
#include "traces/activity_figures.h"

namespace thermocline {
namespace {

constexpr size_t kRowsMax = 1 << 22;

// Reads the fields of one row; what is missing or of the wrong type is an Error with the place.
class RowReader {
 public:
  RowReader(const Json& row, std::string place) : row_(row), place_(std::move(place)) {
    if (!row.is_object()) throw bad_input(place_, "an object", row.type_name());
  }

  const Json* find(const char* key) const {
    const auto found = row_.find(key);
    return found == row_.end() || found->is_null() ? nullptr : &*found;
  }
  std::string text(const char* key) const {
    const Json& value = get(key, "a string");
    if (!value.is_string()) reject(key, "a string", value);
    return value.get<std::string>();
  }
  std::string text_or(const char* key, const std::string& fallback) const {
    return find(key) == nullptr ? fallback : text(key);
  }
  double number(const char* key) const {
    const Json& value = get(key, "a number");
    if (!value.is_number()) reject(key, "a number", value);
    const double number = value.get<double>();
    if (!std::isfinite(number)) reject(key, "a finite number", value);
    return number;
  }
  double number_from(const char* key, double low, double high) const {
    const double value = number(key);
    if (value >= low && value <= high) return value;
    reject(key, fmt::format("a number from {} to {}", low, high), *find(key));
  }
  std::optional<double> optional_number(const char* key) const {
    if (find(key) == nullptr) return std::nullopt;
    return number(key);
  }
  uint64_t count(const char* key) const {
    const Json& value = get(key, "a count");
    const bool negative =
        value.is_number_integer() && !value.is_number_unsigned() && value.get<int64_t>() < 0;
    if (!value.is_number_integer() || negative) reject(key, "a count", value);
    return value.get<uint64_t>();
  }
  uint64_t count_or(const char* key, uint64_t fallback) const {
    return find(key) == nullptr ? fallback : count(key);
  }
  bool flag(const char* key) const {
    const Json& value = get(key, "true or false");
    if (!value.is_boolean()) reject(key, "true or false", value);
    return value.get<bool>();
  }
  bool flag_or(const char* key, bool fallback) const {
    return find(key) == nullptr ? fallback : flag(key);
  }
  std::optional<Distribution> distribution(const char* key) const {
    if (find(key) == nullptr) return std::nullopt;
    const RowReader inner(*find(key), place_ + ": " + key);
    return Distribution{inner.number("mean"), inner.number("p50"), inner.number("p95"),
                        inner.number("p99")};
  }
  RowReader object(const char* key) const { return {get(key, "an object"), place_ + ": " + key}; }
  const Json& json() const { return row_; }

 private:
  const Json& get(const char* key, const std::string& expected) const {
    if (const Json* value = find(key)) return *value;
    throw bad_input(place_, expected + " '" + key + "'", "none");
  }
  [[noreturn]] void reject(const char* key, const std::string& expected, const Json& value) const {
    throw bad_input(place_, expected + " '" + key + "'", value.dump().substr(0, 60));
  }

  const Json& row_;
  std::string place_;
};

Counters counters_of(const RowReader& row) {
  const RowReader object = row.object("counters");
  const HotSetStats none;
  for_each_counter(none, [&](const char* name, uint64_t) { object.count(name); });
  Counters counters;
  for (const auto& [name, value] : object.json().items()) {
    counters[name] = object.count(name.c_str());
  }
  return counters;
}

// A string, or an object of values: "halflife=32,cap=200".
std::string parameters_of(const RowReader& row) {
  const Json* value = row.find("parameters");
  if (value == nullptr || value->is_string()) return row.text_or("parameters", "");
  std::string text;
  const RowReader object = row.object("parameters");
  for (const auto& [name, item] : object.json().items()) {
    text += (text.empty() ? "" : ",") + name + "=" + item.dump();
  }
  return text;
}

void add_policy(ModelResults& model, const RowReader& reader) {
  PolicyRow row;
  row.policy = reader.text("policy");
  row.parameters = parameters_of(reader);
  row.oracle = reader.flag("oracle");
  row.live = reader.text("source") == "measured";
  row.weights = reader.text("weights");
  row.weight_hash = reader.text_or("weight_hash", "");
  row.trace_hash = reader.text_or("trace_hash", "");
  row.budget_bytes = reader.count("budget_bytes");
  row.budget_percent = reader.number_from("budget_percent", 0, 100);
  row.hit_ratio = reader.number_from("hit_ratio", 0, 1);
  row.byte_hit_ratio = reader.number_from("byte_hit_ratio", 0, 1);
  row.moved_bytes_per_token = reader.number_from("moved_bytes_per_token", 0, 1e18);
  row.hot_bytes_peak = reader.count("hot_bytes_peak");
  row.tpot_ms = reader.distribution("tpot_ms");
  row.cluster = reader.text_or("cluster", "");
  row.cluster_measured = reader.flag_or("cluster_measured", false);
  row.fits = reader.flag_or("fits", true);
  row.gate = reader.text_or("gate", "");
  row.counters = counters_of(reader);
  (row.live ? model.live : model.replayed).push_back(row);
}

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
    {"policy", add_policy},     {"run", add_run},           {"rank", add_rank},
    {"executed", add_executed}, {"activity", add_activity}, {"stage", add_stage}};

void add_row(Results& results, const Json& row, const std::string& place) {
  const RowReader reader(row, place);
  const std::string kind = reader.text("kind");
  if (reader.text_or("recorded_by", "") == "profile") return;  // what policies learned from
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
