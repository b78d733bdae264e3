#include "models/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/quantize.h"
#include "models/synthetic.h"
#include "models/transpose.h"

namespace thermocline {
namespace {

struct MatrixFacts {
  const char* name;  // GGUF's; of one layer where `per_layer`
  bool per_layer;
};

// By Matrix. A file has the down projection as (model_dim, ffn_dim), or else as kDownRows.
constexpr MatrixFacts kMatrices[] = {
    {"token_embd.weight", false}, {"output.weight", false}, {"attn_q.weight", true},
    {"attn_k.weight", true},      {"attn_v.weight", true},  {"attn_output.weight", true},
    {"ffn_gate.weight", true},    {"ffn_up.weight", true},  {"ffn_down.weight", true},
};
constexpr int kMatrixCount = sizeof(kMatrices) / sizeof(kMatrices[0]);
constexpr MatrixFacts kDownRows = {"ffn_down_t.weight", true};  // (ffn_dim, model_dim)

// By NormVector.
constexpr MatrixFacts kNorms[] = {
    {"attn_norm.weight", true}, {"ffn_norm.weight", true}, {"output_norm.weight", false}};
constexpr int kNormCount = sizeof(kNorms) / sizeof(kNorms[0]);

std::string tensor_name(const MatrixFacts& facts, uint32_t layer) {
  return facts.per_layer ? fmt::format("blk.{}.{}", layer, facts.name) : facts.name;
}

// Columns [begin, end) of rows [begin, end) of `tensor`, row by row.
void copy_rectangle(const TensorView& tensor, const MatrixSlice& slice, std::byte* out) {
  const uint64_t begin = bytes_of(tensor.dtype, slice.col_begin);
  const uint64_t width = bytes_of(tensor.dtype, slice.col_end) - begin;
  if (width == tensor.row_bytes() && tensor.contiguous()) {
    std::memcpy(out, tensor.row(slice.row_begin), (slice.row_end - slice.row_begin) * width);
    return;
  }
  for (uint64_t row = slice.row_begin; row < slice.row_end; ++row) {
    std::memcpy(out, tensor.row(row) + begin, width);
    out += width;
  }
}

// The type in which a stored ffn_down is delivered. An element of a block of fewer bits than q8_0's
// is at least twice as coarse as q8_0 makes it; q8_0's own blocks need the 11 bits of f16.
DType delivered_type(DType stored) {
  const DTypeFacts& type = facts(stored);
  if (type.items_per_block == 1) return stored;
  return stored == DType::q8_0 ? DType::f16 : DType::q8_0;
}

// One for all layers: where they differ, one that holds them all.
DType delivered_type(const std::vector<const TensorView*>& layers) {
  const DType first = delivered_type(layers[0]->dtype);
  bool same = true, wide = false;
  for (const TensorView* tensor : layers) {
    const DType type = delivered_type(tensor->dtype);
    same = same && type == first;
    wide = wide || type == DType::f32 || type == DType::bf16;  // more range than f16 has
  }
  return same ? first : wide ? DType::f32 : DType::f16;
}

struct NonFinite {
  uint64_t row, col;  // col: counted from the slice's first
  float value;
};

// The first NaN or infinity in the bytes of a slice, its rows end to end.
std::optional<NonFinite> non_finite_in(DType dtype, const MatrixSlice& slice,
                                       const std::byte* bytes) {
  const uint64_t width = slice.col_end - slice.col_begin;
  const uint64_t count = (slice.row_end - slice.row_begin) * width;
  const uint64_t at = first_non_finite(dtype, bytes, count);
  if (at == count) return {};
  std::vector<float> block(facts(dtype).items_per_block);
  dequantize(dtype, bytes + bytes_of(dtype, at), block.size(), block.data());
  const uint64_t within =
      std::min<uint64_t>(first_non_finite(block.data(), block.size()), block.size() - 1);
  return NonFinite{slice.row_begin + at / width, at % width + within, block[within]};
}

bool is_predictor(std::string_view name) {
  return std::any_of(std::begin(kPredictorTensors), std::end(kPredictorTensors),
                     [name](std::string_view part) {
                       return name.starts_with("blk.") && name.ends_with(fmt::format(".{}", part));
                     });
}

class CheckpointWeights final : public WeightSource {
 public:
  explicit CheckpointWeights(std::unique_ptr<Checkpoint> checkpoint)
      : checkpoint_(std::move(checkpoint)), hash_(checkpoint_hash(checkpoint_->files())) {
    down_rows_ = checkpoint_->find(tensor_name(kDownRows, 0)) != nullptr;
    for (int i = 0; i < kMatrixCount; ++i) find_matrix(static_cast<Matrix>(i));
    for (int i = 0; i < kNormCount; ++i) find_norm(i);
    check_all_used();
    const auto& down = layers_of(Matrix::down_t);
    down_type_ = down_rows_ ? down[0]->dtype : delivered_type(down);
    check_down_blocks();
  }

