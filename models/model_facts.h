// What a model is made of, counted: tensors, bytes, neurons, bundles; for `model info`.
//
// Goals: a file and a preset give the same facts. Non-goals: printing.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/model_spec.h"
#include "models/shape.h"

namespace thermocline {

struct TypeTotal {
  uint64_t tensor_count = 0;
  uint64_t bytes = 0;
};

struct TensorFacts {
  std::string name;
  std::string_view type;
  uint64_t rows, cols, bytes;
};

struct FileFacts {
  std::string path;
  uint64_t bytes;
};

struct ModelFacts {
  std::string model;
  std::string weights;  // "real" | "trained-demo" | "synthetic" | "none" (a vocabulary alone)
  ModelShape shape;
  uint64_t token_count = 0;                          // of the file's own vocabulary
  std::string vocabulary_refusal = {};               // why it cannot be used, or empty
  std::map<std::string_view, TypeTotal> types = {};  // by name
  std::vector<TensorFacts> tensors = {};
  std::vector<FileFacts> files = {};
  uint64_t bytes = 0;                      // of all tensors
  uint64_t ffn_bytes = 0;                  // of gate, up and down
  std::optional<BundleTypes> bundle = {};  // of the neurons as a rank gets them; none: it cannot
  std::string unusable = {};               // why it cannot
  uint64_t bundle_bytes = 0;               // of one such neuron
  uint64_t stored_bundle_bytes = 0;        // as the file has it, on the average of the layers
  uint64_t bundle_stride = 0;              // of a file of bundles: bytes from one to the next
  bool down_along_neurons = false;         // ffn_down is stored in blocks of neurons
  std::vector<uint64_t> predictor_ranks = {};  // by layer; empty where there is no predictor
  std::optional<float> predictor_threshold = {};
};

ModelFacts facts_of(const ModelSpec& spec);

}  // namespace thermocline
