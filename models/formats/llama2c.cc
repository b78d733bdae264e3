// The legacy .bin of llama2.c (karpathy/llama2.c, export.py, version 0): f32 weights.
//
// int32[7] dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len; then the tensors of
// kTensors in order; then output.weight where vocab_size is negative (not tied). There is no magic
// number: the size of the file, which the header fixes, stands in for it.
// The format holds no constants: llama2.c uses epsilon 1e-5, theta 1e4, SiLU, interleaved pairs.
#include <fmt/format.h>

#include <algorithm>

#include "models/byte_reader.h"
#include "models/checkpoint.h"

namespace thermocline {
namespace {

constexpr uint64_t kHeaderBytes = 7 * sizeof(int32_t);

struct Tensor {
  const char* name;  // GGUF's; of one layer where `per_layer`
  bool per_layer;
  uint64_t (*rows)(const ModelShape&);
  uint64_t (*cols)(const ModelShape&);
};

uint64_t one(const ModelShape&) { return 1; }
uint64_t model_dim(const ModelShape& shape) { return shape.model_dim; }
uint64_t ffn_dim(const ModelShape& shape) { return shape.ffn_dim; }
uint64_t q_dim(const ModelShape& shape) { return shape.q_dim(); }
uint64_t kv_dim(const ModelShape& shape) { return shape.kv_dim(); }
uint64_t vocab_size(const ModelShape& shape) { return shape.vocab_size; }
uint64_t context_length(const ModelShape& shape) { return shape.context_length; }
uint64_t pair_count(const ModelShape& shape) { return shape.head_dim / 2; }

// In the order of the file. A name that is empty is skipped: tables of rotary cosines and sines,
// which follow from theta.
constexpr Tensor kTensors[] = {
    {"token_embd.weight", false, vocab_size, model_dim},
    {"attn_norm.weight", true, one, model_dim},
    {"attn_q.weight", true, q_dim, model_dim},
    {"attn_k.weight", true, kv_dim, model_dim},
    {"attn_v.weight", true, kv_dim, model_dim},
    {"attn_output.weight", true, model_dim, q_dim},
    {"ffn_norm.weight", true, one, model_dim},
    {"ffn_gate.weight", true, ffn_dim, model_dim},
    {"ffn_down.weight", true, model_dim, ffn_dim},
    {"ffn_up.weight", true, ffn_dim, model_dim},
    {"output_norm.weight", false, one, model_dim},
    {"", false, context_length, pair_count},
    {"", false, context_length, pair_count},
};
constexpr Tensor kHead = {"output.weight", false, vocab_size, model_dim};

uint32_t positive(ByteReader& reader, const char* field) {
  const auto value = reader.read<int32_t>(field);
  if (value > 0) return static_cast<uint32_t>(value);
  throw bad_input(reader.path(), fmt::format("a llama2.c header with {} above 0", field),
                  fmt::format("{}", value));
}

// A negative size of the vocabulary says that the head has weights of its own.
void read_vocab_size(ByteReader& reader, ModelShape& shape) {
  const auto value = int64_t{reader.read<int32_t>("vocab_size")};
  shape.tied_embeddings = value > 0;
  shape.vocab_size = static_cast<uint32_t>(value < 0 ? -value : value);
}

ModelShape read_shape(ByteReader& reader) {
  ModelShape shape;
  shape.model_dim = positive(reader, "dim");
  shape.ffn_dim = positive(reader, "hidden_dim");
  shape.layer_count = positive(reader, "n_layers");
  shape.head_count = positive(reader, "n_heads");
  shape.kv_head_count = positive(reader, "n_kv_heads");
  read_vocab_size(reader, shape);
  shape.context_length = positive(reader, "seq_len");
  if (shape.model_dim % shape.head_count != 0) {
    throw bad_input(reader.path(), "a llama2.c header whose n_heads divides dim",
                    fmt::format("{} and {}", shape.head_count, shape.model_dim));
  }
  shape.head_dim = shape.model_dim / shape.head_count;
  validate(shape, reader.path());
  return shape;
}

uint64_t byte_count(const Tensor& tensor, const ModelShape& shape) {
  return tensor.rows(shape) * tensor.cols(shape) * sizeof(float);
}

// The limits of validate() keep every product far below 2^64.
uint64_t file_bytes(const ModelShape& shape) {
  uint64_t bytes = kHeaderBytes + (shape.tied_embeddings ? 0 : byte_count(kHead, shape));
  for (const Tensor& tensor : kTensors) {
    bytes += byte_count(tensor, shape) * (tensor.per_layer ? shape.layer_count : 1);
  }
  return bytes;
}

void read_tensor(ByteReader& reader, const Tensor& tensor, const std::string& name,
                 const ModelShape& shape, std::vector<TensorView>& tensors) {
  const auto bytes = reader.take(byte_count(tensor, shape), tensor.name);
  if (name.empty()) return;
  tensors.push_back({.name = name,
                     .dtype = DType::f32,
                     .rows = tensor.rows(shape),
                     .cols = tensor.cols(shape),
                     .bytes = bytes});
}

std::vector<TensorView> read_tensors(ByteReader& reader, const ModelShape& shape) {
  std::vector<TensorView> tensors;
  for (const Tensor& tensor : kTensors) {
    if (!tensor.per_layer) {
      read_tensor(reader, tensor, tensor.name, shape, tensors);
      continue;
    }
    for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
      read_tensor(reader, tensor, fmt::format("blk.{}.{}", layer, tensor.name), shape, tensors);
    }
  }
  if (!shape.tied_embeddings) read_tensor(reader, kHead, kHead.name, shape, tensors);
  return tensors;
}

// A .bin is ours to accept or to refuse with a reason; under another name the size must fit.
bool matches_llama2c(std::span<const std::byte> bytes, std::string_view path) {
  if (path.ends_with(".bin")) return true;
  try {
    ByteReader reader(bytes, std::string(path));
    return file_bytes(read_shape(reader)) == bytes.size();
  } catch (const Error&) {
    return false;
  }
}

std::unique_ptr<Checkpoint> parse_llama2c(const CheckpointFile& file, const Neighbours&) {
  const auto& [path, owner, bytes] = file;
  ByteReader reader(bytes, path);
  CheckpointContents contents;
  contents.files = {file};
  contents.shape = read_shape(reader);
  const uint64_t expected = file_bytes(contents.shape);
  if (bytes.size() != expected) {
    throw bad_input(path, fmt::format("{} bytes, as the llama2.c header says", expected),
                    fmt::format("{}", bytes.size()));
  }
  contents.tensors = read_tensors(reader, contents.shape);
  return std::make_unique<Checkpoint>(path, std::move(contents));
}

}  // namespace

THERMOCLINE_CHECKPOINT_FORMAT(llama2c, "llama2.c's legacy .bin, f32", matches_llama2c,
                              parse_llama2c);

}  // namespace thermocline
