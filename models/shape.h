// ModelShape: the hyperparameters of a LLaMA-like decoder, and the presets that we know.
//
// Goals: one struct that checkpoints fill, traces store and replay reads.
// Non-goals: weights, files. Dimensions and sources: Hugging Face config.json of each model.
// Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/dtype.h"

namespace thermocline {

// The nonlinearity of the gated FFN: y = W_down (act(W_gate x) * (W_up x)).
// relu: max(g, 0). fatrelu: g if g >= t else 0 (ProSparse). silu: g / (1 + exp(-g)).
enum class FfnActivation : uint8_t { relu, fatrelu, silu };

struct ModelShape {
  uint32_t layer_count = 0;
  uint32_t model_dim = 0;      // width of the residual stream
  uint32_t ffn_dim = 0;        // neurons per layer
  uint32_t head_count = 0;     // query heads
  uint32_t kv_head_count = 0;  // key and value heads; divides head_count
  uint32_t head_dim = 0;
  uint32_t vocab_size = 0;
  uint32_t context_length = 0;
  FfnActivation activation = FfnActivation::silu;
  float fatrelu_threshold = 0.0f;
  float rope_theta = 10000.0f;
  float norm_epsilon = 1e-5f;
  bool tied_embeddings = false;  // the output head is the embedding table
  // (head_dim / 2), or empty: rotary pair i turns by position * theta^(-2i/head_dim) / divisor i.
  // Scaled embedding (linear; Llama-3.1's) is such a list. Traces do not hold it.
  std::vector<float> rope_divisors = {};
  bool operator==(const ModelShape&) const = default;

  uint32_t q_dim() const { return head_count * head_dim; }
  uint32_t kv_dim() const { return kv_head_count * head_dim; }
  uint64_t neuron_count() const { return uint64_t{layer_count} * ffn_dim; }
};

// Element types of the three rows of a bundle.
struct BundleTypes {
  DType gate, up, down_t;
  BundleTypes(DType all) : gate(all), up(all), down_t(all) {}
  BundleTypes(DType gate, DType up, DType down_t) : gate(gate), up(up), down_t(down_t) {}
  bool operator==(const BundleTypes&) const = default;
  bool uniform() const { return *this == BundleTypes(gate); }
};
std::string name_of(const BundleTypes& types);  // "q4_0", or "q4_k+q4_k+q8_0" where they differ
BundleTypes bundle_types_by_name(std::string_view name);  // of the same form; else a usage Error

// Bytes of one neuron: gate row + up row + down column.
inline uint64_t bundle_bytes(const ModelShape& shape, const BundleTypes& types) {
  return bytes_of(types.gate, shape.model_dim) + bytes_of(types.up, shape.model_dim) +
         bytes_of(types.down_t, shape.model_dim);
}
// Bytes of all FFN bundles.
inline uint64_t ffn_bytes(const ModelShape& shape, const BundleTypes& types) {
  return shape.neuron_count() * bundle_bytes(shape, types);
}
// Parameters of the whole model (norms included).
uint64_t parameter_count(const ModelShape& shape);

// Radians that each of the head_dim / 2 rotary pairs turns by from one position to the next.
std::vector<double> rope_frequencies(const ModelShape& shape);

// Throws Error{input} naming `origin` where a dimension is zero, absurd or inconsistent.
void validate(const ModelShape& shape, const std::string& origin);

struct ShapePreset {
  std::string_view name;
  std::string_view summary;
  ModelShape shape;
  std::string_view regime;  // of activity, for synthetic weights (models/activity_regime.h)
};

// llama-2-7b, llama-2-13b, llama-2-70b, llama-3-70b, swiglu-70b, relullama-70b, opt-like,
// prosparse, prosparse-13b, tiny.
const std::vector<ShapePreset>& shape_presets();
// The preset, or a usage Error with the valid names, `valid` first.
const ShapePreset& shape_preset(std::string_view name, std::vector<std::string> valid = {});

std::string_view name_of(FfnActivation activation);
FfnActivation ffn_activation_by_name(std::string_view name);  // usage Error with the valid names
DType dtype_by_name(std::string_view name);                   // likewise

}  // namespace thermocline
