#include "models/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/gguf_keys.h"
#include "models/gguf_model.h"
#include "models/mapped_file.h"
#include "models/quantize.h"
#include "models/transpose.h"

namespace thermocline {
namespace {

// Keys of a source that are about its own layout.
constexpr std::string_view kDroppedKeys[] = {"split.",
                                             "general.alignment",
                                             "general.file_type",
                                             "general.quantization_version",
                                             "thermocline.bundle.",
                                             "llama.rope.scale_linear"};

struct Fallback {
  DType from, to;
};

// llama.cpp's, for rows that are no multiple of 256.
constexpr Fallback kFallbacks[] = {
    {DType::q4_k, DType::q5_0}, {DType::q5_k, DType::q5_1}, {DType::q6_k, DType::q8_0}};

// Rows of the tensor in another type, or as they are. Quantised types have no code for NaN and
// infinity, and a model with one computes nothing.
RowSource converted(const TensorView& tensor, DType dtype, const std::string& path) {
  const auto fill = [&tensor, dtype, path](uint64_t begin, uint64_t end, std::byte* out,
                                           uint64_t stride) {
    std::vector<float> values(tensor.cols);
    for (uint64_t row = begin; row < end; ++row, out += stride) {
      dequantize(tensor.dtype, tensor.row(row), tensor.cols, values.data());
      const uint64_t bad = first_non_finite(values.data(), tensor.cols);
      if (bad < tensor.cols) throw not_finite(path, tensor, row, values[bad]);
      if (dtype == tensor.dtype) {
        std::memcpy(out, tensor.row(row), tensor.row_bytes());
      } else {
        quantize(dtype, values.data(), tensor.cols, out);
      }
    }
  };
  return {dtype, tensor.rows, tensor.cols, fill};
}

// Columns of the tensor as rows: the down projection by neuron.
RowSource transposed(const TensorView& down, DType dtype, const std::string& path) {
  const auto fill = [&down, dtype, path](uint64_t begin, uint64_t end, std::byte* out,
                                         uint64_t stride) {
    const auto check = [&](uint64_t, std::span<const float> values) {
      const uint64_t bad = first_non_finite(values.data(), values.size());
      if (bad < values.size()) throw not_finite(path, down, bad, values[bad]);
    };
    transpose(down, {begin, end, 0, down.rows}, dtype, out, stride, check);
  };
  return {dtype, down.cols, down.rows, fill};
}

// What of the source becomes what of the output.
class Plan {
 public:
  Plan(const Checkpoint& source, const ConvertOptions& options)
      : source_(source), options_(options) {
    for (const TensorView& tensor : source.tensors()) {
      result_.bytes_in += tensor.byte_count();
      result_.element_count += tensor.rows * tensor.cols;
      if (options.layout == GgufLayout::plain || !add_bundles(tensor)) add_plain(tensor);
    }
    check_bundles();
    if (needs_rope_tensor(source.shape())) {
      tensors_.push_back(rope_tensor(source.shape().rope_divisors));
    }
    result_.tensor_count = tensors_.size();
    for (const OutputTensor& tensor : tensors_) data_bytes_ += tensor.byte_count();
    add_notes();
  }

  const std::vector<OutputTensor>& tensors() const { return tensors_; }
  uint64_t data_bytes() const { return data_bytes_; }
  const BundleTypes& bundle_types() const { return types_; }
  const Conversion& result() const { return result_; }

 private:
  DType type_for(const std::string& name, uint64_t cols) {
    const DType type = fitting_type(options_.dtype, cols);
    if (type != options_.dtype) fallen_back_[{type, cols}].push_back(name);
    return type;
  }

  void add(OutputTensor tensor, std::vector<const TensorView*> sources) {
    tensor.done = [sources = std::move(sources)] {
      for (const TensorView* source : sources) release_pages(source->bytes);
    };
    tensors_.push_back(std::move(tensor));
  }

  void add_plain(const TensorView& tensor) {
    const DType type = tensor.rows == 1 ? DType::f32 : type_for(tensor.name, tensor.cols);
    add(plain_tensor(tensor.name, converted(tensor, type, source_.path())), {&tensor});
  }

