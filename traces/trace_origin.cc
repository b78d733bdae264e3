#include "traces/trace_origin.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "models/checkpoint.h"
#include "models/model_spec.h"
#include "models/registry.h"
#include "models/text.h"
#include "models/units.h"
#include "models/weights.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

std::vector<std::string> provenances() {
  return {std::begin(kProvenances), std::end(kProvenances)};
}

// Valid for models/shape.h, and so small that no cost is taken from them.
ModelShape placeholder_shape() {
  ModelShape shape;
  shape.head_count = shape.kv_head_count = 1;
  shape.head_dim = 2;
  shape.vocab_size = 1;
  shape.context_length = 1u << 24;
  shape.activation = FfnActivation::relu;
  return shape;
}

uint32_t dimension(std::string_view value) {
  const uint64_t number = parse_count(value);
  if (number == 0 || number > 1u << 20) {
    throw bad_usage(fmt::format("--shape: expected a dimension from 1 to 2^20, found {}", number));
  }
  return static_cast<uint32_t>(number);
}

using SetKey = void (*)(TraceOrigin& origin, std::string_view value);

const std::map<std::string, SetKey, std::less<>>& shape_keys() {
  static const std::map<std::string, SetKey, std::less<>> keys = {
      {"layers", [](TraceOrigin& o, std::string_view v) { o.shape.layer_count = dimension(v); }},
      {"ffn_dim", [](TraceOrigin& o, std::string_view v) { o.shape.ffn_dim = dimension(v); }},
      {"model_dim", [](TraceOrigin& o, std::string_view v) { o.shape.model_dim = dimension(v); }},
      {"type", [](TraceOrigin& o, std::string_view v) { o.types = bundle_types_by_name(v); }},
      {"activation",
       [](TraceOrigin& o, std::string_view v) { o.shape.activation = ffn_activation_by_name(v); }}};
  return keys;
}

void set_key(TraceOrigin& origin, std::string_view part) {
  const size_t equals = part.find('=');
  const auto found = shape_keys().find(part.substr(0, equals));
  if (found == shape_keys().end() || equals == std::string_view::npos) {
    std::vector<std::string> valid;
    for (const auto& key : shape_keys()) valid.push_back(key.first);
    throw unknown_name("key of --shape", part.substr(0, equals), valid);
  }
  found->second(origin, part.substr(equals + 1));
}

TraceOrigin origin_of_model(const std::string& text) {
  const ModelSpec spec = parse_model_spec(text);
  TraceOrigin origin;
  origin.model = text;
  if (spec.synthetic()) {  // a shape: its synthetic weights have nothing to do with the file
    origin.shape = spec.shape;
    origin.types = spec.dtype;
    return origin;
  }
  const auto weights = open_weights(spec);
  origin.shape = weights->shape();
  origin.types = bundle_types(*weights);
  origin.provenance = weights->provenance();
  origin.weight_hash = weights->hash();
  return origin;
}

TraceOrigin origin_of_trace(const std::string& path) {
  const TraceHeader header = open_trace(path)->header();
  TraceOrigin origin;
  origin.shape = header.shape;
  origin.types = header.ffn_types;
  origin.model = header.model;
  origin.provenance = header.weight_provenance;
  origin.weight_hash = header.weight_hash;
  origin.activation_rule = header.activation_rule;
  origin.activation_thresholds = header.activation_thresholds;
  return origin;
}

void set_provenance(TraceOrigin& origin, const std::string& given) {
  if (!origin.provenance.empty() && !given.empty()) {
    throw bad_usage("--provenance: what --like or a checkpoint names says it already (" +
                    origin.provenance + ")");
  }
  if (!origin.provenance.empty()) return;
  if (given.empty()) {
    throw bad_usage(
        "a trace says what weights it is of, and the file does not: give --provenance "
        "real, trained-demo or synthetic");
  }
  const std::vector<std::string> valid = provenances();
  if (std::find(valid.begin(), valid.end(), given) == valid.end()) {
    throw unknown_name("provenance", given, valid);
  }
  origin.provenance = given;
}

}  // namespace

TraceOrigin parse_shape_keys(std::string_view text) {
  TraceOrigin origin;
  origin.shape = placeholder_shape();
  origin.unknown = {"head_count", "kv_head_count", "head_dim", "vocab_size", "context_length"};
  for (const std::string_view part : split(text, ',')) set_key(origin, part);
  if (origin.shape.model_dim == 0) {
    throw bad_usage("--shape: expected model_dim=N, which says how large a neuron is");
  }
  return origin;
}

TraceOrigin parse_origin(const OriginText& text) {
  const int given = !text.model.empty() + !text.shape.empty() + !text.like.empty();
  if (given != 1) {
    throw bad_usage(
        fmt::format("into a trace: expected one of --model, --shape and --like, which "
                    "say how large a neuron is, found {}",
                    given));
  }
  TraceOrigin origin = !text.model.empty()   ? origin_of_model(text.model)
                       : !text.shape.empty() ? parse_shape_keys(text.shape)
                                             : origin_of_trace(text.like);
  set_provenance(origin, text.provenance);
  return origin;
}

}  // namespace thermocline
