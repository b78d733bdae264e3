// Weights of a checkpoint: any rectangle of any matrix, and the transposed down projection.
#include "models/weights.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "models/quantize.h"
#include "tests/file_bytes.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

struct NamedMatrix {
  Matrix matrix;
  const char* name;
};

// All but down_t, which the file has the other way round.
constexpr NamedMatrix kPlain[] = {{Matrix::token_embedding, "token_embd.weight"},
                                  {Matrix::head, "output.weight"},
                                  {Matrix::q, "blk.1.attn_q.weight"},
                                  {Matrix::k, "blk.1.attn_k.weight"},
                                  {Matrix::v, "blk.1.attn_v.weight"},
                                  {Matrix::o, "blk.1.attn_output.weight"},
                                  {Matrix::gate, "blk.1.ffn_gate.weight"},
                                  {Matrix::up, "blk.1.ffn_up.weight"}};

class Opened {
 public:
  explicit Opened(const std::string& bytes, const std::string& name = "model.gguf")
      : path_(folder_ / name) {
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    REQUIRE(file != nullptr);
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    weights_ = open_weights(parse_model_spec(path_));
  }
  const WeightSource* operator->() const { return weights_.get(); }
  const WeightSource& operator*() const { return *weights_; }

 private:
  TempDir folder_;
  std::string path_;
  std::unique_ptr<WeightSource> weights_;
};

std::string refused(const GgufFile& file) {
  return input_error([&] { Opened opened(file.bytes()); });
}

std::string read(const WeightSource& weights, Matrix matrix, uint32_t layer,
                 const MatrixSlice& slice) {
  const uint64_t row_bytes =
      bytes_of(weights.dtype(matrix, layer), slice.col_end - slice.col_begin);
  const uint64_t size = (slice.row_end - slice.row_begin) * row_bytes;
  std::vector<std::byte> out(size);  // exactly: a sanitizer sees one byte too many
  weights.read(matrix, layer, slice, out.data());
  return {reinterpret_cast<const char*>(out.data()), size};
}

std::string read_all(const WeightSource& weights, Matrix matrix, uint32_t layer) {
  const auto [rows, cols] = size_of(matrix, weights.shape());
  return read(weights, matrix, layer, {0, rows, 0, cols});
}

// The rectangle of a whole matrix's bytes.
std::string part_of(const std::string& whole, DType dtype, uint64_t cols,
                    const MatrixSlice& slice) {
  const uint64_t begin = bytes_of(dtype, slice.col_begin), end = bytes_of(dtype, slice.col_end);
  std::string part;
  for (uint64_t row = slice.row_begin; row < slice.row_end; ++row) {
    part += whole.substr(row * bytes_of(dtype, cols) + begin, end - begin);
  }
  return part;
}

std::vector<float> decoded(DType dtype, const std::string& bytes, uint64_t count) {
  std::vector<float> values(count);
  dequantize(dtype, reinterpret_cast<const std::byte*>(bytes.data()), count, values.data());
  return values;
}

std::vector<float> transposed(const std::vector<float>& values, uint64_t rows, uint64_t cols) {
  std::vector<float> result(values.size());
  for (uint64_t row = 0; row < rows; ++row) {
    for (uint64_t col = 0; col < cols; ++col) result[col * rows + row] = values[row * cols + col];
  }
  return result;
}

}  // namespace

TEST_CASE("weights are the bytes of the file, whole and in rectangles") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0);
  const Opened weights(small_gguf(dtype).bytes());
  CHECK(weights->provenance() == "real");
  CHECK(weights->shape() == small_shape());
  for (const auto& [matrix, name] : kPlain) {
    INFO(name);
    const auto [rows, cols] = size_of(matrix, weights->shape());
    CHECK(weights->dtype(matrix, 1) == dtype);
    const std::string whole = read_all(*weights, matrix, 1);
    CHECK(whole == encoded(dtype, made_values(name, rows, cols)));
    for (const MatrixSlice& slice : {MatrixSlice{1, rows - 2, 32, cols}, MatrixSlice{2, 3, 0, 32},
                                     MatrixSlice{0, 5, 0, cols}, MatrixSlice{4, 4, 0, cols}}) {
      CHECK(read(*weights, matrix, 1, slice) == part_of(whole, dtype, cols, slice));
    }
  }
}

// What a stored ffn_down is delivered as.
DType delivered(DType stored) {
  if (stored == DType::q8_0) return DType::f16;
  return stored == DType::q4_0 ? DType::q8_0 : stored;
}

