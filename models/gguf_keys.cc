#include "models/gguf_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "models/pieces.h"

namespace thermocline {
namespace {

struct Dimension {
  const char* key;
  uint32_t ModelShape::*field;
};

constexpr Dimension kDimensions[] = {
    {"llama.block_count", &ModelShape::layer_count},
    {"llama.embedding_length", &ModelShape::model_dim},
    {"llama.feed_forward_length", &ModelShape::ffn_dim},
    {"llama.attention.head_count", &ModelShape::head_count},
    {"llama.context_length", &ModelShape::context_length},
};

struct VocabularyKind {
  std::string_view name;  // of tokenizer.ggml.model
  Vocabulary::Kind kind;
};

constexpr VocabularyKind kVocabularyKinds[] = {{"llama", Vocabulary::Kind::sentencepiece},
                                               {"gpt2", Vocabulary::Kind::byte_bpe},
                                               {"no_vocab", Vocabulary::Kind::none}};

// By Vocabulary::SpacePrefix.
constexpr auto kSpacePrefixNames =
    std::to_array<std::string_view>({"always", "where_missing", "at_start_where_missing"});

// How a byte-level vocabulary splits text into words, by its name in tokenizer.ggml.pre: the
// expressions of llama.cpp's src/llama-vocab.cpp, and for Llama-3 that of its own tokenizer.json.
struct Splitting {
  std::string_view name;
  std::vector<std::string> patterns;
  bool llama3 = false;  // ignores merges, and adds a BOS where the file does not say
};

const std::vector<Splitting>& splittings() {
  static const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  static const std::string gpt2 =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
  static const std::vector<Splitting> table = {
      {"default", {R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}},
      {"gpt-2", {gpt2}},
      {"llama-bpe", {llama3}, true},
      {"llama-v3", {llama3}, true},
      {"llama3", {llama3}, true},
      {"smollm", {R"(\p{N})", gpt2}},
      {"starcoder", {R"(\p{N})", gpt2}},
  };
  return table;
}

// llama.cpp reads a file without the key as "default".
const Splitting& splitting_of(const GgufMetadata& metadata, const std::string& path) {
  const std::string_view pre = metadata.text_or("tokenizer.ggml.pre", "default");
  std::string names;
  for (const Splitting& splitting : splittings()) {
    if (splitting.name == pre) return splitting;
    names += (names.empty() ? "" : ", ") + std::string(splitting.name);
  }
  throw bad_input(path, "tokenizer.ggml.pre of " + names, std::string(pre));
}

int32_t token_id(const GgufMetadata& metadata, const char* key, int32_t fallback, size_t count,
                 const std::string& path) {
  if (!metadata.has(key)) return fallback;
  const uint32_t id = metadata.count(key);
  if (id < count) return static_cast<int32_t>(id);
  throw bad_input(path, fmt::format("{} below {}, the number of tokens", key, count),
                  fmt::format("{}", id));
}

Vocabulary::Kind vocabulary_kind(const GgufMetadata& metadata, const std::string& path) {
  const std::string_view model = metadata.text_or("tokenizer.ggml.model", "no_vocab");
  for (const VocabularyKind& known : kVocabularyKinds) {
    if (known.name == model) return known.kind;
  }
  throw bad_input(path, "tokenizer.ggml.model llama, gpt2 or no_vocab", std::string(model));
}

// One number for each token, or none at all.
void check_per_token(size_t count, size_t token_count, const char* key, const std::string& path) {
  if (count == 0 || count == token_count) return;
  throw bad_input(path, fmt::format("{} of {} tokens", key, token_count), fmt::format("{}", count));
}

void read_merges(const GgufMetadata& metadata, std::string_view key, const std::string& path,
                 Vocabulary& vocabulary) {
  const std::string place = fmt::format("{}: key {}", path, key);
  for (const std::string& merge : metadata.texts(key)) {
    vocabulary.merges.push_back(parse_merge(merge, place));
  }
}

void read_sentencepiece(const GgufMetadata& metadata, const std::string& path,
                        Vocabulary& vocabulary) {
  read_merges(metadata, kGgufMergesKey, path, vocabulary);
  vocabulary.ignore_merges = metadata.flag_or(kGgufIgnoreMergesKey, false);
  const std::string_view prefix = metadata.text_or(kGgufSpacePrefixKey, kSpacePrefixNames[0]);
  const auto known = std::find(kSpacePrefixNames.begin(), kSpacePrefixNames.end(), prefix);
  if (known == kSpacePrefixNames.end()) {
    throw bad_input(path,
                    fmt::format("{} {}", kGgufSpacePrefixKey, fmt::join(kSpacePrefixNames, ", ")),
                    std::string(prefix));
  }
  vocabulary.space_prefix = static_cast<Vocabulary::SpacePrefix>(known - kSpacePrefixNames.begin());
}

void read_byte_bpe(const GgufMetadata& metadata, const std::string& path, Vocabulary& vocabulary) {
  read_merges(metadata, "tokenizer.ggml.merges", path, vocabulary);
  if (metadata.has(kGgufSplitPatternsKey)) {
    vocabulary.split_patterns = metadata.texts(kGgufSplitPatternsKey);
    vocabulary.ignore_merges = metadata.flag_or(kGgufIgnoreMergesKey, false);
    return;
  }
  const Splitting& splitting = splitting_of(metadata, path);
  vocabulary.split_patterns = splitting.patterns;
  vocabulary.ignore_merges = splitting.llama3;
}

// GGUF names the activation only where it is not the architecture's own, SiLU.
void read_activation(const GgufMetadata& metadata, const std::string& path, ModelShape& shape) {
  const std::string_view name = metadata.text_or(kGgufActivationKey, "silu");
  for (const FfnActivation activation :
       {FfnActivation::silu, FfnActivation::relu, FfnActivation::fatrelu}) {
    if (name != name_of(activation)) continue;
    shape.activation = activation;
    if (activation == FfnActivation::fatrelu) {
      shape.fatrelu_threshold = static_cast<float>(metadata.number(kGgufFatreluThresholdKey));
    }
    return;
  }
  throw bad_input(path, fmt::format("{} silu, relu or fatrelu", kGgufActivationKey),
                  std::string(name));
}

uint32_t head_dim_of(const GgufMetadata& metadata, const ModelShape& shape,
                     const std::string& path) {
  const bool divides = shape.head_count != 0 && shape.model_dim % shape.head_count == 0;
  const uint32_t head_dim = metadata.count_or("llama.attention.key_length",
                                              divides ? shape.model_dim / shape.head_count : 0);
  for (const char* key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
    const uint32_t found = metadata.count_or(key, head_dim);
    if (found == head_dim) continue;
    throw bad_input(path, fmt::format("{} of {}, as wide as a key head", key, head_dim),
                    fmt::format("{}", found));
  }
  return head_dim;
}

constexpr std::string_view kRopeScalingType = "llama.rope.scaling.type";
constexpr std::string_view kRopeScalingFactor = "llama.rope.scaling.factor";

void check_rope_scaling(const GgufMetadata& metadata, const std::string& path) {
  const std::string_view scaling = metadata.text_or(kRopeScalingType, "linear");
  const bool known = scaling == "none" || scaling == "linear";
  if (!known && metadata.number_or(kRopeScalingFactor, 1.0) != 1.0) {
    throw bad_input(
        path,
        fmt::format("{} none or linear, or {}", kRopeScalingType, "a tensor rope_freqs.weight"),
        std::string(scaling));
  }
  constexpr std::string_view kLengthFactor = "llama.rope.scaling.attn_factor";
  if (const double factor = metadata.number_or(kLengthFactor, 1.0); factor != 1.0) {
    throw bad_input(path, fmt::format("{} 1", kLengthFactor), fmt::format("{}", factor));
  }
}

}  // namespace

// What would change every result and is not computed here must not be passed over.
void check_gguf_supported(const GgufMetadata& metadata, const std::string& path) {
  const std::string_view architecture = metadata.text("general.architecture");
  if (architecture != "llama") {
    throw bad_input(path, "general.architecture llama", std::string(architecture));
  }
  check_rope_scaling(metadata, path);
  if (metadata.count_or("llama.expert_count", 0) != 0) {
    throw bad_input(path, "a dense FFN", "a mixture of experts (llama.expert_count)");
  }
}

float gguf_rope_factor(const GgufMetadata& metadata, const std::string& path) {
  // llama.cpp takes a factor without a type as linear; its older files have the other key.
  if (metadata.text_or(kRopeScalingType, "linear") != "linear") return 1.0f;
  const double factor =
      metadata.number_or(kRopeScalingFactor, metadata.number_or("llama.rope.scale_linear", 1.0));
  if (factor > 0) return static_cast<float>(factor);
  throw bad_input(path, fmt::format("{} above 0", kRopeScalingFactor), fmt::format("{}", factor));
}

std::optional<float> gguf_predictor_threshold(const GgufMetadata& metadata) {
  if (!metadata.has(kGgufPredictorThresholdKey)) return {};
  return static_cast<float>(metadata.number(kGgufPredictorThresholdKey));
}

std::string gguf_provenance(const GgufMetadata& metadata, const std::string& path) {
  const std::string_view found = metadata.text_or(kGgufProvenanceKey, "real");
  for (const std::string_view known : kProvenances) {
    if (found == known) return std::string(found);
  }
  throw bad_input(path, fmt::format("{} real, trained-demo or synthetic", kGgufProvenanceKey),
                  std::string(found));
}

ModelShape gguf_shape(const GgufMetadata& metadata, const std::string& path, bool complete) {
  ModelShape shape;
  for (const Dimension& dimension : kDimensions) {
    shape.*dimension.field =
        complete ? metadata.count(dimension.key) : metadata.count_or(dimension.key, 0);
  }
  shape.kv_head_count = metadata.count_or("llama.attention.head_count_kv", shape.head_count);
  shape.head_dim = head_dim_of(metadata, shape, path);
  shape.vocab_size = metadata.count_or("llama.vocab_size", 0);
  read_activation(metadata, path, shape);
  shape.rope_theta =
      static_cast<float>(metadata.number_or("llama.rope.freq_base", shape.rope_theta));
  const char* epsilon = "llama.attention.layer_norm_rms_epsilon";
  shape.norm_epsilon =
      static_cast<float>(complete ? metadata.number(epsilon) : metadata.number_or(epsilon, 1e-5));
  return shape;
}

std::string_view gguf_split_name(const Vocabulary& vocabulary) {
  for (const Splitting& splitting : splittings()) {
    const bool same = splitting.patterns == vocabulary.split_patterns &&
                      splitting.llama3 == vocabulary.ignore_merges;
    if (same) return splitting.name;
  }
  return "";
}

std::string_view name_of(Vocabulary::SpacePrefix prefix) {
  return kSpacePrefixNames.at(static_cast<size_t>(prefix));
}

Vocabulary gguf_vocabulary(const GgufMetadata& metadata, const std::string& path) {
  Vocabulary vocabulary;
  vocabulary.kind = vocabulary_kind(metadata, path);
  if (vocabulary.kind == Vocabulary::Kind::none) return vocabulary;
  vocabulary.pieces = metadata.texts("tokenizer.ggml.tokens");
  vocabulary.scores = metadata.numbers("tokenizer.ggml.scores");
  vocabulary.types = metadata.integers("tokenizer.ggml.token_type");
  const size_t count = vocabulary.pieces.size();
  if (count == 0 || count > INT32_MAX) {
    throw bad_input(path, "tokenizer.ggml.tokens", fmt::format("{} tokens", count));
  }
  check_per_token(vocabulary.scores.size(), count, "tokenizer.ggml.scores", path);
  check_per_token(vocabulary.types.size(), count, "tokenizer.ggml.token_type", path);
  const auto id = [&](const char* key, int32_t fallback) {
    return token_id(metadata, key, fallback, count, path);
  };
  const bool sentencepiece = vocabulary.kind == Vocabulary::Kind::sentencepiece;
  if (!sentencepiece) {
    vocabulary.bos_id = vocabulary.eos_id = vocabulary.unknown_id = -1;
    read_byte_bpe(metadata, path, vocabulary);
  } else {
    read_sentencepiece(metadata, path, vocabulary);
  }
  vocabulary.bos_id = id("tokenizer.ggml.bos_token_id", vocabulary.bos_id);
  vocabulary.eos_id = id("tokenizer.ggml.eos_token_id", vocabulary.eos_id);
  vocabulary.unknown_id = id("tokenizer.ggml.unknown_token_id", vocabulary.unknown_id);
  vocabulary.add_bos =
      metadata.flag_or("tokenizer.ggml.add_bos_token", sentencepiece || vocabulary.ignore_merges);
  vocabulary.add_space_prefix = metadata.flag_or("tokenizer.ggml.add_space_prefix", sentencepiece);
  return vocabulary;
}

}  // namespace thermocline