  const ModelShape& shape() const override { return checkpoint_->shape(); }
  DType dtype(Matrix matrix, uint32_t layer) const override {
    return matrix == Matrix::down_t ? down_type_ : tensor(matrix, layer).dtype;
  }

  void read(Matrix matrix, uint32_t layer, const MatrixSlice& slice,
            std::byte* out) const override {
    const TensorView& from = tensor(matrix, layer);
    check_slice(matrix, dtype(matrix, layer), slice);
    const bool empty = slice.row_begin == slice.row_end || slice.col_begin == slice.col_end;
    if (empty) return;  // `out` may be null
    const bool transposed = matrix == Matrix::down_t && !down_rows_;
    if (transposed) return read_transposed(from, slice, out);
    copy_rectangle(from, slice, out);
    const auto bad = non_finite_in(from.dtype, slice, out);
    if (bad) throw not_finite(path(), from, bad->row, bad->value);
  }

  void read(NormVector vector, uint32_t layer, float* out) const override {
    const auto& layers = norms_[static_cast<int>(vector)];
    const TensorView& from = *layers.at(layers.size() == 1 ? 0 : layer);
    dequantize(from.dtype, from.row(0), from.cols, out);
    const uint64_t bad = first_non_finite(out, from.cols);
    if (bad < from.cols) throw not_finite(path(), from, 0, out[bad]);
  }

  std::string provenance() const override { return checkpoint_->provenance(); }
  std::string hash() const override { return hash_; }

 private:
  const std::string& path() const { return checkpoint_->path(); }

  // Blocks are looked at as values, since those of another type could not say what was wrong.
  void read_transposed(const TensorView& from, const MatrixSlice& slice, std::byte* out) const {
    const auto check = [&](uint64_t, std::span<const float> values) {
      const uint64_t bad = first_non_finite(values.data(), values.size());
      if (bad < values.size()) {
        throw not_finite(path(), from, slice.col_begin + bad, values[bad]);
      }
    };
    const bool blocks = facts(from.dtype).items_per_block > 1;
    transpose(from, slice, down_type_, out, 0, blocks ? CheckNeuron(check) : CheckNeuron());
    const auto bad = blocks ? std::nullopt : non_finite_in(down_type_, slice, out);
    if (bad) throw not_finite(path(), from, slice.col_begin + bad->col, bad->value);
  }

  void find_matrix(Matrix matrix) {
    const bool tied_head = matrix == Matrix::head && shape().tied_embeddings;
    const auto index = static_cast<int>(tied_head ? Matrix::token_embedding : matrix);
    const bool down = matrix == Matrix::down_t;
    const MatrixFacts& facts = down && down_rows_ ? kDownRows : kMatrices[index];
    auto [rows, cols] = size_of(matrix, shape());
    if (down && !down_rows_) std::swap(rows, cols);
    auto& layers = matrices_[static_cast<int>(matrix)];
    for (uint32_t layer = 0; layer < (facts.per_layer ? shape().layer_count : 1); ++layer) {
      layers.push_back(&checkpoint_->get(tensor_name(facts, layer), rows, cols));
      const bool row_of_bundle = matrix >= Matrix::gate && (!down || down_rows_);
      if (row_of_bundle) check_type(*layers.back(), *layers[0]);
    }
  }

  void find_norm(int index) {
    const MatrixFacts& facts = kNorms[index];
    for (uint32_t layer = 0; layer < (facts.per_layer ? shape().layer_count : 1); ++layer) {
      norms_[index].push_back(&checkpoint_->get(tensor_name(facts, layer), 1, shape().model_dim));
    }
  }

