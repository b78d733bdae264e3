#include "models/gguf_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "models/gguf_keys.h"
#include "models/gguf_split.h"

namespace thermocline {
namespace {

constexpr std::string_view kRopeDivisors = "rope_freqs.weight";

// Parts of a bundle in the order in which they lie, and how readers know them.
struct BundlePart {
  const char* type_key;
  std::string_view tensor;
};

constexpr BundlePart kBundleParts[] = {{"thermocline.bundle.gate_type", "ffn_gate.weight"},
                                       {"thermocline.bundle.up_type", "ffn_up.weight"},
                                       {"thermocline.bundle.down_type", "ffn_down_t.weight"}};

// What the tensors say about the model: the size of the vocabulary is that of the table.
void complete_shape(ModelShape& shape, const std::vector<TensorView>& tensors,
                    const std::string& path) {
  const auto find = [&](std::string_view name) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [name](const TensorView& tensor) { return tensor.name == name; });
  };
  const auto table = find("token_embd.weight");
  if (table == tensors.end() || table->rows > UINT32_MAX) {
    throw bad_input(path, "tensor token_embd.weight of fewer than 2^32 rows",
                    table == tensors.end() ? "no such tensor" : fmt::format("{}", table->rows));
  }
  shape.vocab_size = static_cast<uint32_t>(table->rows);
  shape.tied_embeddings = find("output.weight") == tensors.end();
  validate(shape, path);
}

// Llama 3.1 stores what each rotary pair's angle is divided by; it goes into the shape.
void apply_rope_divisors(const GgufTensor& tensor, const std::string& path, ModelShape& shape) {
  const TensorView view = view_of(tensor, path);
  if (view.dtype != DType::f32 || view.rows != 1 || view.cols != shape.head_dim / 2) {
    throw bad_input(path,
                    fmt::format("tensor {} of 1 x {} in f32", kRopeDivisors, shape.head_dim / 2),
                    fmt::format("{} x {} in {}", view.rows, view.cols, facts(view.dtype).name));
  }
  shape.rope_divisors.resize(view.cols);
  std::memcpy(shape.rope_divisors.data(), view.bytes.data(), view.bytes.size());
}

// Linear scaling divides the angle of every pair by the same.
void apply_rope_factor(float factor, ModelShape& shape) {
  if (factor == 1.0f) return;
  if (shape.rope_divisors.empty()) shape.rope_divisors.assign(shape.head_dim / 2, 1.0f);
  for (float& divisor : shape.rope_divisors) divisor *= factor;
}

DType bundle_type(const GgufMetadata& metadata, const char* key, uint32_t model_dim,
                  const std::string& path) {
  const std::string_view name = metadata.text(key);
  std::string valid;
  for (int i = 0; i < kDTypeCount; ++i) {
    const DTypeFacts& type = kDTypeFacts[i];
    valid += fmt::format("{}{}", i == 0 ? "" : ", ", type.name);
    if (type.name == name && model_dim % type.items_per_block == 0) return static_cast<DType>(i);
  }
  throw bad_input(
      path,
      fmt::format("{} one of {}, whose blocks divide a model_dim of {}", key, valid, model_dim),
      std::string(name));
}