TEST_CASE("the down projection comes transposed: exact without blocks, else in a wider type") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0);
  const Opened weights(small_gguf(dtype).bytes());
  const ModelShape& shape = weights->shape();
  const std::string stored =
      encoded(dtype, made_values("blk.1.ffn_down.weight", shape.model_dim, shape.ffn_dim));
  const uint64_t count = uint64_t{shape.model_dim} * shape.ffn_dim;
  const std::vector<float> expected =
      transposed(decoded(dtype, stored, count), shape.model_dim, shape.ffn_dim);
  const std::string whole = read_all(*weights, Matrix::down_t, 1);
  CHECK(weights->dtype(Matrix::down_t, 1) == delivered(dtype));
  CHECK(whole == encoded(delivered(dtype), expected));
  const std::vector<float> found = decoded(delivered(dtype), whole, count);
  // Of values up to 1: half a place of f16; half a step of Q8_0, whose scale is rounded to f16.
  const float q8_0 = 0.5f / 127 + 0x1p-11f;
  const float tolerance = dtype == DType::q8_0 ? 0x1p-12f : dtype == DType::q4_0 ? q8_0 : 0;
  for (uint64_t i = 0; i < count; ++i) REQUIRE(std::fabs(found[i] - expected[i]) <= tolerance);
}

TEST_CASE("any rectangle of the transposed down projection is that of the whole") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0);
  ModelShape shape = small_shape();
  shape.ffn_dim = 320;  // more than two tiles
  const Opened weights(small_gguf(dtype, shape).bytes());
  const std::string whole = read_all(*weights, Matrix::down_t, 0);
  for (const uint64_t begin : {0, 1, 31, 32, 33, 127, 128, 250}) {
    for (const uint64_t end : {begin, begin + 1, begin + 40, uint64_t{320}}) {
      for (const auto& [from, to] : {std::pair{0, 64}, {32, 64}, {0, 32}, {32, 32}}) {
        const MatrixSlice slice = {begin, std::min<uint64_t>(end, 320), uint64_t(from),
                                   uint64_t(to)};
        INFO(begin << ".." << end << " x " << from << ".." << to);
        CHECK(read(*weights, Matrix::down_t, 0, slice) ==
              part_of(whole, delivered(dtype), 64, slice));
      }
    }
  }
}

TEST_CASE("ffn_dim need not be whole tiles, nor whole blocks where the type has none") {
  ModelShape shape = small_shape();
  shape.ffn_dim = 173;
  const Opened weights(small_gguf(DType::f16, shape).bytes());
  const auto values = made_values("blk.0.ffn_down.weight", shape.model_dim, shape.ffn_dim);
  CHECK(read_all(*weights, Matrix::down_t, 0) ==
        encoded(DType::f16, transposed(values, shape.model_dim, shape.ffn_dim)));
}

TEST_CASE("norm vectors are f32 whatever the file has") {
  GgufFile file = small_gguf(DType::f32);
  auto& norm = file.tensor("blk.1.ffn_norm.weight");
  norm.type = facts(DType::f16).ggml_id;
  norm.data = encoded(DType::f16, made_values(norm.name, 1, 64));
  const Opened weights(file.bytes());
  std::vector<float> found(64);
  weights->read(NormVector::ffn_norm, 1, found.data());
  CHECK(found == decoded(DType::f16, norm.data, 64));
  weights->read(NormVector::attention_norm, 0, found.data());
  CHECK(found == made_values("blk.0.attn_norm.weight", 1, 64));
  weights->read(NormVector::output_norm, 0, found.data());
  CHECK(found == made_values("output_norm.weight", 1, 64));
}

TEST_CASE("a tied head is the embedding table") {
  ModelShape shape = small_shape();
  shape.tied_embeddings = true;
  const Opened weights(small_gguf(DType::q8_0, shape).bytes());
  CHECK(read_all(*weights, Matrix::head, 0) == read_all(*weights, Matrix::token_embedding, 0));
}

TEST_CASE("llama2.c and GGUF give the same weights") {
  ModelShape shape = small_shape();
  shape.rope_theta = 10000.0f;
  const Opened gguf(small_gguf(DType::f32, shape).bytes());
  const Opened llama2c(small_llama2c(shape), "model.bin");
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    for (int matrix = 0; matrix <= static_cast<int>(Matrix::down_t); ++matrix) {
      const auto m = static_cast<Matrix>(matrix);
      CHECK(read_all(*gguf, m, layer) == read_all(*llama2c, m, layer));
    }
  }
  CHECK(gguf->hash() != llama2c->hash());
  CHECK(gguf->hash().size() == 16);
}

