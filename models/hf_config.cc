#include "models/hf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/json_reader.h"
#include "models/rope_scaling.h"

namespace thermocline {
namespace {

struct Architecture {
  std::string_view model_type;
  std::string_view name;  // in `architectures`
};

// sparsellama is ProSparse's: LLaMA whose activation has a threshold.
constexpr Architecture kArchitectures[] = {{"llama", "LlamaForCausalLM"},
                                           {"sparsellama", "SparseLlamaForCausalLM"}};

struct Dimension {
  const char* key;
  uint32_t ModelShape::*field;
};

constexpr Dimension kDimensions[] = {
    {"num_hidden_layers", &ModelShape::layer_count},
    {"hidden_size", &ModelShape::model_dim},
    {"intermediate_size", &ModelShape::ffn_dim},
    {"num_attention_heads", &ModelShape::head_count},
    {"vocab_size", &ModelShape::vocab_size},
};

struct Activation {
  std::string_view name;
  FfnActivation activation;
};

constexpr Activation kActivations[] = {{"silu", FfnActivation::silu},
                                       {"swish", FfnActivation::silu},
                                       {"relu", FfnActivation::relu},
                                       {"fatrelu", FfnActivation::fatrelu}};

// Of LlamaConfig, where a file leaves them out.
constexpr uint32_t kContextLengthDefault = 2048;
constexpr double kEpsilonDefault = 1e-6;
constexpr double kThetaDefault = 10000.0;

uint32_t dimension(const JsonView& value) {
  if (value.count() > UINT32_MAX) value.refuse("a number below 2^32");
  return static_cast<uint32_t>(value.count());
}

uint32_t dimension_or(const JsonView& config, const char* key, uint32_t fallback) {
  const auto value = config.find(key);
  return value ? dimension(*value) : fallback;
}

double number_or(const JsonView& config, const char* key, double fallback) {
  const auto value = config.find(key);
  return value ? value->number() : fallback;
}

double above_zero(const JsonView& value) {
  const double number = value.number();
  if (!std::isfinite(static_cast<float>(number)) || static_cast<float>(number) <= 0) {
    value.refuse("a number above 0");
  }
  return number;
}

template <class Entry>
std::string names_of(const Entry& table, auto name) {
  std::string names;
  for (const auto& row : table) names += (names.empty() ? "" : ", ") + std::string(row.*name);
  return names;
}

void check_architecture(const JsonView& config) {
  const JsonView type = config.at("model_type");
  const auto known =
      std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                   [&](const Architecture& a) { return a.model_type == type.text(); });
  if (known == std::end(kArchitectures)) {
    type.refuse("one of " + names_of(kArchitectures, &Architecture::model_type));
  }
  const auto listed = config.find("architectures");
  for (size_t i = 0; listed && i < listed->size(); ++i) {
    const std::string& name = listed->at(i).text();
    const bool ours = std::any_of(std::begin(kArchitectures), std::end(kArchitectures),
                                  [&](const Architecture& a) { return a.name == name; });
    if (!ours) listed->at(i).refuse("one of " + names_of(kArchitectures, &Architecture::name));
  }
}

// What would change every result and is not computed here must not be passed over.
void check_supported(const JsonView& config) {
  check_architecture(config);
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    const auto bias = config.find(key);
    if (bias && bias->flag()) bias->refuse("false: matrices without biases");
  }
  if (const auto quantised = config.find("quantization_config")) {
    quantised->refuse("no such field: tensors of F32, F16 or BF16");
  }
  const auto partial = config.find("partial_rotary_factor");
  if (partial && partial->number() != 1.0) partial->refuse("1: heads that turn whole");
}

void read_activation(const JsonView& config, ModelShape& shape) {
  const auto act = config.find("hidden_act");
  if (!act) return;  // SiLU
  const auto known = std::find_if(std::begin(kActivations), std::end(kActivations),
                                  [&](const Activation& a) { return a.name == act->text(); });
  if (known == std::end(kActivations)) {
    act->refuse("one of " + names_of(kActivations, &Activation::name));
  }
  shape.activation = known->activation;
  if (shape.activation != FfnActivation::fatrelu) return;
  shape.fatrelu_threshold = static_cast<float>(config.at("hidden_act_param").number());
}

uint32_t head_dim_of(const JsonView& config, const ModelShape& shape) {
  if (const auto head_dim = config.find("head_dim")) return dimension(*head_dim);
  if (shape.head_count != 0 && shape.model_dim % shape.head_count == 0) {
    return shape.model_dim / shape.head_count;
  }
  throw bad_input(config.place(), "head_dim, or a num_attention_heads that divides hidden_size",
                  fmt::format("{} and {}", shape.head_count, shape.model_dim));
}

