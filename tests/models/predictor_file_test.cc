// Files of low-rank predictors: what is written is read back and is the gate as nearly as its rank
// allows; what is wrong with one is said.
#include "models/predictor_file.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "models/cli.h"
#include "models/embedded.h"
#include "models/low_rank.h"
#include "models/predictor_command.h"
#include "models/quantize.h"
#include "tests/gguf_parts.h"
#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

// Of singular values 1, 1/2, 1/4, ...: sums of cosines, which are orthogonal.
std::vector<float> matrix_of(uint64_t rows, uint64_t cols, uint64_t rank) {
  std::vector<float> matrix(rows * cols);
  const auto wave = [](uint64_t k, uint64_t i, uint64_t n) {
    return std::sqrt(2.0 / double(n)) *
           std::cos(M_PI * double(k + 1) * (double(i) + 0.5) / double(n));
  };
  for (uint64_t r = 0; r < rows; ++r)
    for (uint64_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (uint64_t k = 0; k < rank; ++k)
        sum += std::pow(0.5, double(k)) * wave(k, r, rows) * wave(k, c, cols);
      matrix[r * cols + c] = static_cast<float>(sum);
    }
  return matrix;
}

double squares_left(const std::vector<float>& matrix, uint64_t rows, uint64_t cols,
                    const LowRankFactors& factors) {
  const uint64_t rank = factors.left.size() / rows;
  double left = 0;
  for (uint64_t r = 0; r < rows; ++r)
    for (uint64_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (uint64_t k = 0; k < rank; ++k)
        sum += double{factors.left[r * rank + k]} * factors.right[k * cols + c];
      left += (matrix[r * cols + c] - sum) * (matrix[r * cols + c] - sum);
    }
  return left;
}

TEST_CASE("the factors leave what the best approximation of their rank leaves") {
  const uint64_t rows = 70, cols = 40;
  const auto matrix = matrix_of(rows, cols, 12);
  for (const uint64_t rank : {1, 3, 12, 40}) {
    INFO(rank);
    const LowRankFactors factors = low_rank_factors(matrix, rows, cols, rank, 1, 1);
    double best = 0, all = 0;  // sums of squares of singular values
    for (uint64_t k = 0; k < 12; ++k) {
      all += std::pow(0.25, double(k));
      if (k >= rank) best += std::pow(0.25, double(k));
    }
    CHECK(squares_left(matrix, rows, cols, factors) == Approx(best).epsilon(1e-3).margin(1e-10));
    CHECK(factors.energy == Approx(1 - best / all).epsilon(1e-5));
    const LowRankFactors threaded = low_rank_factors(matrix, rows, cols, rank, 1, 3);
    CHECK(threaded.left == factors.left);
    CHECK(threaded.right == factors.right);
  }
}

TEST_CASE("a matrix of zeros has factors of zeros") {
  const LowRankFactors factors = low_rank_factors(std::vector<float>(6 * 4), 6, 4, 2, 1, 1);
  CHECK(factors.right == std::vector<float>(2 * 4));
  CHECK(factors.energy == 1);
}

TEST_CASE("predictors that are written are read back, layer by layer") {
  const TempDir folder;
  const ModelSpec spec = parse_model_spec("preset:tiny,layers=2,type=f16");
  const auto source = open_weights(spec);
  PredictorWriteOptions options;
  options.rank = 24;
  const auto energies = write_predictor(*source, folder / "p.gguf", options);
  REQUIRE(energies.size() == 2);
  const PredictorFile file = open_predictor(folder / "p.gguf", spec.shape);
  CHECK(file.input == PredictorInput::normed);
  CHECK(file.activation == PredictorActivation::identity);
  CHECK(file.threshold == 0.0f);
  REQUIRE(file.layers.size() == 2);
  CHECK(file.layers[1].fc1.rows == 24);
  CHECK(file.layers[1].fc2.rows == spec.shape.ffn_dim);
  for (const double energy : energies) CHECK((energy > 0 && energy < 1));
  options.rank = spec.shape.model_dim + 1;
  CHECK_THROWS_WITH(write_predictor(*source, folder / "q.gguf", options),
                    Contains("--rank") && Contains("expected from 1 to"));
  CHECK(!std::filesystem::exists(folder / "q.gguf"));
}

TEST_CASE("the demo model has PowerInfer's predictors of its own") {
  const auto shape = open_weights(parse_model_spec(std::string(kDemoModel)))->shape();
  const PredictorFile file = open_predictor(std::string(kDemoModel), shape);
  CHECK(file.input == PredictorInput::residual);
  CHECK(file.activation == PredictorActivation::relu);
  CHECK(file.layers.size() == shape.layer_count);
}

GgufFile small_predictor(const ModelShape& shape) {
  GgufFile file;
  file.set_text("general.architecture", "thermocline.predictor");
  file.set_text("thermocline.predictor.input", "normed");
  file.set_text("thermocline.predictor.activation", "relu");
  add_made_tensor(file, "blk.0.fc1.weight", 32, shape.model_dim, DType::f32);
  add_made_tensor(file, "blk.0.fc2.weight", shape.ffn_dim, 32, DType::f32);
  return file;
}

TEST_CASE("what is wrong with a file of predictors is said") {
  const TempDir folder;
  const ModelShape shape = narrow_shape();
  const auto open = [&](const GgufFile& file, const ModelShape& of) {
    write_file(folder / "p.gguf", file.bytes());
    return open_predictor(folder / "p.gguf", of);
  };
  CHECK(open(small_predictor(shape), shape).activation == PredictorActivation::relu);

  ModelShape other = shape;
  other.model_dim = 64;
  CHECK_THROWS_WITH(open(small_predictor(shape), other),
                    Contains("tensor blk.0.fc1.weight of 32 x 64") && Contains("32 x 32"));
  other = shape;
  other.layer_count = 2;
  CHECK_THROWS_WITH(open(small_predictor(shape), other), Contains("a tensor blk.1.fc1.weight"));
  GgufFile file = small_predictor(shape);
  file.set_text("thermocline.predictor.activation", "tanh");
  CHECK_THROWS_WITH(open(file, shape), Contains("relu or identity") && Contains("tanh"));
  file = small_predictor(shape);
  file.remove_tensor("blk.0.fc2.weight");
  CHECK_THROWS_WITH(open(file, shape), Contains("a tensor blk.0.fc2.weight"));
  CHECK_THROWS_WITH(open(small_gguf(DType::f16, shape), shape), Contains("blk.0.fc1.weight"));
  CHECK_THROWS_WITH(open_predictor(folder / "none", shape), Contains("none"));
}

TEST_CASE("no truncation of a file of predictors is taken for one") {
  const ModelShape shape = narrow_shape();
  const std::string bytes = small_predictor(shape).bytes();
  for (size_t size = 0; size + 1 < bytes.size(); size += size < 600 ? 1 : 97) {
    const auto part = std::as_bytes(std::span(bytes).first(size));
    CHECK_THROWS_AS(parse_predictor(part, "p", shape), Error);
  }
}

}  // namespace
}  // namespace thermocline::test