// The matrices whose rows lie in the bundles of one layer.
void add_bundle_views(const GgufTensor& bundles, const GgufFile& keys, const ModelShape& shape,
                      std::vector<TensorView>& tensors) {
  const std::string place = fmt::format("{}: tensor {}", keys.path, bundles.name);
  const uint32_t version = keys.metadata.count("thermocline.bundle.version");
  if (version != kBundleVersion) {
    throw bad_input(keys.path, fmt::format("thermocline.bundle.version {}", kBundleVersion),
                    fmt::format("{}", version));
  }
  const uint64_t stride = keys.metadata.count("thermocline.bundle.stride");
  const std::vector<uint64_t> expected = {stride, shape.ffn_dim};
  if (bundles.ggml_type != kGgmlI8 || bundles.dimensions != expected || bundles.bytes.empty()) {
    throw bad_input(place, fmt::format("I8 of [{}, {}]", stride, shape.ffn_dim),
                    fmt::format("{} of [{}]", ggml_type_name(bundles.ggml_type),
                                fmt::join(bundles.dimensions, ", ")));
  }
  const std::string layer = bundles.name.substr(0, bundles.name.size() - kBundleTensor.size());
  uint64_t begin = 0;
  for (const BundlePart& part : kBundleParts) {
    const DType dtype = bundle_type(keys.metadata, part.type_key, shape.model_dim, keys.path);
    const uint64_t row_bytes = bytes_of(dtype, shape.model_dim);
    if (begin + row_bytes > stride) {
      throw bad_input(place, fmt::format("bundles of at least {} bytes", begin + row_bytes),
                      fmt::format("thermocline.bundle.stride {}", stride));
    }
    const uint64_t byte_count = (shape.ffn_dim - 1) * stride + row_bytes;
    tensors.push_back({.name = layer + std::string(part.tensor),
                       .dtype = dtype,
                       .rows = shape.ffn_dim,
                       .cols = shape.model_dim,
                       .bytes = bundles.bytes.subspan(begin, byte_count),
                       .row_stride = stride});
    begin += row_bytes;
  }
}

void add_tensors(const std::vector<GgufPart>& parts, CheckpointContents& contents) {
  const GgufFile& keys = parts[0].gguf;
  for (const GgufPart& part : parts) {
    contents.files.push_back(part.file);
    for (const GgufTensor& tensor : part.gguf.tensors) {
      if (tensor.name == kRopeDivisors) {
        apply_rope_divisors(tensor, part.gguf.path, contents.shape);
      } else if (tensor.name.ends_with(kBundleTensor)) {
        add_bundle_views(tensor, keys, contents.shape, contents.tensors);
      } else {
        contents.tensors.push_back(view_of(tensor, part.gguf.path));
      }
    }
  }
}

std::vector<KeptPair> kept_pairs(const GgufMetadata& metadata) {
  std::vector<KeptPair> pairs;
  for (const auto& [key, typed_value] : metadata.pairs()) pairs.push_back({key, typed_value});
  return pairs;
}

}  // namespace

std::unique_ptr<Checkpoint> parse_gguf_model(const CheckpointFile& file,
                                             const Neighbours& neighbours,
                                             const GgufDialect& dialect) {
  const std::vector<GgufPart> parts = open_gguf_parts(file, neighbours, dialect.magic);
  const GgufFile& keys = parts[0].gguf;
  check_gguf_supported(keys.metadata, keys.path);
  const bool complete = std::any_of(
      parts.begin(), parts.end(), [](const GgufPart& part) { return !part.gguf.tensors.empty(); });
  CheckpointContents contents;
  contents.shape = gguf_shape(keys.metadata, keys.path, complete);
  if (!keys.metadata.has("llama.hidden_activation")) {
    contents.shape.activation = dialect.activation;
  }
  contents.vocabulary = gguf_vocabulary(keys.metadata, keys.path);
  contents.predictor_threshold = gguf_predictor_threshold(keys.metadata);
  contents.provenance = gguf_provenance(keys.metadata, keys.path);
  contents.gguf_pairs = kept_pairs(keys.metadata);
  add_tensors(parts, contents);
  if (complete) {
    complete_shape(contents.shape, contents.tensors, keys.path);
    apply_rope_factor(gguf_rope_factor(keys.metadata, keys.path), contents.shape);
  } else if (contents.shape.vocab_size == 0) {
    contents.shape.vocab_size = static_cast<uint32_t>(contents.vocabulary.pieces.size());
  }
  auto checkpoint = std::make_unique<Checkpoint>(file.path, std::move(contents));
  if (complete) check_predictors(*checkpoint);
  return checkpoint;
}

}  // namespace thermocline
