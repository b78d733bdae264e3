#include "runtime/predictor.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"
#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

const PredictorParameter& parameter_by_name(const PredictorEntry& entry, std::string_view name) {
  std::vector<std::string> names;
  for (const PredictorParameter& parameter : entry.parameters) {
    if (parameter.name == name) return parameter;
    names.push_back(parameter.name);
  }
  if (names.empty()) {
    throw bad_usage(fmt::format("predictor '{}' has no parameters, found '{}'", entry.name, name));
  }
  throw unknown_name("parameter of predictor '" + entry.name + "'", name, names);
}

void set_parameters(PredictorSpec& spec, std::string_view text) {
  std::vector<std::string> set;
  for (const std::string_view piece : split(text, ',')) {
    const size_t equals = piece.find('=');
    const std::string& name = parameter_by_name(*spec.entry, piece.substr(0, equals)).name;
    if (equals == std::string_view::npos || equals + 1 == piece.size()) {
      throw bad_usage(fmt::format("predictor '{}': expected {}=VALUE, found '{}'", spec.entry->name,
                                  name, piece));
    }
    if (std::find(set.begin(), set.end(), name) != set.end()) {
      throw bad_usage(
          fmt::format("predictor '{}': parameter '{}' is set twice", spec.entry->name, name));
    }
    set.push_back(name);
    spec.values[name] = piece.substr(equals + 1);
  }
}

}  // namespace

Registry<PredictorEntry>& predictors() {
  static Registry<PredictorEntry> registry("predictor");
  return registry;
}

bool PredictorSpec::exact() const { return entry->name == "exact"; }

std::string PredictorSpec::text() const {
  std::string text = entry->name;
  char separator = ':';
  for (const PredictorParameter& parameter : entry->parameters) {
    const std::string& value = values.at(parameter.name);
    if (value.empty()) continue;
    text += separator + parameter.name + "=" + value;
    separator = ',';
  }
  return text;
}

PredictorSpec parse_predictor_spec(std::string_view text) {
  const size_t colon = text.find(':');
  PredictorSpec spec{&predictors().by_name(text.substr(0, colon)), {}};
  for (const PredictorParameter& parameter : spec.entry->parameters) {
    spec.values[parameter.name] = parameter.value_default;
  }
  if (colon != std::string_view::npos) set_parameters(spec, text.substr(colon + 1));
  return spec;
}

double number_of(const PredictorValues& values, std::string_view predictor,
                 const std::string& parameter, double value_min, double value_max) {
  const std::string& text = values.at(parameter);
  const auto refuse = [&] {
    return bad_usage(
        fmt::format("predictor '{}': expected {} to be a number from {} to {}, found "
                    "'{}'",
                    predictor, parameter, value_min, value_max, text));
  };
  try {
    const double value = parse_number(text);
    if (value >= value_min && value <= value_max) return value;
  } catch (const Error&) {
  }
  throw refuse();
}

std::string predictor_help() {
  std::string text;
  for (const PredictorEntry* entry : predictors().entries()) {
    text += fmt::format("{}{} ({}", text.empty() ? "" : ", ", entry->name, entry->summary);
    for (const PredictorParameter& parameter : entry->parameters) {
      text += fmt::format("; {}={}: {}", parameter.name,
                          parameter.value_default.empty() ? "VALUE" : parameter.value_default,
                          parameter.meaning);
    }
    text += ")";
  }
  return text;
}

}  // namespace thermocline
