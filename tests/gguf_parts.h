// Small GGUF files of the rarer kinds, made in code: split models, PowerInfer's, bundles.
//
// Thread-safety: none needed.
#pragma once

#include <string>
#include <vector>

#include "tests/file_bytes.h"

namespace thermocline::test {

// One layer, narrow: few bytes, so that a test can damage each.
inline ModelShape narrow_shape() {
  ModelShape shape = small_shape();
  shape.layer_count = 1;
  shape.model_dim = shape.ffn_dim = 32;
  shape.head_count = shape.kv_head_count = 2;
  shape.vocab_size = 2;
  return shape;
}

// The model in `count` files, as llama.cpp's gguf-split cuts it: the first has the keys.
inline std::vector<GgufFile> split_gguf(const GgufFile& whole, uint32_t count) {
  std::vector<GgufFile> parts(count);
  parts[0].pairs = whole.pairs;
  for (uint32_t i = 0; i < count; ++i) {
    parts[i].set("split.no", Bytes().put<uint32_t>(2).put<uint16_t>(i));
    parts[i].set("split.count", Bytes().put<uint32_t>(2).put<uint16_t>(count));
    const auto tensor_count = static_cast<int32_t>(whole.tensors.size());
    parts[i].set("split.tensors.count", Bytes().put<uint32_t>(5).put<int32_t>(tensor_count));
  }
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    parts[i * count / whole.tensors.size()].tensors.push_back(whole.tensors[i]);
  }
  return parts;
}

// PowerInfer's form of small_gguf: another magic, the down projection by neuron, a predictor of
// `rank` in each layer.
inline GgufFile small_powerinfer(DType dtype, const ModelShape& shape = small_shape(),
                                 uint32_t rank = 32) {
  GgufFile file = small_gguf(dtype, shape);
  file.magic = "PWRI";
  file.set_f32("powerinfer.sparse_threshold", -0.25f);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    file.remove_tensor(prefix + "ffn_down.weight");
    add_made_tensor(file, prefix + "ffn_down_t.weight", shape.ffn_dim, shape.model_dim, dtype);
    add_made_tensor(file, prefix + "fc1.weight", rank, shape.model_dim, dtype);
    add_made_tensor(file, prefix + "fc2.weight", shape.ffn_dim, rank, dtype);
  }
  return file;
}

// PowerInfer's GPU index of `layers` of 8 neurons each: those that `flags` marks.
inline GgufFile small_gpu_index(const std::vector<std::vector<int32_t>>& flags) {
  GgufFile file;
  file.magic = "PWRI";
  file.set_text("general.architecture", "generic.gpu_index");
  file.set_u32("generic.gpu_index.block_count", static_cast<uint32_t>(flags.size()));
  file.set_u64("split.vram_capacity", uint64_t{8} << 30);
  for (size_t layer = 0; layer < flags.size(); ++layer) {
    Bytes all, bucket;
    uint64_t hot_count = 0;
    for (size_t i = 0; i < flags[layer].size(); ++i) {
      all.put(flags[layer][i]);
      if (flags[layer][i] != 1) continue;
      bucket.put(static_cast<int32_t>(i));
      ++hot_count;
    }
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    file.tensors.push_back({prefix + "gpu_idx", {flags[layer].size()}, 26, all.str()});
    file.tensors.push_back({prefix + "gpu_bucket", {hot_count}, 26, bucket.str()});
  }
  return file;
}

// small_gguf with the neurons' rows in bundles of `stride` bytes.
inline GgufFile small_bundles(DType dtype, uint64_t stride,
                              const ModelShape& shape = small_shape()) {
  GgufFile file = small_gguf(dtype, shape);
  const std::string type(facts(dtype).name);
  file.set_u32("thermocline.bundle.version", 1);
  file.set_text("thermocline.bundle.gate_type", type);
  file.set_text("thermocline.bundle.up_type", type);
  file.set_text("thermocline.bundle.down_type", type);
  file.set_u32("thermocline.bundle.stride", static_cast<uint32_t>(stride));
  const uint64_t row_bytes = bytes_of(dtype, shape.model_dim);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    std::string bundles(stride * shape.ffn_dim, '\0');
    uint64_t at = 0;
    for (const char* name : {"ffn_gate.weight", "ffn_up.weight", "ffn_down_t.weight"}) {
      const std::string rows =
          encoded(dtype, made_values(prefix + name, shape.ffn_dim, shape.model_dim));
      for (uint32_t i = 0; i < shape.ffn_dim; ++i) {
        bundles.replace(i * stride + at, row_bytes, rows, i * row_bytes, row_bytes);
      }
      at += row_bytes;
    }
    for (const char* name : {"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"}) {
      file.remove_tensor(prefix + name);
    }
    file.tensors.push_back({prefix + "ffn_bundle.weight", {stride, shape.ffn_dim}, 24, bundles});
  }
  return file;
}

}  // namespace thermocline::test
