// config.json of a Hugging Face model: its shape.
//
// Goals: LLaMA decoders (model types llama and sparsellama) with the defaults of transformers'
//   LlamaConfig; what would change results and is not computed here is refused by name: biases,
//   another architecture, yarn, quantised weights.
// Non-goals: tokenizers, sampling; the fields dtype and torch_dtype, since each tensor says its
// own. Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "models/shape.h"

namespace thermocline {

// `path` is for messages. The shape has been validated.
ModelShape parse_hf_config(std::span<const std::byte> bytes, const std::string& path);

}  // namespace thermocline
