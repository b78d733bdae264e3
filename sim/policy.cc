#include "sim/policy.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "models/error.h"
#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

constexpr std::string_view kAll = "all", kFixed = "fixed", kFixedPolicy = "fixed-topk";

std::string text_of(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

// A number, or the index of a word.
double parse_value(const PolicyEntry& entry, const PolicyParameter& parameter,
                   std::string_view text) {
  if (parameter.choices.empty()) return parse_number(text);
  const auto found = std::find(parameter.choices.begin(), parameter.choices.end(), text);
  if (found == parameter.choices.end()) {
    throw unknown_name("value of parameter " + parameter.name + " of policy '" + entry.name + "'",
                       text, parameter.choices);
  }
  return static_cast<double>(found - parameter.choices.begin());
}

// "name:a=1,b=2", with or without the parameters that stand at their default.
std::string text_of(const PolicyEntry& entry, const PolicyValues& values, bool with_defaults) {
  std::string text = entry.name;
  char separator = ':';
  for (const PolicyParameter& parameter : entry.parameters) {
    const double value = values.at(parameter.name);
    if (!with_defaults && value == parameter.value_default) continue;
    text += separator + parameter.name + "=" + value_text(parameter, value);
    separator = ',';
  }
  return text;
}

const PolicyParameter& parameter_by_name(const PolicyEntry& entry, std::string_view name) {
  std::vector<std::string> names;
  for (const PolicyParameter& parameter : entry.parameters) {
    if (parameter.name == name) return parameter;
    names.push_back(parameter.name);
  }
  if (names.empty()) {
    throw bad_usage("policy '" + entry.name + "' has no parameters, found '" + std::string(name) +
                    "'");
  }
  throw unknown_name("parameter of policy '" + entry.name + "'", name, names);
}

void check_range(const PolicyEntry& entry, const PolicyParameter& parameter, double value) {
  const bool inside = value >= parameter.value_min && value <= parameter.value_max;
  if (inside && (!parameter.whole || value == std::floor(value))) return;
  throw bad_usage("policy '" + entry.name + "', parameter " + parameter.name + " (" +
                  parameter.meaning + "): expected a " + (parameter.whole ? "whole " : "") +
                  "number from " + text_of(parameter.value_min) + " to " +
                  text_of(parameter.value_max) + ", found " + text_of(value));
}

const PolicyEntry& entry_of(std::string_view name) {
  const PolicyEntry* entry = policies().by_name_or_null(name == kFixed ? kFixedPolicy : name);
  if (entry != nullptr) return *entry;
  std::vector<std::string> names = policies().names();
  names.insert(names.end(), {std::string(kAll), std::string(kFixed)});
  throw unknown_name("policy", name, names);
}

// Builds the list from the comma-separated pieces: NAME, NAME:key=value or key=value.
class PolicyListParser {
 public:
  void add(std::string_view piece) {
    const size_t colon = piece.find(':');
    if (colon == std::string_view::npos && piece.find('=') != std::string_view::npos) {
      set_parameter(piece);
      return;
    }
    begin_policy(piece.substr(0, colon));
    if (colon != std::string_view::npos) set_parameter(piece.substr(colon + 1));
  }

  std::vector<PolicySpec> finish() {
    for (size_t i = 0; i < specs_.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (specs_[i].resolved() != specs_[j].resolved()) continue;
        throw bad_usage("policy '" + specs_[i].label() + "' is given twice");
      }
    }
    return std::move(specs_);
  }

 private:
  void begin_policy(std::string_view name) {
    PolicySpec spec;
    spec.entry = &entry_of(name);
    for (const PolicyParameter& parameter : spec.entry->parameters) {
      spec.values[parameter.name] = parameter.value_default;
    }
    specs_.push_back(std::move(spec));
    seen_.clear();
  }

  void set_parameter(std::string_view assignment) {
    const size_t equals = assignment.find('=');
    if (specs_.empty() || equals == std::string_view::npos) {
      throw bad_usage("--policy: expected NAME[:key=value[,key=value]], found '" +
                      std::string(assignment) + "'");
    }
    PolicySpec& spec = specs_.back();
    const std::string name(assignment.substr(0, equals));
    const PolicyParameter& parameter = parameter_by_name(*spec.entry, name);
    const double value = parse_value(*spec.entry, parameter, assignment.substr(equals + 1));
    check_range(*spec.entry, parameter, value);
    if (std::find(seen_.begin(), seen_.end(), name) != seen_.end()) {
      throw bad_usage("policy '" + spec.entry->name + "': parameter '" + name + "' is set twice");
    }
    seen_.push_back(name);
    spec.values[name] = value;
  }

  std::vector<PolicySpec> specs_;
  std::vector<std::string> seen_;  // parameters of the last policy that the text has set
};

}  // namespace

