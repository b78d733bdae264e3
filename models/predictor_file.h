// The weights of low-rank activation predictors: from a model's own file, or from one of their own.
//
// A predictor scores the neurons of its layer: fc2 act(fc1 x), fc1 (rank, model_dim), fc2 (ffn_dim,
//   rank). PowerInfer's (Song et al. 2023) lie beside a model's weights as blk.N.fc1.weight and
//   blk.N.fc2.weight; act is relu, and x the residual stream behind attention, not normalised.
// A file of their own is GGUF with the same names and two keys that say what act and x are.
// Goals: shapes are checked against the model's; what is malformed is an input Error that names the
//   file. Non-goals: computing scores (runtime/predictors/lowrank.cc), making them
//   (models/low_rank.h).
// Thread-safety: const after opening.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"

namespace thermocline {

// Keys of a file of its own: "residual" or "normed", "relu" or "identity".
inline constexpr std::string_view kGgufPredictorInputKey = "thermocline.predictor.input";
inline constexpr std::string_view kGgufPredictorActivationKey = "thermocline.predictor.activation";
inline constexpr std::string_view kPredictorArchitecture = "thermocline.predictor";

enum class PredictorInput : uint8_t { residual, normed };
enum class PredictorActivation : uint8_t { relu, identity };
std::string_view name_of(PredictorInput input);
std::string_view name_of(PredictorActivation activation);

struct PredictorLayer {
  TensorView fc1, fc2;  // (rank, model_dim), (ffn_dim, rank)
};

struct PredictorFile {
  std::shared_ptr<const void> owner;  // of the bytes that the tensors lie in
  std::string path;
  PredictorInput input = PredictorInput::residual;
  PredictorActivation activation = PredictorActivation::relu;
  float threshold = 0.0f;              // PowerInfer's key, or its default
  std::vector<PredictorLayer> layers;  // one for each of the model
};

// `path`: a file of its own, or a checkpoint that has predictors. Errors: no such file, a layer
// without a predictor, a shape that is not the model's.
PredictorFile open_predictor(const std::string& path, const ModelShape& shape);
// The same, of bytes: a file of its own.
PredictorFile parse_predictor(std::span<const std::byte> bytes, const std::string& path,
                              const ModelShape& shape);

}  // namespace thermocline
