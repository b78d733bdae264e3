// Small files of every format, made in code: for tests to read, cut and damage, and for fuzzers to
// start from.
//
// Goals: no binary file is committed. Values follow from names, so that a test can recompute them.
// Thread-safety: none needed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "models/dtype.h"
#include "models/hash.h"
#include "models/quantize.h"
#include "models/shape.h"

namespace thermocline::test {

// Little-endian fields, one after the other.
class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Bytes& text(std::string_view text) {  // as GGUF has it: u64 length, bytes
    put<uint64_t>(text.size());
    bytes_.append(text);
    return *this;
  }
  Bytes& append(std::string_view bytes) {
    bytes_.append(bytes);
    return *this;
  }
  Bytes& pad(size_t alignment) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  const std::string& str() const { return bytes_; }

 private:
  std::string bytes_;
};

inline constexpr uint32_t kGgufU32 = 4, kGgufF32 = 6, kGgufBool = 7, kGgufString = 8,
                          kGgufArray = 9, kGgufU64 = 10;

// A GGUF file in parts; `bytes()` puts them together.
class GgufFile {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;  // fastest first
    uint32_t type;
    std::string data;
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> pairs;  // key, type and value
  std::vector<Tensor> tensors;

  // Replaces the pair of that key, or adds one.
  void set(const std::string& key, const Bytes& typed_value) {
    for (auto& [name, value] : pairs) {
      if (name == key) {
        value = typed_value.str();
        return;
      }
    }
    pairs.emplace_back(key, typed_value.str());
  }
  void set_u32(const std::string& key, uint32_t v) { set(key, Bytes().put(kGgufU32).put(v)); }
  void set_u64(const std::string& key, uint64_t v) { set(key, Bytes().put(kGgufU64).put(v)); }
  void set_f32(const std::string& key, float v) { set(key, Bytes().put(kGgufF32).put(v)); }
  void set_bool(const std::string& key, uint8_t v) { set(key, Bytes().put(kGgufBool).put(v)); }
  void set_text(const std::string& key, std::string_view v) {
    set(key, Bytes().put(kGgufString).text(v));
  }
  void remove(const std::string& key) {
    std::erase_if(pairs, [&key](const auto& pair) { return pair.first == key; });
  }
  void remove_tensor(const std::string& name) {
    std::erase_if(tensors, [&name](const Tensor& tensor) { return tensor.name == name; });
  }
  Tensor& tensor(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    return tensors.emplace_back(Tensor{name, {}, 0, ""});
  }

  std::string bytes() const {
    Bytes file;
    file.append(magic).put(version).put<uint64_t>(tensors.size()).put<uint64_t>(pairs.size());
    for (const auto& [key, typed_value] : pairs) file.text(key).append(typed_value);
    Bytes data;
    for (const Tensor& tensor : tensors) {
      data.pad(alignment);
      file.text(tensor.name).put<uint32_t>(tensor.dimensions.size());
      for (const uint64_t dimension : tensor.dimensions) file.put(dimension);
      file.put(tensor.type).put<uint64_t>(data.str().size());
      data.append(tensor.data);
    }
    if (!tensors.empty()) file.pad(alignment).append(data.str());
    return file.str();
  }
};

// The value of an element of a made tensor: in [-1, 1), different for every place.
inline float made_value(const std::string& name, uint64_t row, uint64_t col) {
  Fnv1a hash;
  hash.add(name);
  hash.add_value(row);
  hash.add_value(col);
  return static_cast<float>(hash.value() >> 40) / static_cast<float>(1 << 23) - 1.0f;
}

inline std::vector<float> made_values(const std::string& name, uint64_t rows, uint64_t cols) {
  std::vector<float> values;
  for (uint64_t row = 0; row < rows; ++row) {
    for (uint64_t col = 0; col < cols; ++col) values.push_back(made_value(name, row, col));
  }
  return values;
}

inline std::string encoded(DType dtype, const std::vector<float>& values) {
  std::string data(bytes_of(dtype, values.size()), '\0');
  quantize(dtype, values.data(), values.size(), reinterpret_cast<std::byte*>(data.data()));
  return data;
}

// The pieces of a small SentencePiece vocabulary: special tokens, bytes, then pieces by score.
inline const std::vector<std::string>& small_pieces() {
  static const std::vector<std::string> pieces = {
      "\u2581t", "he",     "\u2581a", "\u2581the", "in", "an", "\u2581\u2581",
      "ab",      "\u00e9", "\u2581",  "t",         "h",  "e",  "a",
      "i",       "n",      "b",       "\u20ac"};
  return pieces;
}

inline std::vector<std::string> small_vocabulary() {
  std::vector<std::string> all = {"<unk>", "<s>", "</s>"};
  const char* digits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    all.push_back(std::string("<0x") + digits[byte >> 4] + digits[byte & 15] + ">");
  }
  all.insert(all.end(), small_pieces().begin(), small_pieces().end());
  return all;
}

inline float small_score(size_t id) { return id < 259 ? 0.0f : 259.0f - static_cast<float>(id); }

inline void set_small_vocabulary(GgufFile& file) {
  const std::vector<std::string> all = small_vocabulary();
  Bytes pieces, scores, types;
  pieces.put(kGgufArray).put(kGgufString).put<uint64_t>(all.size());
  scores.put(kGgufArray).put(kGgufF32).put<uint64_t>(all.size());
  types.put(kGgufArray).put<uint32_t>(5).put<uint64_t>(all.size());
  for (size_t id = 0; id < all.size(); ++id) {
    pieces.text(all[id]);
    scores.put(small_score(id));
    types.put<int32_t>(id == 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1);
  }
  file.set_text("tokenizer.ggml.model", "llama");
  file.set("tokenizer.ggml.tokens", pieces);
  file.set("tokenizer.ggml.scores", scores);
  file.set("tokenizer.ggml.token_type", types);
  file.set_u32("tokenizer.ggml.bos_token_id", 1);
  file.set_u32("tokenizer.ggml.eos_token_id", 2);
  file.set_u32("tokenizer.ggml.unknown_token_id", 0);
}

