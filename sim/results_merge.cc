// Rows of several files as one list, and as CSV.
#include <algorithm>
#include <map>

#include "sim/results.h"

namespace thermocline {
namespace {

void flatten(const std::string& prefix, const Json& value,
             std::vector<std::pair<std::string, std::string>>& cells) {
  if (value.is_object()) {
    for (const auto& [name, item] : value.items()) {
      flatten(prefix.empty() ? name : prefix + "_" + name, item, cells);
    }
    return;
  }
  if (value.is_array()) {
    // An interval has two ends; longer series are for readers of JSON.
    if (!prefix.ends_with("_ci95") || value.size() != 2) return;
    flatten(prefix + "_low", value[0], cells);
    flatten(prefix + "_high", value[1], cells);
    return;
  }
  const bool text = value.is_string();
  cells.emplace_back(prefix, value.is_null() ? "" : text ? value.get<std::string>() : value.dump());
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i == 0 ? "" : ",") + csv_cell(cells[i]);
  return line + "\n";
}

}  // namespace

Json merge_rows(const std::vector<ResultFile>& files) {
  Json merged = Json::array();
  for (const ResultFile& file : files) {
    const Json rows = open_rows(file.path);
    for (const Json& row : rows) {
      Json labelled = {{"label", file.label}, {"recorded_by", file.stage}};
      labelled.update(row);
      merged.push_back(labelled);
    }
  }
  return merged;
}

std::string csv_of(const Json& rows) {
  std::vector<std::string> columns;
  std::vector<std::map<std::string, std::string>> lines;
  for (const Json& row : rows) {
    if (row.value("kind", "") != "policy") continue;
    std::vector<std::pair<std::string, std::string>> cells;
    flatten("", row, cells);
    for (const auto& [name, value] : cells) {
      if (std::count(columns.begin(), columns.end(), name) == 0) columns.push_back(name);
    }
    lines.emplace_back(cells.begin(), cells.end());
  }
  std::string text = csv_line(columns);
  for (auto& line : lines) {
    std::vector<std::string> cells;
    for (const std::string& column : columns) cells.push_back(line[column]);
    text += csv_line(cells);
  }
  return text;
}

}  // namespace thermocline
