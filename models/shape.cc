#include "models/shape.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "models/registry.h"
#include "models/text.h"

namespace thermocline {
namespace {

constexpr auto kActivationNames = std::to_array<std::string_view>({"relu", "fatrelu", "silu"});

// Above the largest open models with room to spare; beyond, a length is a damaged file.
// The neurons of a model stay below 2^32, so that a flat index (models/neuron.h) fits.
struct Limit {
  const char* name;
  uint32_t ModelShape::*field;
  uint32_t max;
};

constexpr Limit kLimits[] = {
    {"layer_count", &ModelShape::layer_count, 1024},
    {"model_dim", &ModelShape::model_dim, 1u << 18},
    {"ffn_dim", &ModelShape::ffn_dim, 1u << 20},
    {"head_count", &ModelShape::head_count, 4096},
    {"kv_head_count", &ModelShape::kv_head_count, 4096},
    {"head_dim", &ModelShape::head_dim, 4096},
    {"vocab_size", &ModelShape::vocab_size, 1u << 22},
    {"context_length", &ModelShape::context_length, 1u << 24},
};

// The dimensions that the LLaMA-2 and LLaMA-3 families share; presets change the rest.
ModelShape llama_70b() {
  return {.layer_count = 80,
          .model_dim = 8192,
          .ffn_dim = 28672,
          .head_count = 64,
          .kv_head_count = 8,
          .head_dim = 128,
          .vocab_size = 32000,
          .context_length = 4096};
}

ModelShape llama_2_13b() {
  ModelShape shape = llama_70b();
  shape.layer_count = 40;
  shape.model_dim = 5120;
  shape.ffn_dim = 13824;
  shape.head_count = shape.kv_head_count = 40;
  return shape;
}

ModelShape llama_2_7b() {
  ModelShape shape = llama_2_13b();
  shape.layer_count = 32;
  shape.model_dim = 4096;
  shape.ffn_dim = 11008;
  shape.head_count = shape.kv_head_count = 32;
  return shape;
}

ModelShape llama_3_70b() {
  ModelShape shape = llama_70b();
  shape.vocab_size = 128256;
  shape.context_length = 8192;
  shape.rope_theta = 5e5f;
  return shape;
}

ModelShape relullama_70b() {
  ModelShape shape = llama_70b();
  shape.context_length = 2048;
  shape.activation = FfnActivation::relu;
  return shape;
}

// ProSparse shifts ReLU's threshold (activations.md section 1).
ModelShape prosparse(ModelShape shape) {
  shape.activation = FfnActivation::fatrelu;
  shape.fatrelu_threshold = 0.01f;
  return shape;
}

// Small enough to run whole in a test; the byte tokenizer's 259 ids are its vocabulary.
ModelShape tiny() {
  return {.layer_count = 4,
          .model_dim = 128,
          .ffn_dim = 512,
          .head_count = 8,
          .kv_head_count = 4,
          .head_dim = 16,
          .vocab_size = 259,
          .context_length = 2048,
          .activation = FfnActivation::relu};
}

}  // namespace

uint64_t parameter_count(const ModelShape& shape) {
  const uint64_t dim = shape.model_dim;
  const uint64_t attention = 2 * dim * shape.q_dim() + 2 * dim * shape.kv_dim();
  const uint64_t layer = attention + 3 * dim * shape.ffn_dim + 2 * dim;
  const uint64_t tables = dim * shape.vocab_size * (shape.tied_embeddings ? 1 : 2);
  return tables + shape.layer_count * layer + dim;
}

std::vector<double> rope_frequencies(const ModelShape& shape) {
  std::vector<double> frequencies;
  for (uint32_t i = 0; i < shape.head_dim; i += 2) {
    const double unscaled = std::pow(double{shape.rope_theta}, -double(i) / shape.head_dim);
    const double divisor = shape.rope_divisors.empty() ? 1.0 : shape.rope_divisors[i / 2];
    frequencies.push_back(unscaled / divisor);
  }
  return frequencies;
}

void validate(const ModelShape& shape, const std::string& origin) {
  for (const Limit& limit : kLimits) {
    const uint32_t found = shape.*limit.field;
    if (found == 0 || found > limit.max) {
      throw bad_input(origin, fmt::format("{} from 1 to {}", limit.name, limit.max),
                      fmt::format("{}", found));
    }
  }
  const auto expect = [&origin](bool holds, const char* expected, const std::string& found) {
    if (!holds) throw bad_input(origin, expected, found);
  };
  expect(shape.head_count % shape.kv_head_count == 0, "kv_head_count that divides head_count",
         fmt::format("{} and {}", shape.kv_head_count, shape.head_count));
  expect(shape.head_dim % 2 == 0, "an even head_dim (rotary pairs)",
         fmt::format("{}", shape.head_dim));
  expect(static_cast<size_t>(shape.activation) < kActivationNames.size(),
         "activation relu, fatrelu or silu", fmt::format("{}", static_cast<int>(shape.activation)));
  expect(std::isfinite(shape.fatrelu_threshold) && shape.fatrelu_threshold >= 0,
         "a finite fatrelu_threshold of at least 0", fmt::format("{}", shape.fatrelu_threshold));
  expect(std::isfinite(shape.rope_theta) && shape.rope_theta > 0, "a finite rope_theta above 0",
         fmt::format("{}", shape.rope_theta));
  const bool scaled = !shape.rope_divisors.empty();
  expect(!scaled || shape.rope_divisors.size() == shape.head_dim / 2,
         "a rope divisor for each of the head_dim / 2 rotary pairs",
         fmt::format("{}", shape.rope_divisors.size()));
  for (const float divisor : shape.rope_divisors) {
    expect(std::isfinite(divisor) && divisor > 0, "finite rope divisors above 0",
           fmt::format("{}", divisor));
  }
  expect(shape.norm_epsilon > 0 && shape.norm_epsilon < 1, "norm_epsilon between 0 and 1",
         fmt::format("{}", shape.norm_epsilon));
}

// The names without a size have the dimensions of LLaMA-70B, whatever the model that their activity
// was published for: statistics to study at that size.
const std::vector<ShapePreset>& shape_presets() {
  static const std::vector<ShapePreset> presets = {
      {"llama-2-7b", "Llama 2 7B: 32 layers, SiLU", llama_2_7b(), "swiglu"},
      {"llama-2-13b", "Llama 2 13B: 40 layers, SiLU", llama_2_13b(), "swiglu"},
      {"llama-2-70b", "Llama 2 70B: 80 layers, 8 kv heads, SiLU", llama_70b(), "swiglu"},
      {"llama-3-70b", "Llama 3 70B: vocabulary 128256, SiLU", llama_3_70b(), "swiglu"},
      {"swiglu-70b", "the same as llama-2-70b", llama_70b(), "swiglu"},
      {"relullama-70b", "ReluLLaMA 70B: Llama 2 70B with ReLU", relullama_70b(), "relullama-teal"},
      {"opt-like", "70B dimensions, as sparse and as steady as OPT", relullama_70b(), "flash-opt"},
      {"prosparse", "70B dimensions, FATReLU 0.01, as sparse as ProSparse", prosparse(llama_70b()),
       "prosparse"},
      {"prosparse-13b", "ProSparse 13B: Llama 2 13B with FATReLU 0.01", prosparse(llama_2_13b()),
       "prosparse"},
      {"tiny", "4 small layers with ReLU, for tests and a first look", tiny(), "relullama-teal"},
  };
  return presets;
}

const ShapePreset& shape_preset(std::string_view name, std::vector<std::string> valid) {
  for (const ShapePreset& preset : shape_presets()) {
    if (preset.name == name) return preset;
    valid.emplace_back(preset.name);
  }
  throw unknown_name("model preset", name, valid);
}

std::string_view name_of(FfnActivation activation) {
  const auto index = static_cast<size_t>(activation);
  TC_CHECK(index < kActivationNames.size(), "no such FfnActivation");
  return kActivationNames[index];
}

FfnActivation ffn_activation_by_name(std::string_view name) {
  for (size_t i = 0; i < kActivationNames.size(); ++i) {
    if (kActivationNames[i] == name) return static_cast<FfnActivation>(i);
  }
  throw unknown_name("activation", name, {kActivationNames.begin(), kActivationNames.end()});
}

DType dtype_by_name(std::string_view name) {
  std::vector<std::string> valid;
  for (int i = 0; i < kDTypeCount; ++i) {
    if (kDTypeFacts[i].name == name) return static_cast<DType>(i);
    valid.emplace_back(kDTypeFacts[i].name);
  }
  throw unknown_name("element type", name, valid);
}

std::string name_of(const BundleTypes& types) {
  const auto name = [](DType dtype) { return facts(dtype).name; };
  if (types.uniform()) return std::string(name(types.gate));
  return fmt::format("{}+{}+{}", name(types.gate), name(types.up), name(types.down_t));
}

BundleTypes bundle_types_by_name(std::string_view name) {
  const std::vector<std::string_view> parts = split(name, '+');
  if (parts.size() == 1) return dtype_by_name(parts[0]);
  if (parts.size() == 3) {
    return {dtype_by_name(parts[0]), dtype_by_name(parts[1]), dtype_by_name(parts[2])};
  }
  throw bad_usage(fmt::format("'{}': expected one type, or those of gate+up+down", name));
}

}  // namespace thermocline
