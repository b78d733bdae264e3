// Quantised GGUF models, run here: logits are no further from those of the f32 model than what the
// reference dequantisation of the same blocks gives, by more than 1 %.
#include <catch2/catch.hpp>
#include <cmath>

#include "models/cli.h"
#include "models/quantize.h"
#include "models/weights.h"
#include "tests/file_bytes.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

// Rows of whole blocks of 256.
ModelShape wide_shape() {
  return {.layer_count = 2,
          .model_dim = 256,
          .ffn_dim = 512,
          .head_count = 4,
          .kv_head_count = 2,
          .head_dim = 64,
          .vocab_size = 64,
          .context_length = 64};
}

struct MatrixName {
  Matrix matrix;
  const char* name;
  bool per_layer;
};

constexpr MatrixName kMatrixNames[] = {{Matrix::token_embedding, "token_embd.weight", false},
                                       {Matrix::head, "output.weight", false},
                                       {Matrix::q, "attn_q.weight", true},
                                       {Matrix::k, "attn_k.weight", true},
                                       {Matrix::v, "attn_v.weight", true},
                                       {Matrix::o, "attn_output.weight", true},
                                       {Matrix::gate, "ffn_gate.weight", true},
                                       {Matrix::up, "ffn_up.weight", true},
                                       {Matrix::down_t, "ffn_down.weight", true}};

// (rows, cols) as the file has them: of the down projection, one row for each output.
std::vector<float> stored_values(const RandomWeights& weights, Matrix matrix, uint32_t layer,
                                 MatrixSize& size) {
  size = size_of(matrix, weights.shape());
  std::vector<float> values(size.rows * size.cols);
  weights.read(matrix, layer, {0, size.rows, 0, size.cols},
               reinterpret_cast<std::byte*>(values.data()));
  // So that a layer of 256 inputs does not amplify what it is given, errors least of all.
  if (matrix != Matrix::token_embedding) {
    for (float& value : values) value *= 0.25f;
  }
  if (matrix != Matrix::down_t) return values;
  std::vector<float> turned(values.size());
  for (uint64_t row = 0; row < size.rows; ++row) {
    for (uint64_t col = 0; col < size.cols; ++col) {
      turned[col * size.rows + row] = values[row * size.cols + col];
    }
  }
  std::swap(size.rows, size.cols);
  return turned;
}

void add(GgufFile& file, const std::string& name, const MatrixSize& size, DType dtype,
         const std::vector<float>& values) {
  std::vector<uint64_t> dimensions = {size.cols};
  if (size.rows > 1) dimensions.push_back(size.rows);
  file.tensors.push_back({name, dimensions, facts(dtype).ggml_id, encoded(dtype, values)});
}

// What the blocks of `dtype` say of the values.
std::vector<float> rounded(DType dtype, const std::vector<float>& values) {
  const std::string blocks = encoded(dtype, values);
  std::vector<float> decoded(values.size());
  dequantize(dtype, reinterpret_cast<const std::byte*>(blocks.data()), values.size(),
             decoded.data());
  return decoded;
}

// The random model with its matrices rounded to `dtype`, stored in blocks of it or as f32.
std::string model_bytes(DType dtype, bool in_blocks) {
  const RandomWeights weights(wide_shape());
  const ModelShape& shape = weights.shape();
  GgufFile file;
  set_shape(file, shape);
  file.set_u32("llama.attention.key_length", shape.head_dim);
  const auto prefix = [](uint32_t layer) { return "blk." + std::to_string(layer) + "."; };
  for (const MatrixName& known : kMatrixNames) {
    for (uint32_t layer = 0; layer < (known.per_layer ? shape.layer_count : 1); ++layer) {
      MatrixSize size;
      const auto values = stored_values(weights, known.matrix, layer, size);
      const std::string name = (known.per_layer ? prefix(layer) : "") + known.name;
      if (in_blocks) {
        add(file, name, size, dtype, values);
      } else {
        add(file, name, size, DType::f32, rounded(dtype, values));
      }
    }
  }
  const auto add_norm = [&](NormVector vector, uint32_t layer, const std::string& name) {
    std::vector<float> values(shape.model_dim);
    weights.read(vector, layer, values.data());
    add(file, name, {1, shape.model_dim}, DType::f32, values);
  };
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    add_norm(NormVector::attention_norm, layer, prefix(layer) + "attn_norm.weight");
    add_norm(NormVector::ffn_norm, layer, prefix(layer) + "ffn_norm.weight");
  }
  add_norm(NormVector::output_norm, 0, "output_norm.weight");
  return file.bytes();
}

std::vector<float> logits_of(const std::string& bytes) {
  const TempDir folder;
  write_file(folder / "model.gguf", bytes);
  const auto weights = open_weights(parse_model_spec(folder / "model.gguf"));
  LocalRunOptions options;
  options.prompt.clear();
  for (int32_t i = 0; i < 16; ++i) options.prompt.push_back((7 + 13 * i * i) % 64);
  options.new_token_max = 0;
  options.forced = {5, 9, 2, 33};
  return run_locally(*weights, options).logits;
}

// |a - b| / |b|
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, length = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    length += double{b[i]} * b[i];
  }
  return std::sqrt(difference / length);
}

}  // namespace

TEST_CASE("a quantised model is as near to f32 as its reference dequantisation, within 1 %") {
  const auto exact = logits_of(model_bytes(DType::f32, true));
  for (const DType dtype : {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                            DType::q4_k, DType::q5_k, DType::q6_k}) {
    const double ours = distance(logits_of(model_bytes(dtype, true)), exact);
    const double reference = distance(logits_of(model_bytes(dtype, false)), exact);
    INFO(facts(dtype).name << ": " << ours << " from f32, the reference " << reference);
    CHECK(reference > 1e-3);  // the type rounds at all
    CHECK(ours <= 1.01 * reference);
  }
}

}  // namespace thermocline::test
