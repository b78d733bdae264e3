// What the keys of a GGUF file say about a LLaMA model: its shape and its vocabulary.
//
// Format: the llama.* and tokenizer.ggml.* keys of ggml docs/gguf.md.
// Non-goals: tensors (models/formats/gguf.cc), tokenizing (models/tokenizer.h).
// Thread-safety: pure functions; `path` is for messages.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "models/checkpoint.h"
#include "models/gguf_metadata.h"

namespace thermocline {

// Keys of our own: the FFN's nonlinearity (a FfnActivation's name) where it is not SiLU, FATReLU's
// activation threshold, and whether the weights are synthetic.
inline constexpr std::string_view kGgufActivationKey = "llama.hidden_activation";
inline constexpr std::string_view kGgufFatreluThresholdKey = "llama.hidden_activation_threshold";
inline constexpr std::string_view kGgufProvenanceKey = "thermocline.provenance";
// PowerInfer's: the predictor threshold.
inline constexpr std::string_view kGgufPredictorThresholdKey = "powerinfer.sparse_threshold";
// What of a vocabulary GGUF has no keys for: expressions without a name in tokenizer.ggml.pre,
// ranks of SentencePiece's merges, where a space prefix goes.
inline constexpr std::string_view kGgufSplitPatternsKey = "thermocline.tokenizer.split_patterns";
inline constexpr std::string_view kGgufIgnoreMergesKey = "thermocline.tokenizer.ignore_merges";
inline constexpr std::string_view kGgufMergesKey = "thermocline.tokenizer.merges";
inline constexpr std::string_view kGgufSpacePrefixKey = "thermocline.tokenizer.space_prefix";

// An input Error for what would change every result and is not computed here: another
// architecture, rotary embedding scaled otherwise than linearly, experts.
void check_gguf_supported(const GgufMetadata& metadata, const std::string& path);

// The sizes that the keys give. `complete`: a missing one is an Error; else it stays zero, since a
// file with a vocabulary alone need not give them.
ModelShape gguf_shape(const GgufMetadata& metadata, const std::string& path, bool complete);

// Linear scaling of the rotary embedding: every angle is divided by it.
float gguf_rope_factor(const GgufMetadata& metadata, const std::string& path);

std::optional<float> gguf_predictor_threshold(const GgufMetadata& metadata);
std::string gguf_provenance(const GgufMetadata& metadata, const std::string& path);

// How a byte-level vocabulary splits, as tokenizer.ggml.pre names it; empty where it has no name.
std::string_view gguf_split_name(const Vocabulary& vocabulary);
std::string_view name_of(Vocabulary::SpacePrefix prefix);

Vocabulary gguf_vocabulary(const GgufMetadata& metadata, const std::string& path);

}  // namespace thermocline
