// Small Hugging Face models, made in code: safetensors files whole or damaged, their config.json.
//
// Goals: the made values of tests/file_bytes.h, so that a GGUF file of the same shape has the same
//   weights. Thread-safety: none needed.
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/file_bytes.h"

namespace thermocline::test {

// The length of the header, the header, the data.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return Bytes().put<uint64_t>(header.size()).append(header).append(data).str();
}

// A safetensors file in parts; `bytes()` puts them together as the library does.
class SafetensorsFile {
 public:
  struct Tensor {
    std::string name;
    std::string type;
    std::vector<uint64_t> shape;  // slowest first
    std::string data;
  };

  std::vector<Tensor> tensors;

  Tensor& tensor(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    return tensors.emplace_back(Tensor{name, "F32", {}, ""});
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&name](const Tensor& tensor) { return tensor.name == name; });
  }

  std::string bytes() const {
    std::string header = R"({"__metadata__":{"format":"pt"})", data;
    for (const Tensor& tensor : tensors) {
      header += fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                            tensor.name, tensor.type, fmt::join(tensor.shape, ","), data.size(),
                            data.size() + tensor.data.size());
      data += tensor.data;
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    return safetensors_bytes(header, data);
  }
};

struct HfName {
  const char* ours;  // GGUF's
  const char* theirs;
};

inline constexpr HfName kHfLayerNames[] = {
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};

// Rows (rows, cols) from interleaved rotary pairs to halves of each head, as Hugging Face has them.
inline std::vector<float> half_split_rows(const std::vector<float>& values, uint64_t rows,
                                          uint64_t cols, uint64_t head_dim) {
  std::vector<float> split(values.size());
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t pair = row % head_dim / 2, half = row % 2 * (head_dim / 2);
    const uint64_t to = row / head_dim * head_dim + half + pair;
    std::copy_n(values.begin() + static_cast<int64_t>(row * cols), cols,
                split.begin() + static_cast<int64_t>(to * cols));
  }
  return split;
}

inline const char* safetensors_type(DType dtype) {
  return dtype == DType::f32 ? "F32" : dtype == DType::f16 ? "F16" : "BF16";
}

// A made tensor, called `ours` in GGUF.
inline void add_hf_tensor(SafetensorsFile& file, const std::string& theirs, const std::string& ours,
                          uint64_t rows, uint64_t cols, DType dtype, uint64_t half_split = 0) {
  std::vector<float> values = made_values(ours, rows, cols);
  if (half_split != 0) values = half_split_rows(values, rows, cols, half_split);
  std::vector<uint64_t> shape = {cols};
  if (rows > 1) shape.insert(shape.begin(), rows);
  file.tensors.push_back({theirs, safetensors_type(dtype), shape, encoded(dtype, values)});
}

// f32, f16 or bf16 throughout, norms included.
inline SafetensorsFile small_safetensors(DType dtype, const ModelShape& shape = small_shape()) {
  SafetensorsFile file;
  const auto add = [&](const char* theirs, const char* ours, uint64_t rows) {
    add_hf_tensor(file, theirs, ours, rows, shape.model_dim, dtype);
  };
  if (!shape.tied_embeddings) add("lm_head.weight", "output.weight", shape.vocab_size);
  add("model.embed_tokens.weight", "token_embd.weight", shape.vocab_size);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::vector<MadeTensor> tensors = layer_tensors(shape);
    for (const HfName& name : kHfLayerNames) {
      const std::string_view ours = name.ours;
      const bool half_split = ours == "attn_q.weight" || ours == "attn_k.weight";
      for (const MadeTensor& tensor : tensors) {
        if (tensor.name != ours) continue;
        add_hf_tensor(file, fmt::format("model.layers.{}.{}", layer, name.theirs),
                      fmt::format("blk.{}.{}", layer, ours), tensor.rows, tensor.cols, dtype,
                      half_split ? shape.head_dim : 0);
      }
    }
  }
  add("model.norm.weight", "output_norm.weight", 1);
  return file;
}

// `more`: fields that follow, each with a comma before it.
inline std::string hf_config(const ModelShape& shape, const std::string& more = "") {
  return fmt::format(
      R"({{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":{},)"
      R"("intermediate_size":{},"num_hidden_layers":{},"num_attention_heads":{},)"
      R"("num_key_value_heads":{},"head_dim":{},"vocab_size":{},"max_position_embeddings":{},)"
      R"("rms_norm_eps":{},"rope_theta":{},"tie_word_embeddings":{}{}}})",
      shape.model_dim, shape.ffn_dim, shape.layer_count, shape.head_count, shape.kv_head_count,
      shape.head_dim, shape.vocab_size, shape.context_length, shape.norm_epsilon, shape.rope_theta,
      shape.tied_embeddings, more);
}

// The tensors of `whole` in shards, every third one in each: their files and the index, by name.
inline std::map<std::string, std::string> sharded(const SafetensorsFile& whole) {
  std::vector<SafetensorsFile> shards(3);
  std::string map;
  const auto name_of = [](size_t shard) {
    return fmt::format("model-0000{}-of-00003.safetensors", shard + 1);
  };
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    shards[i % 3].tensors.push_back(whole.tensors[i]);
    map += fmt::format(R"({}"{}":"{}")", i == 0 ? "" : ",", whole.tensors[i].name, name_of(i % 3));
  }
  std::map<std::string, std::string> files;
  for (size_t i = 0; i < shards.size(); ++i) files[name_of(i)] = shards[i].bytes();
  files["model.safetensors.index.json"] =
      fmt::format(R"({{"metadata":{{"total_size":1}},"weight_map":{{{}}}}})", map);
  return files;
}

}  // namespace thermocline::test