  // True where the tensor is a part of its layer's bundles, which come where the gate is.
  bool add_bundles(const TensorView& tensor) {
    for (const std::string_view part : {"ffn_up.weight", "ffn_down.weight", "ffn_down_t.weight"}) {
      if (tensor.name.ends_with(part)) return true;
    }
    constexpr std::string_view kGate = "ffn_gate.weight";
    if (!tensor.name.ends_with(kGate)) return false;
    const ModelShape& shape = source_.shape();
    const std::string layer = tensor.name.substr(0, tensor.name.size() - kGate.size());
    const auto get = [&](const char* part) -> const TensorView& {
      return source_.get(layer + part, shape.ffn_dim, shape.model_dim);
    };
    const TensorView &gate = get("ffn_gate.weight"), &up = get("ffn_up.weight");
    const bool by_neuron = source_.find(layer + "ffn_down_t.weight") != nullptr;
    const TensorView& down =
        by_neuron ? get("ffn_down_t.weight")
                  : source_.get(layer + "ffn_down.weight", shape.model_dim, shape.ffn_dim);
    const DType type = type_for(layer + std::string(kBundleTensor), shape.model_dim);
    types_ = type;
    result_.bundle_bytes = bundle_bytes(shape, types_);
    result_.bundle_stride = bundle_stride(result_.bundle_bytes);
    const std::string& path = source_.path();
    add(bundle_tensor(layer + std::string(kBundleTensor), converted(gate, type, path),
                      converted(up, type, path),
                      by_neuron ? converted(down, type, path) : transposed(down, type, path),
                      result_.bundle_stride),
        {&gate, &up, &down});
    return true;
  }

  void check_bundles() const {
    if (options_.layout == GgufLayout::plain) return;
    for (uint32_t layer = 0; layer < source_.shape().layer_count; ++layer) {
      source_.get(fmt::format("blk.{}.ffn_gate.weight", layer), source_.shape().ffn_dim,
                  source_.shape().model_dim);
    }
  }

  void add_notes() {
    const std::string& refusal = source_.vocabulary().refusal;
    if (!refusal.empty()) result_.notes.push_back("no vocabulary: " + refusal);
    for (const auto& [what, names] : fallen_back_) {
      const auto& [type, cols] = what;
      result_.notes.push_back(
          fmt::format("{} {} in {}, since rows of {} are no whole blocks of {}: {}{}", names.size(),
                      names.size() == 1 ? "tensor" : "tensors", facts(type).name, cols,
                      facts(options_.dtype).name, names[0], names.size() == 1 ? "" : ", ..."));
    }
  }

  const Checkpoint& source_;
  const ConvertOptions& options_;
  std::vector<OutputTensor> tensors_;
  uint64_t data_bytes_ = 0;
  BundleTypes types_ = DType::f32;
  Conversion result_;
  std::map<std::pair<DType, uint64_t>, std::vector<std::string>> fallen_back_;  // names
};

bool dropped(std::string_view key) {
  return std::any_of(std::begin(kDroppedKeys), std::end(kDroppedKeys),
                     [key](std::string_view start) { return key.starts_with(start); });
}

// Ours first, since the first value of a key stays.
void set_keys(GgufOutput& output, const Checkpoint& source, const ConvertOptions& options) {
  output.set_text("general.architecture", "llama");
  set_type_keys(output, options.dtype);
  output.set_text(kGgufProvenanceKey, source.provenance());
  set_shape_keys(output, source.shape());
  if (!options.name.empty()) output.set_text("general.name", options.name);
  for (const KeptPair& pair : source.gguf_pairs()) {
    if (!dropped(pair.key)) output.set_raw(pair.key, pair.typed_value);
  }
  if (!source.gguf_pairs().empty()) return;
  output.set_text("general.name", std::filesystem::path(source.path()).stem().string());
  if (const auto threshold = source.predictor_threshold()) {
    output.set_number(kGgufPredictorThresholdKey, *threshold);
  }
  set_vocabulary_keys(output, source.vocabulary());
}

void check_paths(const Checkpoint& source, const std::string& out) {
  if (source.vocabulary_only()) {
    throw bad_input(source.path(), "a checkpoint with tensors", "a vocabulary alone");
  }
  for (const CheckpointFile& file : source.files()) {
    std::error_code missing;
    if (!std::filesystem::equivalent(file.path, out, missing)) continue;
    throw bad_usage(fmt::format("{}: expected an output that is not the input", out));
  }
}

}  // namespace

DType fitting_type(DType dtype, uint64_t cols) {
  const auto fits = [cols](DType type) { return cols % facts(type).items_per_block == 0; };
  if (fits(dtype)) return dtype;
  for (const Fallback& fallback : kFallbacks) {
    if (fallback.from == dtype && fits(fallback.to)) return fallback.to;
  }
  return DType::f16;
}

Conversion convert_checkpoint(const std::string& in, const std::string& out,
                              const ConvertOptions& options) {
  const auto source = open_checkpoint(in);
  check_paths(*source, out);
  const Plan plan(*source, options);
  Conversion result = plan.result();
  const bool bundles = options.layout == GgufLayout::bundles;
  GgufOutput output(out, bundles ? kBundleAlignment : kGgufAlignmentDefault);
  set_keys(output, *source, options);
  if (bundles) set_bundle_keys(output, plan.bundle_types(), result.bundle_stride);
  std::function<void(uint64_t)> progress;
  if (options.progress) {
    progress = [&](uint64_t done) { options.progress(done, plan.data_bytes()); };
  }
  stream_tensors(output, plan.tensors(), options.thread_count, progress);
  output.finish();
  result.bytes_out = output.byte_count();
  return result;
}

}  // namespace thermocline
