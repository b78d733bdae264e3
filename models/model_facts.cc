#include "models/model_facts.h"

#include <fmt/format.h>

#include <array>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/weights.h"

namespace thermocline {
namespace {

constexpr auto kFfnTensors = std::to_array<std::string_view>(
    {".ffn_gate.weight", ".ffn_up.weight", ".ffn_down.weight", ".ffn_down_t.weight"});

bool is_ffn(std::string_view name) {
  for (const std::string_view ending : kFfnTensors) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

void count_tensor(ModelFacts& model, const TensorFacts& tensor) {
  TypeTotal& total = model.types[tensor.type];
  ++total.tensor_count;
  total.bytes += tensor.bytes;
  model.bytes += tensor.bytes;
  if (is_ffn(tensor.name)) model.ffn_bytes += tensor.bytes;
  model.tensors.push_back(tensor);
}

// A preset's matrices are all of one type, its norm vectors f32 as everywhere.
class PresetTensors {
 public:
  PresetTensors(const ModelSpec& spec, ModelFacts& model) : spec_(spec), model_(model) {
    matrix("token_embd.weight", Matrix::token_embedding);
    for (uint32_t layer = 0; layer < spec.shape.layer_count; ++layer) {
      const std::string prefix = fmt::format("blk.{}.", layer);
      norm(prefix + "attn_norm.weight");
      matrix(prefix + "attn_q.weight", Matrix::q);
      matrix(prefix + "attn_k.weight", Matrix::k);
      matrix(prefix + "attn_v.weight", Matrix::v);
      matrix(prefix + "attn_output.weight", Matrix::o);
      norm(prefix + "ffn_norm.weight");
      matrix(prefix + "ffn_gate.weight", Matrix::gate);
      matrix(prefix + "ffn_up.weight", Matrix::up);
      matrix(prefix + "ffn_down_t.weight", Matrix::down_t);
    }
    norm("output_norm.weight");
    if (!spec.shape.tied_embeddings) matrix("output.weight", Matrix::head);
  }

 private:
  void matrix(const std::string& name, Matrix matrix) {
    const auto [rows, cols] = size_of(matrix, spec_.shape);
    add(name, spec_.dtype, rows, cols);
  }
  void norm(const std::string& name) { add(name, DType::f32, 1, spec_.shape.model_dim); }
  void add(const std::string& name, DType dtype, uint64_t rows, uint64_t cols) {
    count_tensor(model_, {name, facts(dtype).name, rows, cols, rows * bytes_of(dtype, cols)});
  }

  const ModelSpec& spec_;
  ModelFacts& model_;
};

ModelFacts facts_of_preset(const ModelSpec& spec) {
  ModelFacts model{.model = spec.text, .weights = "synthetic", .shape = spec.shape};
  PresetTensors(spec, model);
  model.bundle = spec.dtype;
  model.bundle_bytes = model.stored_bundle_bytes = bundle_bytes(spec.shape, spec.dtype);
  return model;
}

// What ranks get is the business of whoever delivers it; where it refuses, the file can still be
// looked at.
void add_delivered(const ModelSpec& spec, ModelFacts& model) {
  try {
    model.bundle = bundle_types(*open_weights(spec));
    model.bundle_bytes = bundle_bytes(model.shape, *model.bundle);
  } catch (const Error& error) {
    model.unusable = error.what();
  }
}

void add_layout(const Checkpoint& checkpoint, ModelFacts& model) {
  for (uint32_t layer = 0; layer < model.shape.layer_count; ++layer) {
    const auto find = [&](std::string_view part) {
      return checkpoint.find(fmt::format("blk.{}.{}", layer, part));
    };
    if (const TensorView* gate = find("ffn_gate.weight")) model.bundle_stride = gate->row_stride;
    if (const TensorView* down = find("ffn_down.weight")) {
      model.down_along_neurons |= facts(down->dtype).items_per_block > 1;
    }
    if (const TensorView* fc1 = find(kPredictorTensors[0])) {
      model.predictor_ranks.push_back(fc1->rows);
    }
  }
}

ModelFacts facts_of_file(const ModelSpec& spec) {
  const auto checkpoint = open_checkpoint(spec.path);
  ModelFacts model{.model = spec.text,
                   .weights = checkpoint->vocabulary_only() ? "none" : checkpoint->provenance(),
                   .shape = checkpoint->shape(),
                   .token_count = checkpoint->vocabulary().pieces.size(),
                   .vocabulary_refusal = checkpoint->vocabulary().refusal,
                   .predictor_threshold = checkpoint->predictor_threshold()};
  for (const CheckpointFile& file : checkpoint->files()) {
    model.files.push_back({file.path, file.bytes.size()});
  }
  for (const TensorView& tensor : checkpoint->tensors()) {
    count_tensor(model, {tensor.name, facts(tensor.dtype).name, tensor.rows, tensor.cols,
                         tensor.byte_count()});
  }
  if (checkpoint->vocabulary_only()) return model;
  model.stored_bundle_bytes = model.ffn_bytes / model.shape.neuron_count();
  add_layout(*checkpoint, model);
  add_delivered(spec, model);
  return model;
}

}  // namespace

ModelFacts facts_of(const ModelSpec& spec) {
  return spec.synthetic() ? facts_of_preset(spec) : facts_of_file(spec);
}

}  // namespace thermocline
