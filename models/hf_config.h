// config.json of a Hugging Face model: its shape, and what a model made for this program adds.
//
// Goals: LLaMA decoders (model types llama and sparsellama) with the defaults of transformers'
//   LlamaConfig; what would change results and is not computed here is refused by name: biases,
//   another architecture, yarn, quantised weights.
// Non-goals: tokenizers, sampling; the fields dtype and torch_dtype, since each tensor says its
// own. Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "models/shape.h"

namespace thermocline {

// `path` is for messages. The shape has been validated.
ModelShape parse_hf_config(std::span<const std::byte> bytes, const std::string& path);

// The object "thermocline" of the file, which transformers passes over:
// {"provenance": "trained-demo", "predictor_threshold": 0.0}. Both are optional.
struct HfNotes {
  std::string provenance = "real";
  std::optional<float> predictor_threshold;
};
HfNotes parse_hf_notes(std::span<const std::byte> bytes, const std::string& path);

}  // namespace thermocline