TEST_CASE("a checkpoint that is not a whole LLaMA is refused") {
  GgufFile file = small_gguf(DType::q8_0);
  file.remove_tensor("blk.1.ffn_up.weight");
  CHECK_THAT(refused(file), Contains("blk.1.ffn_up.weight of 160 x 64") && Contains("no such"));
  file = small_gguf(DType::q8_0);
  file.tensor("blk.0.attn_k.weight").dimensions = {64, 16};
  CHECK_THAT(refused(file), Contains("blk.0.attn_k.weight of 32 x 64") && Contains("16 x 64"));
  file = small_gguf(DType::q8_0);
  add_made_tensor(file, "blk.0.attn_q.bias", 1, 64, DType::f32);
  CHECK_THAT(refused(file), Contains("blk.0.attn_q.bias"));
  file = small_gguf(DType::q8_0);
  auto& gate = file.tensor("blk.1.ffn_gate.weight");
  gate.type = facts(DType::q4_0).ggml_id;
  gate.data = encoded(DType::q4_0, made_values(gate.name, 160, 64));
  CHECK_THAT(refused(file), Contains("blk.1.ffn_gate.weight in q8_0") && Contains("q4_0"));
  CHECK_THAT(refused(small_vocabulary_gguf()), Contains("no tensors"));
}

TEST_CASE("ffn_down in blocks needs a model_dim of whole blocks") {
  ModelShape shape = small_shape();
  shape.model_dim = 48;
  shape.head_dim = 12;
  GgufFile file = small_gguf(DType::f32, shape);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    auto& down = file.tensor("blk." + std::to_string(layer) + ".ffn_down.weight");
    down.type = facts(DType::q4_0).ggml_id;
    down.data = encoded(DType::q4_0, made_values(down.name, 48, 160));
  }
  CHECK_THAT(refused(file), Contains("a multiple of 32"));
}

TEST_CASE("layers may have the down projection in different types: one holds them all") {
  const auto with = [](DType first, DType second) {
    GgufFile file = small_gguf(DType::q4_0);
    const DType types[] = {first, second};
    for (uint32_t layer = 0; layer < 2; ++layer) {
      auto& down = file.tensor("blk." + std::to_string(layer) + ".ffn_down.weight");
      down.type = facts(types[layer]).ggml_id;
      down.data = encoded(types[layer], made_values(down.name, 64, 160));
    }
    return Opened(file.bytes())->dtype(Matrix::down_t, 0);
  };
  CHECK(with(DType::q4_0, DType::q4_0) == DType::q8_0);
  CHECK(with(DType::q4_0, DType::q8_0) == DType::f16);
  CHECK(with(DType::q4_0, DType::bf16) == DType::f32);
}

TEST_CASE("a down projection stored by neurons is the bytes of the file") {
  GgufFile file = small_gguf(DType::q4_0);
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    file.remove_tensor(prefix + "ffn_down.weight");
    add_made_tensor(file, prefix + "ffn_down_t.weight", 160, 64, DType::q4_0);
    add_made_tensor(file, prefix + "fc1.weight", 32, 64, DType::q4_0);  // guesses: not read here
    add_made_tensor(file, prefix + "fc2.weight", 160, 32, DType::q4_0);
  }
  const Opened weights(file.bytes());
  CHECK(bundle_types(*weights) == BundleTypes(DType::q4_0));
  CHECK(read_all(*weights, Matrix::down_t, 1) ==
        encoded(DType::q4_0, made_values("blk.1.ffn_down_t.weight", 160, 64)));
}

TEST_CASE("a NaN or an infinity is refused by the rank that reads it, with tensor and row") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_1);
  for (const char* name : {"blk.1.attn_v.weight", "blk.1.ffn_down.weight"}) {
    GgufFile file = small_gguf(dtype);
    GgufFile::Tensor& tensor = file.tensor(name);
    const uint64_t row_bytes = bytes_of(dtype, tensor.dimensions[0]);
    const std::string nan =
        encoded(dtype == DType::f32 || dtype == DType::bf16 ? dtype : DType::f16, {std::nanf("")});
    tensor.data.replace(5 * row_bytes, nan.size(), nan);
    const Opened weights(file.bytes());
    const Matrix matrix =
        std::string(name).find("attn") != std::string::npos ? Matrix::v : Matrix::down_t;
    CHECK_THAT(input_error([&] { read_all(*weights, matrix, 1); }),
               Contains(name) && Contains("finite weights") && Contains("nan in row 5"));
    read_all(*weights, matrix, 0);  // others do not meet it
    if (matrix == Matrix::v) read(*weights, matrix, 1, {6, 32, 0, 64});
  }
}

TEST_CASE("open_weights makes synthetic weights of a preset") {
  const auto weights = open_weights(parse_model_spec("preset:tiny,layers=1,type=q8_0"));
  CHECK(weights->provenance() == "synthetic");
  CHECK(weights->shape().layer_count == 1);
}

}  // namespace thermocline::test
