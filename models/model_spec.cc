#include "models/model_spec.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <vector>

#include "models/embedded.h"
#include "models/gaussian_blocks.h"
#include "models/registry.h"
#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

constexpr std::string_view kPresetPrefix = "preset:";
// What may follow the prefix without being a shape.
constexpr std::string_view kDemoName = kDemoModel.substr(kPresetPrefix.size());

void set_layers(ModelSpec& spec, std::string_view value) {
  const uint64_t layer_count = parse_count(value);
  if (layer_count < 1 || layer_count > spec.preset->shape.layer_count) {
    throw bad_usage(fmt::format("expected layers from 1 to {} ({}), found {}",
                                spec.preset->shape.layer_count, spec.preset->name, layer_count));
  }
  spec.shape.layer_count = static_cast<uint32_t>(layer_count);
}

// Synthetic weights come in blocks of 32.
void set_type(ModelSpec& spec, std::string_view value) {
  const DType dtype = dtype_by_name(value);
  if (facts(dtype).items_per_block > kGaussianBlockItems) {
    throw bad_usage(
        fmt::format("expected a type whose blocks have at most {} elements for synthetic weights, "
                    "found {} ({})",
                    kGaussianBlockItems, value, facts(dtype).items_per_block));
  }
  spec.dtype = dtype;
}

void set_seed(ModelSpec& spec, std::string_view value) { spec.seed = parse_count(value); }

// A number between `low` and `high`, both allowed.
float number_within(std::string_view key, std::string_view value, double low, double high) {
  const double number = parse_number(value);
  if (number < low || number > high) {
    throw bad_usage(fmt::format("expected {} from {} to {}, found {}", key, low, high, value));
  }
  return static_cast<float>(number);
}

void set_take(ModelSpec& spec, std::string_view value) {
  if (value != "first" && value != "even") throw unknown_name("take", value, {"first", "even"});
  spec.take_even = value == "even";
}

void set_regime(ModelSpec& spec, std::string_view value) { spec.regime = activity_regime(value); }

// Below one in a million and above all but one in a million no layer tells rates apart.
void set_activity(ModelSpec& spec, std::string_view value) {
  spec.regime.mean = number_within("activity", value, 1e-6, 1 - 1e-6);
}

void set_share(ModelSpec& spec, std::string_view value) {
  spec.regime.share_80 = number_within("share", value, 0.02, 0.78);
}

void set_correlation(ModelSpec& spec, std::string_view value) {
  spec.regime.correlation = number_within("correlation", value, 0, 0.75);
}

void set_drift(ModelSpec& spec, std::string_view value) {
  spec.regime.drift = number_within("drift", value, 0, kDriftMax);
}

void set_profile(ModelSpec& spec, std::string_view value) {
  spec.regime.profile = layer_profile_by_name(value);
}

struct Key {
  std::string_view name;
  void (*set)(ModelSpec& spec, std::string_view value);
};

// In the order in which they are applied: a regime before what overrides it.
constexpr Key kKeys[] = {{"layers", set_layers}, {"type", set_type},
                         {"seed", set_seed},     {"take", set_take},
                         {"regime", set_regime}, {"activity", set_activity},
                         {"share", set_share},   {"correlation", set_correlation},
                         {"drift", set_drift},   {"profile", set_profile}};

const Key& key_by_name(std::string_view name) {
  std::vector<std::string> valid;
  for (const Key& key : kKeys) {
    if (key.name == name) return key;
    valid.emplace_back(key.name);
  }
  throw unknown_name("key of a model preset", name, valid);
}

using Options = std::map<std::string_view, std::string_view>;

void add_option(Options& options, std::string_view option) {
  const size_t equals = option.find('=');
  const Key& key = key_by_name(option.substr(0, equals));
  if (equals == std::string_view::npos) {
    throw bad_usage(fmt::format("expected {0}=VALUE, found '{0}'", key.name));
  }
  if (!options.emplace(key.name, option.substr(equals + 1)).second) {
    throw bad_usage(fmt::format("expected {} once, found it twice", key.name));
  }
}

ModelSpec parse_preset(std::string_view text) {
  const std::string_view body = text.substr(kPresetPrefix.size());
  const std::vector<std::string_view> parts = split(body, ',');
  ModelSpec spec;
  spec.text = text;
  spec.preset = &shape_preset(parts[0], {std::string(kDemoName)});
  spec.shape = spec.preset->shape;
  spec.regime = activity_regime(spec.preset->regime);
  Options options;
  for (size_t i = 1; i < parts.size(); ++i) add_option(options, parts[i]);
  for (const Key& key : kKeys) {
    const auto option = options.find(key.name);
    if (option != options.end()) key.set(spec, option->second);
  }
  return spec;
}

// A preset's name without its prefix is a likely slip, and no file of that name exists.
void check_not_a_preset(std::string_view text) {
  const std::string_view name = text.substr(0, text.find(','));
  std::vector<std::string_view> names = {kDemoName};
  for (const ShapePreset& preset : shape_presets()) names.push_back(preset.name);
  for (const std::string_view known : names) {
    if (known == name && !std::filesystem::exists(text)) {
      throw bad_usage(fmt::format(
          "--model: expected a checkpoint file or preset:NAME, found '{0}'; did you mean "
          "'preset:{0}'?",
          text));
    }
  }
}

}  // namespace

ModelSpec parse_model_spec(std::string_view text) {
  if (text.empty()) throw bad_usage("--model: expected PATH or preset:NAME, found nothing");
  if (!text.starts_with(kPresetPrefix) || text == kDemoModel) {
    check_not_a_preset(text);
    ModelSpec spec;
    spec.text = spec.path = text;
    return spec;
  }
  if (text.starts_with(kDemoModel) && text[kDemoModel.size()] == ',') {
    throw bad_usage(
        fmt::format("--model {}: expected {} alone: it is trained as it is", text, kDemoModel));
  }
  try {
    return parse_preset(text);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("--model {}: {}", text, error.what()));
  }
}

}  // namespace thermocline