  // Bundles have one size, which budgets and policies count in.
  void check_type(const TensorView& found, const TensorView& first) const {
    if (found.dtype == first.dtype) return;
    throw bad_input(checkpoint_->path(),
                    fmt::format("{} in {}, the type of {} (`model convert --type` makes them one)",
                                found.name, facts(first.dtype).name, first.name),
                    std::string(facts(found.dtype).name));
  }

  void check_down_blocks() const {
    const DTypeFacts& type = facts(down_type_);
    if (shape().model_dim % type.items_per_block == 0) return;
    throw bad_input(checkpoint_->path(),
                    fmt::format("a model_dim that is a multiple of {}, as ffn_down in {} needs",
                                type.items_per_block, type.name),
                    fmt::format("{}", shape().model_dim));
  }

  // A bias or an adapter that nobody multiplies by would be a silent wrong answer.
  void check_all_used() const {
    std::vector<const TensorView*> used;
    for (const auto& layers : matrices_) used.insert(used.end(), layers.begin(), layers.end());
    for (const auto& layers : norms_) used.insert(used.end(), layers.begin(), layers.end());
    std::sort(used.begin(), used.end());
    for (const TensorView& tensor : checkpoint_->tensors()) {
      if (std::binary_search(used.begin(), used.end(), &tensor)) continue;
      if (is_predictor(tensor.name)) continue;  // guesses, and changes no result
      throw bad_input(checkpoint_->path(), "only tensors that a LLaMA decoder uses", tensor.name);
    }
  }

  const std::vector<const TensorView*>& layers_of(Matrix matrix) const {
    return matrices_[static_cast<int>(matrix)];
  }

  const TensorView& tensor(Matrix matrix, uint32_t layer) const {
    const auto& layers = layers_of(matrix);
    return *layers.at(layers.size() == 1 ? 0 : layer);
  }

  void check_slice(Matrix matrix, DType dtype, const MatrixSlice& slice) const {
    const auto [rows, cols] = size_of(matrix, shape());
    const uint32_t block = facts(dtype).items_per_block;
    TC_CHECK(slice.row_begin <= slice.row_end && slice.row_end <= rows, "rows of the matrix");
    TC_CHECK(slice.col_begin <= slice.col_end && slice.col_end <= cols, "columns of the matrix");
    TC_CHECK(slice.col_begin % block == 0 && slice.col_end % block == 0, "columns in whole blocks");
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::string hash_;
  bool down_rows_ = false;        // the file has the down projection as rows of neurons
  DType down_type_ = DType::f32;  // in which down_t is delivered
  std::array<std::vector<const TensorView*>, kMatrixCount> matrices_;  // by Matrix, then layer
  std::array<std::vector<const TensorView*>, kNormCount> norms_;       // by NormVector, then layer
};

}  // namespace

MatrixSize size_of(Matrix matrix, const ModelShape& shape) {
  const uint64_t dim = shape.model_dim;
  switch (matrix) {
    case Matrix::token_embedding:
    case Matrix::head:
      return {shape.vocab_size, dim};
    case Matrix::q:
      return {shape.q_dim(), dim};
    case Matrix::k:
    case Matrix::v:
      return {shape.kv_dim(), dim};
    case Matrix::o:
      return {dim, shape.q_dim()};
    case Matrix::gate:
    case Matrix::up:
    case Matrix::down_t:
      return {shape.ffn_dim, dim};
  }
  TC_CHECK(false, "no such Matrix");
  return {};
}

BundleTypes bundle_types(const WeightSource& source) {
  return {source.dtype(Matrix::gate, 0), source.dtype(Matrix::up, 0),
          source.dtype(Matrix::down_t, 0)};
}

DType longest_block(const WeightSource& source, Matrix matrix) {
  DType longest = source.dtype(matrix, 0);
  for (uint32_t layer = 1; layer < source.shape().layer_count; ++layer) {
    const DType dtype = source.dtype(matrix, layer);
    if (facts(dtype).items_per_block > facts(longest).items_per_block) longest = dtype;
  }
  return longest;
}

std::unique_ptr<WeightSource> open_weights(const ModelSpec& spec) {
  if (spec.synthetic()) return make_synthetic_weights(spec);
  auto checkpoint = open_checkpoint(spec.path);
  if (checkpoint->vocabulary_only()) {
    throw bad_input(spec.path, "a checkpoint with weights", "a vocabulary and no tensors");
  }
  return std::make_unique<CheckpointWeights>(std::move(checkpoint));
}

}  // namespace thermocline
