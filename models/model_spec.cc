#include "models/model_spec.h"

#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <vector>

#include "models/gaussian_blocks.h"
#include "models/registry.h"
#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

constexpr std::string_view kPresetPrefix = "preset:";

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

void set_activity(ModelSpec& spec, std::string_view value) {
  const double mean = parse_number(value);
  // Below one in a million and above all but one in a million no layer tells rates apart.
  if (mean < 1e-6 || mean > 1 - 1e-6) {
    throw bad_usage(fmt::format("expected activity between 0 and 1, found {}", value));
  }
  spec.activity_mean = static_cast<float>(mean);
}

struct Key {
  std::string_view name;
  void (*set)(ModelSpec& spec, std::string_view value);
};

constexpr Key kKeys[] = {
    {"layers", set_layers}, {"type", set_type}, {"seed", set_seed}, {"activity", set_activity}};

const Key& key_by_name(std::string_view name) {
  std::vector<std::string> valid;
  for (const Key& key : kKeys) {
    if (key.name == name) return key;
    valid.emplace_back(key.name);
  }
  throw unknown_name("key of a model preset", name, valid);
}

void apply_option(ModelSpec& spec, std::string_view option, std::set<std::string_view>& seen) {
  const size_t equals = option.find('=');
  const Key& key = key_by_name(option.substr(0, equals));
  if (!seen.insert(key.name).second) {
    throw bad_usage(fmt::format("expected {} once, found it twice", key.name));
  }
  if (equals == std::string_view::npos) {
    throw bad_usage(fmt::format("expected {0}=VALUE, found '{0}'", key.name));
  }
  key.set(spec, option.substr(equals + 1));
}

ModelSpec parse_preset(std::string_view text) {
  const std::string_view body = text.substr(kPresetPrefix.size());
  const std::vector<std::string_view> parts = split(body, ',');
  ModelSpec spec;
  spec.text = text;
  spec.preset = &shape_preset(parts[0]);
  spec.shape = spec.preset->shape;
  spec.activity_mean = spec.preset->activity_mean;
  std::set<std::string_view> seen;
  for (size_t i = 1; i < parts.size(); ++i) apply_option(spec, parts[i], seen);
  return spec;
}

// A preset's name without its prefix is a likely slip, and no file of that name exists.
void check_not_a_preset(std::string_view text) {
  const std::string_view name = text.substr(0, text.find(','));
  for (const ShapePreset& preset : shape_presets()) {
    if (preset.name == name && !std::filesystem::exists(text)) {
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
  if (!text.starts_with(kPresetPrefix)) {
    check_not_a_preset(text);
    ModelSpec spec;
    spec.text = spec.path = text;
    return spec;
  }
  try {
    return parse_preset(text);
  } catch (const Error& error) {
    throw Error(error.kind(), fmt::format("--model {}: {}", text, error.what()));
  }
}

}  // namespace thermocline