Registry<PolicyEntry>& policies() {
  static Registry<PolicyEntry> registry("policy");
  return registry;
}

TierRates tier_rates(const NodeProfile& node) {
  if (!node.tiered()) return {};
  return {node.fast().bytes_per_second, node.slow().bytes_per_second,
          node.migration.latency_seconds};
}

std::string policy_name(std::string_view id) {
  std::string name(id);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string PolicySpec::label() const { return text_of(*entry, values, false); }
std::string PolicySpec::resolved() const { return text_of(*entry, values, true); }
std::string PolicySpec::parameters() const {
  const std::string text = resolved();
  return text.size() > entry->name.size() ? text.substr(entry->name.size() + 1) : "";
}

std::vector<PolicySpec> parse_policies(std::string_view text) {
  PolicyListParser parser;
  for (const std::string_view piece : split(text, ',')) {
    if (piece != kAll) {
      parser.add(piece);
      continue;
    }
    for (const std::string& name : policies().names()) parser.add(name);
  }
  return parser.finish();
}

std::string value_text(const PolicyParameter& parameter, double value) {
  if (parameter.choices.empty()) return text_of(value);
  return parameter.choices.at(static_cast<size_t>(value));
}

void RankedPolicy::start(const PolicyContext& context, HotSet& hot) {
  if (context.hot_count_max == 0) return;
  for (const uint32_t flat : ranking(context)) {
    if (hot.count() == context.hot_count_max) return;
    hot.insert(flat);
  }
}

std::vector<uint32_t> ranked_by_count(const std::vector<uint32_t>& counts) {
  if (counts.empty()) return {};
  // A counting sort: begin[c] is where neurons of count c start.
  const uint32_t largest = *std::max_element(counts.begin(), counts.end());
  std::vector<uint32_t> begin(uint64_t{largest} + 2);
  for (const uint32_t count : counts) ++begin[largest - count + 1];
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<uint32_t> order(counts.size());
  for (uint32_t flat = 0; flat < counts.size(); ++flat) {
    order[begin[largest - counts[flat]]++] = flat;
  }
  return order;
}

void fill_hottest(const ActivationProfile& profile, uint64_t count_max, uint64_t count_min,
                  HotSet& hot) {
  const auto& counts = profile.counts;
  if (counts.empty() || count_max == 0) return;
  std::vector<uint64_t> neurons_of_count(*std::max_element(counts.begin(), counts.end()) + 1ull);
  for (const uint32_t count : counts) ++neurons_of_count[count];
  // The largest count whose neurons do not all fit: those above it are in, its own by index.
  uint64_t border = neurons_of_count.size();
  uint64_t left = count_max;
  while (border > count_min && neurons_of_count[border - 1] <= left) {
    left -= neurons_of_count[--border];
  }
  const bool border_may_enter = border > count_min;
  for (uint32_t flat = 0; flat < counts.size(); ++flat) {
    if (counts[flat] >= border) {
      hot.insert(flat);
    } else if (border_may_enter && left > 0 && counts[flat] + 1ull == border) {
      hot.insert(flat);
      --left;
    }
  }
}

uint64_t bundles_of_pool(uint64_t budget_bytes, uint64_t bundle_bytes, const NeuronPool& pool,
                         uint64_t model_neuron_count) {
  TC_CHECK(bundle_bytes > 0 && pool.total() <= model_neuron_count, "a pool larger than the model");
  if (model_neuron_count == 0) return 0;
  const uint64_t bundles = std::min(budget_bytes / bundle_bytes, model_neuron_count);
  return bundles * pool.total() / model_neuron_count;
}

uint64_t bundles_of_rank(const HotBudget& budget, size_t rank, uint64_t bundle_bytes,
                         const NeuronPool& pool, uint64_t rank_neuron_count,
                         uint64_t model_neuron_count) {
  if (budget.by_rank.empty()) {
    return bundles_of_pool(budget.bytes, bundle_bytes, pool, model_neuron_count);
  }
  return bundles_of_pool(budget.by_rank.at(rank), bundle_bytes, pool, rank_neuron_count);
}

}  // namespace thermocline
