#include "models/gguf_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

#include "models/gguf_keys.h"
#include "models/gguf_model.h"
#include "models/registry.h"
#include "models/tensor_stream.h"

namespace thermocline {
namespace {

constexpr auto kLayoutNames = std::to_array<std::string_view>({"plain", "bundles"});
constexpr uint32_t kQuantizationVersion = 2;  // of ggml's blocks

// general.file_type: llama.cpp's enum llama_ftype, for files mostly of one type. By DType.
constexpr uint32_t kFileTypes[] = {0, 1, 32, 7, 2, 3, 8, 9, 14, 16, 18};
static_assert(std::size(kFileTypes) == kDTypeCount);

struct NamedMatrix {
  Matrix matrix;
  const char* name;
};

constexpr NamedMatrix kAttention[] = {{Matrix::q, "attn_q.weight"},
                                      {Matrix::k, "attn_k.weight"},
                                      {Matrix::v, "attn_v.weight"},
                                      {Matrix::o, "attn_output.weight"}};
constexpr NamedMatrix kFfn[] = {{Matrix::gate, "ffn_gate.weight"},
                                {Matrix::up, "ffn_up.weight"},
                                {Matrix::down_t, "ffn_down_t.weight"}};

RowSource rows_of(const WeightSource& source, Matrix matrix, uint32_t layer) {
  const auto [rows, cols] = size_of(matrix, source.shape());
  const DType dtype = source.dtype(matrix, layer);
  const auto fill = [&source, matrix, layer, cols = cols, row_bytes = bytes_of(dtype, cols)](
                        uint64_t begin, uint64_t end, std::byte* out, uint64_t stride) {
    if (stride == row_bytes) return source.read(matrix, layer, {begin, end, 0, cols}, out);
    std::vector<std::byte> rows((end - begin) * row_bytes);
    source.read(matrix, layer, {begin, end, 0, cols}, rows.data());
    for (uint64_t i = 0; i < end - begin; ++i) {
      std::memcpy(out + i * stride, rows.data() + i * row_bytes, row_bytes);
    }
  };
  return {dtype, rows, cols, fill};
}

OutputTensor norm_of(const WeightSource& source, NormVector vector, uint32_t layer,
                     const std::string& name) {
  const auto fill = [&source, vector, layer](uint64_t, uint64_t, std::byte* out, uint64_t) {
    std::vector<float> values(source.shape().model_dim);
    source.read(vector, layer, values.data());
    std::memcpy(out, values.data(), values.size() * sizeof(float));
  };
  return plain_tensor(name, {DType::f32, 1, source.shape().model_dim, fill});
}

void add_layer(const WeightSource& source, uint32_t layer, uint64_t stride,
               std::vector<OutputTensor>& tensors) {
  const auto name = [layer](std::string_view part) {
    return fmt::format("blk.{}.{}", layer, part);
  };
  tensors.push_back(norm_of(source, NormVector::attention_norm, layer, name("attn_norm.weight")));
  for (const auto& [matrix, part] : kAttention) {
    tensors.push_back(plain_tensor(name(part), rows_of(source, matrix, layer)));
  }
  tensors.push_back(norm_of(source, NormVector::ffn_norm, layer, name("ffn_norm.weight")));
  if (stride != 0) {
    tensors.push_back(bundle_tensor(name(kBundleTensor), rows_of(source, Matrix::gate, layer),
                                    rows_of(source, Matrix::up, layer),
                                    rows_of(source, Matrix::down_t, layer), stride));
    return;
  }
  for (const auto& [matrix, part] : kFfn) {
    tensors.push_back(plain_tensor(name(part), rows_of(source, matrix, layer)));
  }
}

// `stride`: of the bundles; 0: matrices apart.
std::vector<OutputTensor> tensors_of(const WeightSource& source, uint64_t stride) {
  std::vector<OutputTensor> tensors;
  tensors.push_back(plain_tensor("token_embd.weight", rows_of(source, Matrix::token_embedding, 0)));
  for (uint32_t layer = 0; layer < source.shape().layer_count; ++layer) {
    add_layer(source, layer, stride, tensors);
  }
  tensors.push_back(norm_of(source, NormVector::output_norm, 0, "output_norm.weight"));
  if (!source.shape().tied_embeddings) {
    tensors.push_back(plain_tensor("output.weight", rows_of(source, Matrix::head, 0)));
  }
  const std::vector<float>& divisors = source.shape().rope_divisors;
  if (needs_rope_tensor(source.shape())) tensors.push_back(rope_tensor(divisors));
  return tensors;
}

void set_general_keys(GgufOutput& output, const WeightSource& source,
                      const GgufWriteOptions& options) {
  output.set_text("general.architecture", "llama");
  if (!options.name.empty()) output.set_text("general.name", options.name);
  if (!options.description.empty()) output.set_text("general.description", options.description);
  output.set_text(kGgufProvenanceKey, source.provenance());
  set_type_keys(output, source.dtype(Matrix::gate, 0));
}

std::vector<std::string> merge_texts(const Vocabulary& vocabulary) {
  std::vector<std::string> texts;
  for (const auto& [left, right] : vocabulary.merges) texts.push_back(left + " " + right);
  return texts;
}

// Where pairs are merged by rank there are no scores; other tools get the piece's place, as
// llama.cpp's converter has it.
void set_sentencepiece_keys(GgufOutput& output, const Vocabulary& vocabulary) {
  std::vector<float> scores = vocabulary.scores;
  for (size_t id = scores.size(); id < vocabulary.pieces.size(); ++id) {
    scores.push_back(vocabulary.merges.empty() ? 0.0f : -static_cast<float>(id));
  }
  output.set_numbers("tokenizer.ggml.scores", scores);
  if (!vocabulary.merges.empty()) output.set_texts(kGgufMergesKey, merge_texts(vocabulary));
  if (vocabulary.ignore_merges) output.set_flag(kGgufIgnoreMergesKey, true);
  if (vocabulary.space_prefix != Vocabulary::SpacePrefix::always) {
    output.set_text(kGgufSpacePrefixKey, name_of(vocabulary.space_prefix));
  }
}

void set_byte_bpe_keys(GgufOutput& output, const Vocabulary& vocabulary) {
  if (!vocabulary.scores.empty()) output.set_numbers("tokenizer.ggml.scores", vocabulary.scores);
  output.set_texts("tokenizer.ggml.merges", merge_texts(vocabulary));
  const std::string_view name = gguf_split_name(vocabulary);
  output.set_text("tokenizer.ggml.pre", name.empty() ? "default" : name);
  if (!name.empty()) return;
  output.set_texts(kGgufSplitPatternsKey, vocabulary.split_patterns);
  output.set_flag(kGgufIgnoreMergesKey, vocabulary.ignore_merges);
}

bool same_divisors(const ModelShape& shape) {
  const std::vector<float>& divisors = shape.rope_divisors;
  return std::adjacent_find(divisors.begin(), divisors.end(), std::not_equal_to<>()) ==
         divisors.end();
}

}  // namespace

bool needs_rope_tensor(const ModelShape& shape) { return !same_divisors(shape); }

OutputTensor rope_tensor(const std::vector<float>& divisors) {
  const auto fill = [divisors](uint64_t, uint64_t, std::byte* out, uint64_t) {
    std::memcpy(out, divisors.data(), divisors.size() * sizeof(float));
  };
  return plain_tensor("rope_freqs.weight", {DType::f32, 1, divisors.size(), fill});
}

std::string_view name_of(GgufLayout layout) { return kLayoutNames[static_cast<size_t>(layout)]; }

GgufLayout gguf_layout_by_name(std::string_view name) {
  for (size_t i = 0; i < kLayoutNames.size(); ++i) {
    if (kLayoutNames[i] == name) return static_cast<GgufLayout>(i);
  }
  throw unknown_name("layout", name, {kLayoutNames.begin(), kLayoutNames.end()});
}

void set_type_keys(GgufOutput& output, DType dtype) {
  output.set_count("general.file_type", kFileTypes[static_cast<int>(dtype)]);
  output.set_count("general.quantization_version", kQuantizationVersion);
}

void set_shape_keys(GgufOutput& output, const ModelShape& shape) {
  output.set_count("llama.vocab_size", shape.vocab_size);
  output.set_count("llama.context_length", shape.context_length);
  output.set_count("llama.embedding_length", shape.model_dim);
  output.set_count("llama.block_count", shape.layer_count);
  output.set_count("llama.feed_forward_length", shape.ffn_dim);
  output.set_count("llama.attention.head_count", shape.head_count);
  output.set_count("llama.attention.head_count_kv", shape.kv_head_count);
  output.set_count("llama.attention.key_length", shape.head_dim);
  output.set_count("llama.attention.value_length", shape.head_dim);
  output.set_count("llama.rope.dimension_count", shape.head_dim);
  output.set_number("llama.attention.layer_norm_rms_epsilon", shape.norm_epsilon);
  output.set_number("llama.rope.freq_base", shape.rope_theta);
  const std::vector<float>& divisors = shape.rope_divisors;
  const bool linear = !divisors.empty() && same_divisors(shape);
  if (!divisors.empty()) output.set_text("llama.rope.scaling.type", linear ? "linear" : "none");
  if (linear) output.set_number("llama.rope.scaling.factor", divisors[0]);
  if (shape.activation != FfnActivation::silu) {
    output.set_text(kGgufActivationKey, name_of(shape.activation));
  }
  if (shape.activation == FfnActivation::fatrelu) {
    output.set_number(kGgufFatreluThresholdKey, shape.fatrelu_threshold);
  }
}

void set_vocabulary_keys(GgufOutput& output, const Vocabulary& vocabulary) {
  if (vocabulary.kind == Vocabulary::Kind::none) {
    return output.set_text("tokenizer.ggml.model", "no_vocab");
  }
  const bool sentencepiece = vocabulary.kind == Vocabulary::Kind::sentencepiece;
  output.set_text("tokenizer.ggml.model", sentencepiece ? "llama" : "gpt2");
  output.set_texts("tokenizer.ggml.tokens", vocabulary.pieces);
  if (!vocabulary.types.empty()) output.set_integers("tokenizer.ggml.token_type", vocabulary.types);
  if (sentencepiece) set_sentencepiece_keys(output, vocabulary);
  if (!sentencepiece) set_byte_bpe_keys(output, vocabulary);
  const auto set_id = [&output](const char* key, int32_t id) {
    if (id >= 0) output.set_count(key, static_cast<uint32_t>(id));
  };
  set_id("tokenizer.ggml.bos_token_id", vocabulary.bos_id);
  set_id("tokenizer.ggml.eos_token_id", vocabulary.eos_id);
  set_id("tokenizer.ggml.unknown_token_id", vocabulary.unknown_id);
  output.set_flag("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
  output.set_flag("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
}

void set_bundle_keys(GgufOutput& output, const BundleTypes& types, uint64_t stride) {
  output.set_count("thermocline.bundle.version", kBundleVersion);
  output.set_text("thermocline.bundle.gate_type", facts(types.gate).name);
  output.set_text("thermocline.bundle.up_type", facts(types.up).name);
  output.set_text("thermocline.bundle.down_type", facts(types.down_t).name);
  output.set_count("thermocline.bundle.stride", static_cast<uint32_t>(stride));
}

void write_gguf(const WeightSource& source, const std::string& path,
                const GgufWriteOptions& options) {
  const bool bundles = options.layout == GgufLayout::bundles;
  const BundleTypes types = bundle_types(source);
  const uint64_t stride = bundles ? bundle_stride(bundle_bytes(source.shape(), types)) : 0;
  GgufOutput output(path, bundles ? kBundleAlignment : kGgufAlignmentDefault);
  set_general_keys(output, source, options);
  set_shape_keys(output, source.shape());
  set_vocabulary_keys(output, options.vocabulary != nullptr ? *options.vocabulary : Vocabulary{});
  if (bundles) set_bundle_keys(output, types, stride);
  const std::vector<OutputTensor> tensors = tensors_of(source, stride);
  uint64_t total = 0;
  for (const OutputTensor& tensor : tensors) total += tensor.byte_count();
  std::function<void(uint64_t)> progress;
  if (options.progress) progress = [&](uint64_t done) { options.progress(done, total); };
  stream_tensors(output, tensors, options.thread_count, progress);
  output.finish();
}

}  // namespace thermocline
