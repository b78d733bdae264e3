// Writes models as GGUF version 3: keys, vocabulary and weights.
//
// Goals: what is written reads back the same (shape, vocabulary, provenance, every element); other
//   tools open the file. Non-goals: converting checkpoints (models/convert.h), the container
//   (models/gguf_output.h).
// Thread-safety: different paths may be written at once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "models/checkpoint.h"
#include "models/gguf_output.h"
#include "models/tensor_stream.h"
#include "models/weights.h"

namespace thermocline {

enum class GgufLayout : uint8_t {
  plain,    // one tensor for each matrix
  bundles,  // gate, up and down_t of a layer as one tensor of neuron bundles (models/gguf_model.h)
};
std::string_view name_of(GgufLayout layout);
GgufLayout gguf_layout_by_name(std::string_view name);  // usage Error with the valid names

// How to write the weights of a WeightSource.
struct GgufWriteOptions {
  std::string name;         // general.name
  std::string description;  // general.description: of synthetic weights how to make them again
  const Vocabulary* vocabulary = nullptr;  // none: tokenizer.ggml.model is no_vocab
  GgufLayout layout = GgufLayout::plain;
  uint32_t thread_count = 1;
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // bytes; caller's thread
};

// Every weight in the type in which `source` delivers it, the down projection by neuron
// (ffn_down_t), norms in f32. open_weights() of the file gives the same elements, shape and
// provenance. Errors: work_failed that names the path (no space, interrupted): nothing is left
// behind.
void write_gguf(const WeightSource& source, const std::string& path,
                const GgufWriteOptions& options);

// Parts of the above, for other writers.
inline constexpr uint32_t kBundleAlignment = 4096;  // a page: what direct reads must begin on
void set_shape_keys(GgufOutput& output, const ModelShape& shape);  // scaled rope included
// Rotary divisors that differ are no key but a tensor.
bool needs_rope_tensor(const ModelShape& shape);
OutputTensor rope_tensor(const std::vector<float>& divisors);
void set_vocabulary_keys(GgufOutput& output, const Vocabulary& vocabulary);
void set_bundle_keys(GgufOutput& output, const BundleTypes& types, uint64_t stride);
// general.file_type and quantization_version of a file whose matrices are mostly of `dtype`.
void set_type_keys(GgufOutput& output, DType dtype);

}  // namespace thermocline
