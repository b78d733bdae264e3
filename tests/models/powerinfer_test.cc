// PowerInfer's files: models with predictors, GPU indexes, and models whose neurons lie in bundles.
#include <catch2/catch.hpp>

#include "models/cli.h"
#include "models/gpu_index.h"
#include "models/weights.h"
#include "tests/file_bytes.h"
#include "tests/gguf_parts.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

std::unique_ptr<Checkpoint> parse(const std::string& bytes) {
  return parse_bytes("powerinfer", bytes);
}

std::string refused(const GgufFile& file) {
  return input_error([&] { parse(file.bytes()); });
}

std::unique_ptr<Checkpoint> parse_bundles(const std::string& bytes) {
  return parse_bytes("gguf", bytes);
}

GpuIndex parse_index(const std::string& bytes) {
  return parse_gpu_index(file_of(bytes).bytes, "FILE");
}

std::string refused_index(const GgufFile& file) {
  return input_error([&] { parse_index(file.bytes()); });
}

std::unique_ptr<WeightSource> opened(const TempDir& folder, const std::string& bytes) {
  write_file(folder / "model.gguf", bytes);
  return open_weights(parse_model_spec(folder / "model.gguf"));
}

std::string all_of(const WeightSource& weights, Matrix matrix) {
  const auto [rows, cols] = size_of(matrix, weights.shape());
  std::string bytes(rows * bytes_of(weights.dtype(matrix, 1), cols), '\0');
  weights.read(matrix, 1, {0, rows, 0, cols}, reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

}  // namespace

TEST_CASE("a PowerInfer model has ReLU, predictors and the predictor threshold") {
  const auto checkpoint = parse(small_powerinfer(DType::q4_0).bytes());
  CHECK(checkpoint->shape().activation == FfnActivation::relu);
  CHECK(checkpoint->predictor_threshold() == -0.25f);
  CHECK(checkpoint->get("blk.1.fc1.weight", 32, 64).dtype == DType::q4_0);
  CHECK(checkpoint->get("blk.1.fc2.weight", 160, 32).dtype == DType::q4_0);
  GgufFile file = small_powerinfer(DType::q4_0);
  file.remove("powerinfer.sparse_threshold");
  CHECK(!parse(file.bytes())->predictor_threshold());
}

TEST_CASE("the down projection of a PowerInfer model is delivered as it is stored") {
  const TempDir folder;
  const auto weights = opened(folder, small_powerinfer(DType::q4_0).bytes());
  CHECK(weights->dtype(Matrix::down_t, 1) == DType::q4_0);
  CHECK(all_of(*weights, Matrix::down_t) ==
        encoded(DType::q4_0, made_values("blk.1.ffn_down_t.weight", 160, 64)));
}

TEST_CASE("PowerInfer: predictors that do not fit the model are refused") {
  GgufFile file = small_powerinfer(DType::f32);
  file.remove_tensor("blk.0.fc1.weight");
  CHECK_THAT(refused(file), Contains("blk.0.fc1.weight of 32 x 64, found no such tensor"));
  file.remove_tensor("blk.0.fc2.weight");
  CHECK_NOTHROW(parse(file.bytes()));
  file.tensor("blk.1.fc2.weight").dimensions = {160, 32};
  CHECK_THAT(refused(file), Contains("blk.1.fc2.weight of 160 x 32, found 32 x 160"));
}

TEST_CASE("PowerInfer: other architectures are refused by name") {
  for (const char* name : {"bamboo", "falcon", "opt"}) {
    GgufFile file = small_powerinfer(DType::f32);
    file.set_text("general.architecture", name);
    CHECK_THAT(refused(file), Contains("architecture llama") && Contains(name));
  }
  CHECK_THAT(refused(small_gpu_index({{1, 0}})), Contains("a model, found PowerInfer's GPU index"));
}

TEST_CASE("a PowerInfer model cut at any byte is refused, and hostile lengths are") {
  const GgufFile file = small_powerinfer(DType::q4_0, narrow_shape());
  check_truncations(file.bytes(), parse);
  size_t data_bytes = 0;
  for (const GgufFile::Tensor& tensor : file.tensors) data_bytes += tensor.data.size();
  check_hostile_lengths(file.bytes(), file.bytes().size() - data_bytes, parse);
}

TEST_CASE("a GPU index gives the hot neurons of each layer") {
  const GpuIndex index = parse_index(small_gpu_index({{1, 0, 1, 1}, {0, 0, 0, 0}}).bytes());
  CHECK(index.ffn_dim == 4);
  CHECK(index.hot_neurons == std::vector<std::vector<uint32_t>>{{0, 2, 3}, {}});
  CHECK(index.vram_capacity == uint64_t{8} << 30);
  CHECK(index.hot_count() == 3);
}

TEST_CASE("a GPU index whose two forms disagree is refused") {
  const GgufFile whole = small_gpu_index({{1, 0, 1, 1}, {0, 1, 0, 0}});
  const auto damaged = [&](auto damage) {
    GgufFile file = whole;
    damage(file);
    return refused_index(file);
  };
  const auto put = [](std::initializer_list<int32_t> values) {
    Bytes bytes;
    for (const int32_t value : values) bytes.put(value);
    return bytes.str();
  };
  const auto bucket = [&](std::initializer_list<int32_t> values) {
    return damaged([&](GgufFile& file) {
      file.tensor("blk.0.gpu_bucket").data = put(values);
      file.tensor("blk.0.gpu_bucket").dimensions = {values.size()};
    });
  };
  CHECK_THAT(bucket({0, 3, 2}), Contains("neuron 2 at 1") && Contains("found 3"));
  CHECK_THAT(bucket({0, 2}), Contains("3 neurons, as gpu_idx flags, found 2"));
  CHECK_THAT(bucket({0, 2, 2}), Contains("neuron 3 at 2"));
  CHECK_THAT(bucket({0, 2, -1}), Contains("found -1"));
  CHECK_THAT(bucket({0, 2, 4}), Contains("found 4"));
  CHECK_THAT(damaged([&](GgufFile& f) {
               f.tensor("blk.1.gpu_idx").data = put({0, 2, 0, 0});
             }),
             Contains("0 or 1 for each neuron, found 2 for neuron 1"));
  CHECK_THAT(damaged([](GgufFile& f) { f.tensor("blk.1.gpu_idx").dimensions = {3}; }),
             Contains("4 neurons, found 3"));
  CHECK_THAT(damaged([](GgufFile& f) { f.tensor("blk.1.gpu_idx").type = 0; }),
             Contains("blk.1.gpu_idx: expected I32") && Contains("F32"));
  CHECK_THAT(damaged([](GgufFile& f) { f.remove_tensor("blk.1.gpu_bucket"); }),
             Contains("3 tensors for 2 layers"));
  CHECK_THAT(damaged([](GgufFile& f) { f.tensor("blk.1.gpu_bucket").name = "blk.1.gpu_idx"; }),
             Contains("two named blk.1.gpu_idx"));
  CHECK_THAT(damaged([](GgufFile& f) { f.set_u32("generic.gpu_index.block_count", 3); }),
             Contains("4 tensors for 3 layers"));
  CHECK_THAT(damaged([](GgufFile& f) { f.set_text("general.architecture", "llama"); }),
             Contains("generic.gpu_index, found llama"));
}

TEST_CASE("a GPU index cut at any byte is refused, and hostile lengths are") {
  const GgufFile file = small_gpu_index({{1, 0, 1, 1}, {0, 1, 0, 0}});
  check_truncations(file.bytes(), parse_index);
  check_hostile_lengths(file.bytes(), file.bytes().size(), parse_index);
}

TEST_CASE("rows that lie in bundles are read as those of plain tensors") {
  const DType dtype = GENERATE(DType::f32, DType::q8_0, DType::q4_0);
  const TempDir folder;
  const uint64_t stride = 1024;
  const auto weights = opened(folder, small_bundles(dtype, stride).bytes());
  CHECK(weights->shape() == small_shape());
  for (const auto& [matrix, name] : {std::pair{Matrix::gate, "blk.1.ffn_gate.weight"},
                                     {Matrix::up, "blk.1.ffn_up.weight"},
                                     {Matrix::down_t, "blk.1.ffn_down_t.weight"}}) {
    CHECK(weights->dtype(matrix, 1) == dtype);
    CHECK(all_of(*weights, matrix) == encoded(dtype, made_values(name, 160, 64)));
  }
}

TEST_CASE("bundles that do not fit the model are refused") {
  const auto with = [](auto damage) {
    GgufFile file = small_bundles(DType::q8_0, 256);
    damage(file);
    return input_error([&] { parse_bundles(file.bytes()); });
  };
  CHECK_THAT(with([](GgufFile& f) { f.set_u32("thermocline.bundle.version", 2); }),
             Contains("bundle.version 1, found 2"));
  CHECK_THAT(with([](GgufFile& f) { f.set_u32("thermocline.bundle.stride", 512); }),
             Contains("I8 of [512, 160], found I8 of [256, 160]"));
  CHECK_THAT(with([](GgufFile& f) { f.set_text("thermocline.bundle.up_type", "f32"); }),
             Contains("bundles of at least 324 bytes"));
  CHECK_THAT(with([](GgufFile& f) { f.set_text("thermocline.bundle.up_type", "q9_9"); }),
             Contains("thermocline.bundle.up_type one of"));
  CHECK_THAT(with([](GgufFile& f) { f.remove("thermocline.bundle.stride"); }),
             Contains("thermocline.bundle.stride"));
  CHECK_THAT(with([](GgufFile& f) { f.tensor("blk.1.ffn_bundle.weight").dimensions = {256}; }),
             Contains("found I8 of [256]"));
  CHECK_THAT(
      with([](GgufFile& f) { add_made_tensor(f, "blk.1.ffn_up.weight", 160, 64, DType::f32); }),
      Contains("two named blk.1.ffn_up.weight"));
}

TEST_CASE("a GGUF file of bundles cut at any byte is refused, and hostile lengths are") {
  const GgufFile file = small_bundles(DType::q4_0, 64, narrow_shape());
  check_truncations(file.bytes(), parse_bundles);
  size_t data_bytes = 0;
  for (const GgufFile::Tensor& tensor : file.tensors) data_bytes += tensor.data.size();
  check_hostile_lengths(file.bytes(), file.bytes().size() - data_bytes, parse_bundles);
}

}  // namespace thermocline::test
