#include "models/predictor_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "models/gguf_file.h"
#include "models/gguf_keys.h"
#include "models/mapped_file.h"

namespace thermocline {
namespace {

std::string tensor_name(uint32_t layer, int part) {
  return fmt::format("blk.{}.{}", layer, kPredictorTensors[part]);
}

using Tensors = std::map<std::string, TensorView, std::less<>>;

const TensorView& get(const Tensors& tensors, const std::string& path, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw bad_input(path, "a tensor " + name, "no such tensor");
  return found->second;
}

void check_shape(const std::string& path, const TensorView& tensor, uint64_t rows, uint64_t cols) {
  if (tensor.rows == rows && tensor.cols == cols) return;
  throw bad_input(path, fmt::format("tensor {} of {} x {}", tensor.name, rows, cols),
                  fmt::format("{} x {}", tensor.rows, tensor.cols));
}

std::vector<PredictorLayer> layers_of(const Tensors& tensors, const std::string& path,
                                      const ModelShape& shape) {
  std::vector<PredictorLayer> layers;
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const TensorView& fc1 = get(tensors, path, tensor_name(layer, 0));
    const TensorView& fc2 = get(tensors, path, tensor_name(layer, 1));
    check_shape(path, fc1, fc1.rows, shape.model_dim);
    check_shape(path, fc2, shape.ffn_dim, fc1.rows);
    layers.push_back({fc1, fc2});
  }
  return layers;
}

// One of two words.
template <class Choice>
Choice choice_of(const GgufMetadata& metadata, const std::string& path, std::string_view key,
                 Choice first, Choice second) {
  const std::string_view text = metadata.text(key);
  if (text == name_of(first)) return first;
  if (text == name_of(second)) return second;
  throw bad_input(path, fmt::format("{} to be {} or {}", key, name_of(first), name_of(second)),
                  std::string(text));
}

PredictorFile predictor_of(const GgufFile& file, const ModelShape& shape) {
  PredictorFile predictor;
  predictor.path = file.path;
  predictor.input = choice_of(file.metadata, file.path, kGgufPredictorInputKey,
                              PredictorInput::residual, PredictorInput::normed);
  predictor.activation = choice_of(file.metadata, file.path, kGgufPredictorActivationKey,
                                   PredictorActivation::relu, PredictorActivation::identity);
  predictor.threshold = gguf_predictor_threshold(file.metadata).value_or(0.0f);
  Tensors tensors;
  for (const GgufTensor& tensor : file.tensors) {
    tensors.emplace(tensor.name, view_of(tensor, file.path));
  }
  predictor.layers = layers_of(tensors, file.path, shape);
  return predictor;
}

PredictorFile predictor_of(std::shared_ptr<const Checkpoint> checkpoint, const ModelShape& shape) {
  PredictorFile predictor;
  predictor.path = checkpoint->path();
  predictor.threshold = checkpoint->predictor_threshold().value_or(0.0f);
  Tensors tensors;
  for (const TensorView& tensor : checkpoint->tensors()) tensors.emplace(tensor.name, tensor);
  predictor.layers = layers_of(tensors, predictor.path, shape);
  predictor.owner = std::move(checkpoint);
  return predictor;
}

bool is_own_file(std::span<const std::byte> bytes, const std::string& path) {
  return has_magic(bytes, kGgufMagic) &&
         parse_gguf_file(bytes, path, kGgufMagic).metadata.has(kGgufPredictorInputKey);
}

}  // namespace

std::string_view name_of(PredictorInput input) {
  return input == PredictorInput::residual ? "residual" : "normed";
}

std::string_view name_of(PredictorActivation activation) {
  return activation == PredictorActivation::relu ? "relu" : "identity";
}

PredictorFile parse_predictor(std::span<const std::byte> bytes, const std::string& path,
                              const ModelShape& shape) {
  return predictor_of(parse_gguf_file(bytes, path, kGgufMagic), shape);
}

PredictorFile open_predictor(const std::string& path, const ModelShape& shape) {
  if (std::filesystem::is_regular_file(path)) {
    const MappedFile file = map_file(path);
    if (is_own_file(file.bytes, path)) {
      PredictorFile predictor = parse_predictor(file.bytes, path, shape);
      predictor.owner = file.owner;
      return predictor;
    }
  }
  return predictor_of(open_checkpoint(path), shape);
}

}  // namespace thermocline
