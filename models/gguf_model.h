// A LLaMA model in GGUF files: what their keys and tensors mean.
//
// Names: ggml docs/gguf.md, llama.cpp; activations.md sections 1-2. ggml counts dimensions from the
//   fastest, so a matrix (rows = out, cols = in) is stored as dimensions [cols, rows].
// Neuron bundles, our own layout: blk.N.ffn_bundle.weight, I8, dimensions [stride, ffn_dim]; row i
//   is gate row i | up row i | down column i | padding, each in the element type that the keys
//   thermocline.bundle.{gate,up,down}_type name. Other tools see bytes; readers here see matrices.
// Goals: one meaning for every file with this container. Non-goals: the container
//   (models/gguf_file.h). Thread-safety: pure functions.
#pragma once

#include <memory>
#include <string_view>

#include "models/checkpoint.h"

namespace thermocline {

inline constexpr std::string_view kBundleTensor = "ffn_bundle.weight";
inline constexpr uint32_t kBundleVersion = 1;

// What a file of some magic means where it does not say so itself.
struct GgufDialect {
  std::string_view magic;
  FfnActivation activation;
};

// Errors: anything malformed, another architecture, what would change results and is not computed.
std::unique_ptr<Checkpoint> parse_gguf_model(const CheckpointFile& file,
                                             const Neighbours& neighbours,
                                             const GgufDialect& dialect);

}  // namespace thermocline