using Divisors = std::vector<float> (*)(const JsonView& rule, const ModelShape& shape);

std::vector<float> no_divisors(const JsonView&, const ModelShape&) { return {}; }

std::vector<float> linear_divisors(const JsonView& rule, const ModelShape& shape) {
  return linear_rope_divisors(above_zero(rule.at("factor")), shape.head_dim);
}

std::vector<float> llama3_divisors(const JsonView& rule, const ModelShape& shape) {
  const Llama3RopeScaling scaling = {above_zero(rule.at("factor")),
                                     above_zero(rule.at("low_freq_factor")),
                                     above_zero(rule.at("high_freq_factor")),
                                     above_zero(rule.at("original_max_position_embeddings"))};
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    rule.at("high_freq_factor").refuse("more than low_freq_factor");
  }
  return llama3_rope_divisors(scaling, double{shape.rope_theta}, shape.head_dim);
}

struct RopeRule {
  std::string_view name;
  Divisors divisors;
};

constexpr RopeRule kRopeRules[] = {
    {"default", no_divisors}, {"linear", linear_divisors}, {"llama3", llama3_divisors}};

// `rope_parameters` holds theta as well and is what transformers writes from version 5 on; before
// it was `rope_scaling`, whose `type` became `rope_type`.
std::optional<JsonView> rope_rule(const JsonView& config) {
  const auto rule = config.find("rope_parameters");
  return rule ? rule : config.find("rope_scaling");
}

void read_theta(const JsonView& config, ModelShape& shape) {
  const auto rule = rope_rule(config);
  auto theta = rule ? rule->find("rope_theta") : std::nullopt;
  if (!theta) theta = config.find("rope_theta");
  shape.rope_theta = static_cast<float>(theta ? above_zero(*theta) : kThetaDefault);
}

// `shape` has been validated but for its divisors.
void read_divisors(const JsonView& config, ModelShape& shape) {
  const auto rule = rope_rule(config);
  if (!rule) return;
  auto type = rule->find("rope_type");
  if (!type) type = rule->find("type");
  if (!type) return;  // rope_parameters with theta alone
  const auto known =
      std::find_if(std::begin(kRopeRules), std::end(kRopeRules),
                   [&](const RopeRule& known) { return known.name == type->text(); });
  if (known == std::end(kRopeRules))
    type->refuse("one of " + names_of(kRopeRules, &RopeRule::name));
  shape.rope_divisors = known->divisors(*rule, shape);
}

}  // namespace

ModelShape parse_hf_config(std::span<const std::byte> bytes, const std::string& path) {
  const nlohmann::json json = parse_json(bytes, path);
  const JsonView config(json, path);
  check_supported(config);
  ModelShape shape;
  for (const Dimension& known : kDimensions) {
    shape.*known.field = dimension(config.at(known.key));
  }
  shape.kv_head_count = dimension_or(config, "num_key_value_heads", shape.head_count);
  shape.head_dim = head_dim_of(config, shape);
  shape.context_length = dimension_or(config, "max_position_embeddings", kContextLengthDefault);
  shape.norm_epsilon = static_cast<float>(number_or(config, "rms_norm_eps", kEpsilonDefault));
  const auto tied = config.find("tie_word_embeddings");
  shape.tied_embeddings = tied && tied->flag();
  read_activation(config, shape);
  read_theta(config, shape);
  validate(shape, path);
  read_divisors(config, shape);
  validate(shape, path);
  return shape;
}

HfNotes parse_hf_notes(std::span<const std::byte> bytes, const std::string& path) {
  const nlohmann::json json = parse_json(bytes, path);
  const auto object = JsonView(json, path).find("thermocline");
  HfNotes notes;
  if (!object) return notes;
  if (const auto provenance = object->find("provenance")) {
    notes.provenance = provenance->text();
    const bool known =
        std::count(std::begin(kProvenances), std::end(kProvenances), notes.provenance) != 0;
    if (!known) provenance->refuse(fmt::format("one of {}", fmt::join(kProvenances, ", ")));
  }
  if (const auto threshold = object->find("predictor_threshold")) {
    notes.predictor_threshold = static_cast<float>(threshold->number());
    if (!std::isfinite(*notes.predictor_threshold)) threshold->refuse("a finite number");
  }
  return notes;
}

}  // namespace thermocline