// Small, with every dimension different and whole blocks of 32 where rows need them.
inline ModelShape small_shape() {
  return {.layer_count = 2,
          .model_dim = 64,
          .ffn_dim = 160,
          .head_count = 4,
          .kv_head_count = 2,
          .head_dim = 16,
          .vocab_size = 7,
          .context_length = 48,
          .rope_theta = 50000.0f};
}

inline void set_shape(GgufFile& file, const ModelShape& shape) {
  file.set_text("general.architecture", "llama");
  file.set_u32("llama.block_count", shape.layer_count);
  file.set_u32("llama.embedding_length", shape.model_dim);
  file.set_u64("llama.feed_forward_length", shape.ffn_dim);
  file.set_u32("llama.attention.head_count", shape.head_count);
  file.set_u32("llama.attention.head_count_kv", shape.kv_head_count);
  file.set_u32("llama.context_length", shape.context_length);
  file.set_f32("llama.attention.layer_norm_rms_epsilon", shape.norm_epsilon);
  file.set_f32("llama.rope.freq_base", shape.rope_theta);
}

struct MadeTensor {
  const char* name;
  uint64_t rows, cols;
};

inline std::vector<MadeTensor> layer_tensors(const ModelShape& shape) {
  return {{"attn_norm.weight", 1, shape.model_dim},
          {"attn_q.weight", shape.q_dim(), shape.model_dim},
          {"attn_k.weight", shape.kv_dim(), shape.model_dim},
          {"attn_v.weight", shape.kv_dim(), shape.model_dim},
          {"attn_output.weight", shape.model_dim, shape.q_dim()},
          {"ffn_norm.weight", 1, shape.model_dim},
          {"ffn_gate.weight", shape.ffn_dim, shape.model_dim},
          {"ffn_down.weight", shape.model_dim, shape.ffn_dim},
          {"ffn_up.weight", shape.ffn_dim, shape.model_dim}};
}

inline void add_made_tensor(GgufFile& file, const std::string& name, uint64_t rows, uint64_t cols,
                            DType dtype) {
  std::vector<uint64_t> dimensions = {cols};
  if (rows > 1) dimensions.push_back(rows);
  const DType stored = rows == 1 ? DType::f32 : dtype;
  file.tensors.push_back(
      {name, dimensions, facts(stored).ggml_id, encoded(stored, made_values(name, rows, cols))});
}

// A whole model whose matrices are of `dtype`, its vectors f32; `shape.tied_embeddings` counts.
inline GgufFile small_gguf(DType dtype, const ModelShape& shape = small_shape()) {
  GgufFile file;
  set_shape(file, shape);
  add_made_tensor(file, "token_embd.weight", shape.vocab_size, shape.model_dim, dtype);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    for (const MadeTensor& tensor : layer_tensors(shape)) {
      add_made_tensor(file, prefix + tensor.name, tensor.rows, tensor.cols, dtype);
    }
  }
  add_made_tensor(file, "output_norm.weight", 1, shape.model_dim, dtype);
  if (!shape.tied_embeddings) {
    add_made_tensor(file, "output.weight", shape.vocab_size, shape.model_dim, dtype);
  }
  return file;
}

// A file with a vocabulary and no tensors.
inline GgufFile small_vocabulary_gguf() {
  GgufFile file;
  file.set_text("general.architecture", "llama");
  set_small_vocabulary(file);
  return file;
}

// llama2.c's legacy layout of the same made values.
inline std::string small_llama2c(const ModelShape& shape = small_shape()) {
  Bytes file;
  const auto vocab = static_cast<int32_t>(shape.vocab_size);
  for (const uint32_t field :
       {shape.model_dim, shape.ffn_dim, shape.layer_count, shape.head_count, shape.kv_head_count}) {
    file.put(field);
  }
  file.put<int32_t>(shape.tied_embeddings ? vocab : -vocab).put(shape.context_length);
  const auto put = [&file](const std::string& name, uint64_t rows, uint64_t cols) {
    file.append(encoded(DType::f32, made_values(name, rows, cols)));
  };
  put("token_embd.weight", shape.vocab_size, shape.model_dim);
  for (const MadeTensor& tensor : layer_tensors(shape)) {
    for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
      put("blk." + std::to_string(layer) + "." + tensor.name, tensor.rows, tensor.cols);
    }
  }
  put("output_norm.weight", 1, shape.model_dim);
  for (int table = 0; table < 2; ++table) put("rotary", shape.context_length, shape.head_dim / 2);
  if (!shape.tied_embeddings) put("output.weight", shape.vocab_size, shape.model_dim);
  return file.str();
}

// llama2.c's tokenizer file, with spaces where SentencePiece has U+2581.
inline std::string small_tokenizer_bin() {
  Bytes file;
  std::vector<std::string> pieces = small_vocabulary();
  for (std::string& piece : pieces) {
    for (size_t at; (at = piece.find("\u2581")) != std::string::npos;) {
      piece.erase(at, 2);
      piece[at] = ' ';
    }
  }
  file.put<int32_t>(6);  // "<0x00>" is the longest
  for (size_t id = 0; id < pieces.size(); ++id) {
    file.put(small_score(id)).put(static_cast<int32_t>(pieces[id].size())).append(pieces[id]);
  }
  return file.str();
}

}  // namespace thermocline::test
