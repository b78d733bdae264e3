// What the keys of a GGUF file say about a LLaMA model: its shape and its vocabulary.
//
// Format: the llama.* and tokenizer.ggml.* keys of ggml docs/gguf.md.
// Non-goals: tensors (models/formats/gguf.cc), tokenizing (models/tokenizer.h).
// Thread-safety: pure functions; `path` is for messages.
#pragma once

#include <string>

#include "models/checkpoint.h"
#include "models/gguf_metadata.h"

namespace thermocline {

// An input Error for what would change every result and is not computed here: another
// architecture, scaled rotary embedding, experts, a part of a split file.
void check_gguf_supported(const GgufMetadata& metadata, const std::string& path);

// The sizes that the keys give. `complete`: a missing one is an Error; else it stays zero, since a
// file with a vocabulary alone need not give them.
ModelShape gguf_shape(const GgufMetadata& metadata, const std::string& path, bool complete);

Vocabulary gguf_vocabulary(const GgufMetadata& metadata, const std::string& path);

}  // namespace thermocline
