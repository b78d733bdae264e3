// TraceOrigin: what a trace made from a foreign file says about the model behind it.
//
// The file itself knows layers and neurons at most, so the user says the rest, in one of three
// ways:
//   --model PATH         a checkpoint: shape, types, provenance and hash of its weights
//   --model preset:NAME  a shape, and the element type of its bundles
//   --shape KEYS         the dimensions that a replay needs; the others are not known
//   --like TRACE         the model, weights and activation rule of another trace
// Goals: nothing is made up: what nobody said is called unknown, and the header says who said what.
// Non-goals: guessing a model from its number of neurons.
// Thread-safety: plain data, pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/shape.h"

namespace thermocline {

struct OriginText {
  std::string model, shape, like, provenance;  // as given; empty: not given
};

struct TraceOrigin {
  ModelShape shape;  // layer_count and ffn_dim may be 0: as the file says
  BundleTypes types = DType::f16;
  std::string model;        // empty: nobody named one
  std::string provenance;   // of kProvenances
  std::string weight_hash;  // empty: of the file's bytes
  std::string activation_rule = "unknown";
  std::vector<float> activation_thresholds;  // empty: zeros
  std::vector<std::string> unknown;          // dimensions that are placeholders
};

// Errors{usage}: none or several of the ways, a provenance that is missing or not needed.
TraceOrigin parse_origin(const OriginText& text);

// "layers=80,ffn_dim=28672,model_dim=8192,type=q4_0,activation=relu": model_dim is required.
TraceOrigin parse_shape_keys(std::string_view text);

}  // namespace thermocline
