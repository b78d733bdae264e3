// RowReader: the fields of one row of results, checked as they are read.
//
// Goals: what is missing, of the wrong type or out of range is an Error that names file, row and
// key. Thread-safety: pure functions.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "models/error.h"
#include "sim/results.h"

namespace thermocline {

// Holds a reference to the row. A field that is null counts as missing.
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
  // A text, or another value as JSON writes it.
  std::string any_text_or(const char* key, const std::string& fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    return value->is_string() ? value->get<std::string>() : value->dump();
  }
  // [low, high]
  std::optional<Interval> interval(const char* key) const {
    if (find(key) == nullptr) return std::nullopt;
    const Json& value = *find(key);
    const bool pair =
        value.is_array() && value.size() == 2 && value[0].is_number() && value[1].is_number();
    if (!pair || !(value[0].get<double>() <= value[1].get<double>())) {
      reject(key, "[low, high]", value);
    }
    return Interval{value[0].get<double>(), value[1].get<double>()};
  }
  // A list of numbers, where null stands for none.
  std::vector<std::optional<double>> numbers(const char* key) const {
    std::vector<std::optional<double>> values;
    const Json& list = get(key, "a list of numbers");
    if (!list.is_array()) reject(key, "a list of numbers", list);
    for (const Json& item : list) {
      if (!item.is_null() && !item.is_number()) reject(key, "numbers in", item);
      values.push_back(item.is_null() ? std::nullopt : std::optional(item.get<double>()));
    }
    return values;
  }
  std::optional<Distribution> distribution(const char* key) const {
    if (find(key) == nullptr) return std::nullopt;
    const RowReader inner(*find(key), place_ + ": " + key);
    return Distribution{inner.number("mean"), inner.number("p50"), inner.number("p95"),
                        inner.number("p99")};
  }
  RowReader object(const char* key) const { return {get(key, "an object"), place_ + ": " + key}; }
  const Json& json() const { return row_; }
  const std::string& place() const { return place_; }

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

// One kind of row each, into the results of its model: sim/results_policy.cc.
void add_policy_row(ModelResults& model, const RowReader& reader);
void add_comparison_row(ModelResults& model, const RowReader& reader);
void add_execution_row(ModelResults& model, const RowReader& reader);

}  // namespace thermocline
