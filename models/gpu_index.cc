#include "models/gpu_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "models/gguf_file.h"

namespace thermocline {
namespace {

constexpr std::string_view kArchitecture = "generic.gpu_index";
constexpr uint32_t kLayersMax = 1024;
constexpr uint32_t kNeuronsMax = 1u << 20;

const GgufTensor& tensor_of(const GgufFile& file, const std::string& name) {
  const auto found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                  [&](const GgufTensor& tensor) { return tensor.name == name; });
  if (found == file.tensors.end()) throw bad_input(file.path, "tensor " + name, "no such tensor");
  if (found->ggml_type == kGgmlI32 && found->dimensions.size() == 1 &&
      found->dimensions[0] <= kNeuronsMax) {
    return *found;
  }
  throw bad_input(fmt::format("{}: tensor {}", file.path, name),
                  fmt::format("I32 of [at most {}]", kNeuronsMax),
                  fmt::format("{} of [{}]", ggml_type_name(found->ggml_type),
                              fmt::join(found->dimensions, ", ")));
}

std::vector<int32_t> integers_of(const GgufTensor& tensor) {
  std::vector<int32_t> integers(tensor.bytes.size() / sizeof(int32_t));
  if (!integers.empty()) {
    std::memcpy(integers.data(), tensor.bytes.data(), integers.size() * sizeof(int32_t));
  }
  return integers;
}

std::vector<uint32_t> flagged(const GgufTensor& tensor, const std::string& path) {
  std::vector<uint32_t> neurons;
  const std::vector<int32_t> flags = integers_of(tensor);
  for (uint32_t i = 0; i < flags.size(); ++i) {
    if (flags[i] == 1) neurons.push_back(i);
    if (flags[i] == 0 || flags[i] == 1) continue;
    throw bad_input(fmt::format("{}: tensor {}", path, tensor.name), "0 or 1 for each neuron",
                    fmt::format("{} for neuron {}", flags[i], i));
  }
  return neurons;
}

// The list must name the flagged neurons, in ascending order and each once.
void check_bucket(const GgufTensor& bucket, const std::vector<uint32_t>& neurons,
                  const std::string& path) {
  const std::string place = fmt::format("{}: tensor {}", path, bucket.name);
  const std::vector<int32_t> listed = integers_of(bucket);
  if (listed.size() != neurons.size()) {
    throw bad_input(place, fmt::format("{} neurons, as gpu_idx flags", neurons.size()),
                    fmt::format("{}", listed.size()));
  }
  for (size_t i = 0; i < listed.size(); ++i) {
    if (listed[i] == static_cast<int64_t>(neurons[i])) continue;
    throw bad_input(place,
                    fmt::format("neuron {} at {}: those that gpu_idx flags, ascending, each once",
                                neurons[i], i),
                    fmt::format("{}", listed[i]));
  }
}

void read_layer(const GgufFile& file, uint32_t layer, GpuIndex& index) {
  const GgufTensor& flags = tensor_of(file, fmt::format("blk.{}.gpu_idx", layer));
  const GgufTensor& bucket = tensor_of(file, fmt::format("blk.{}.gpu_bucket", layer));
  if (layer == 0) index.ffn_dim = static_cast<uint32_t>(flags.dimensions[0]);
  if (flags.dimensions[0] != index.ffn_dim || index.ffn_dim == 0) {
    throw bad_input(fmt::format("{}: tensor {}", file.path, flags.name),
                    layer == 0 ? "at least one neuron" : fmt::format("{} neurons", index.ffn_dim),
                    fmt::format("{}", flags.dimensions[0]));
  }
  index.hot_neurons.push_back(flagged(flags, file.path));
  check_bucket(bucket, index.hot_neurons.back(), file.path);
}

void check_names(const GgufFile& file) {
  std::vector<std::string_view> names;
  for (const GgufTensor& tensor : file.tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return;
  throw bad_input(file.path, "tensors of different names", fmt::format("two named {}", *twice));
}

}  // namespace

uint64_t GpuIndex::hot_count() const {
  uint64_t count = 0;
  for (const auto& neurons : hot_neurons) count += neurons.size();
  return count;
}

bool is_gpu_index(std::span<const std::byte> bytes, const std::string& path) {
  if (!has_magic(bytes, kPowerInferMagic)) return false;
  const GgufFile file = parse_gguf_file(bytes, path, kPowerInferMagic);
  return file.metadata.text_or("general.architecture", "") == kArchitecture;
}

GpuIndex parse_gpu_index(std::span<const std::byte> bytes, const std::string& path) {
  const GgufFile file = parse_gguf_file(bytes, path, kPowerInferMagic);
  const std::string_view architecture = file.metadata.text("general.architecture");
  if (architecture != kArchitecture) {
    throw bad_input(path, fmt::format("general.architecture {}", kArchitecture),
                    std::string(architecture));
  }
  check_names(file);
  // gguf-py prefixes the key with the architecture, which some writers of such files leave out.
  const std::string prefixed = fmt::format("{}.block_count", kArchitecture);
  const uint32_t fallback = static_cast<uint32_t>(file.tensors.size() / 2);
  const uint32_t layer_count =
      file.metadata.count_or(prefixed, file.metadata.count_or("block_count", fallback));
  if (layer_count == 0 || layer_count > kLayersMax || file.tensors.size() != 2 * layer_count) {
    throw bad_input(path, fmt::format("gpu_idx and gpu_bucket of 1 to {} layers", kLayersMax),
                    fmt::format("{} tensors for {} layers", file.tensors.size(), layer_count));
  }
  GpuIndex index;
  for (uint32_t layer = 0; layer < layer_count; ++layer) read_layer(file, layer, index);
  const char* capacity = "split.vram_capacity";
  if (file.metadata.has(capacity)) index.vram_capacity = file.metadata.large_count(capacity);
  return index;
}

}  // namespace thermocline
