// PowerInfer's GGUF (powerinfer.md section 2): another magic, ffn_down stored by neuron
// (ffn_down_t), a predictor per layer (fc1, fc2) and its threshold.
//
// Its LLaMA models compute relu(gate) * up. A GPU index has the same magic (models/gpu_index.h).
#include "models/gguf_file.h"
#include "models/gguf_model.h"
#include "models/gpu_index.h"

namespace thermocline {
namespace {

bool matches_powerinfer(std::span<const std::byte> bytes, std::string_view) {
  return has_magic(bytes, kPowerInferMagic);
}

std::unique_ptr<Checkpoint> parse_powerinfer(const CheckpointFile& file,
                                             const Neighbours& neighbours) {
  if (is_gpu_index(file.bytes, file.path)) {
    throw bad_input(file.path, "a model", "PowerInfer's GPU index (`model info` shows it)");
  }
  return parse_gguf_model(file, neighbours, {kPowerInferMagic, FfnActivation::relu});
}

}  // namespace

THERMOCLINE_CHECKPOINT_FORMAT(powerinfer, "PowerInfer's GGUF, magic PWRI, with predictors",
                              matches_powerinfer, parse_powerinfer);

}  // namespace thermocline
