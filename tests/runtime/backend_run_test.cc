// A decoder whole on each backend, and what is refused or named before and while it runs.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "models/synthetic.h"
#include "runtime/rank_weights.h"
#include "tests/emulated/cuda.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/runtime/spoiled_weights.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

ModelShape shape_of(FfnActivation activation) {
  return {.layer_count = 2,
          .model_dim = 64,
          .ffn_dim = 96,
          .head_count = 4,
          .kv_head_count = 2,
          .head_dim = 16,
          .vocab_size = 80,
          .context_length = 64,
          .activation = activation,
          .fatrelu_threshold = 0.125f};
}

// Two tasks in flight, prompts in chunks, then tokens one by one.
LocalRunOptions two_tasks() {
  LocalRunOptions options;
  options.chunk_max = 3;
  options.batch = 2;
  for (uint32_t i = 0; i < 2; ++i) {
    TaskInput task;
    task.index = i;
    task.task_id = static_cast<int32_t>(i);
    for (int32_t t = 0; t < 7 - static_cast<int32_t>(i); ++t)
      task.prompt.push_back((5 + 11 * t) % 80);
    for (int32_t t = 0; t < 4; ++t) task.forced.push_back((3 + 17 * t) % 80);
    options.tasks.push_back(task);
  }
  return options;
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a decoder on CUDA's kernels gives the CPU's logits, within rounding, and its bits",
          "[cuda][long]") {
  const FfnActivation activation =
      GENERATE(FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu);
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::q8_0, DType::q4_0);
  const RandomWeights weights(shape_of(activation), dtype);
  LocalRunOptions options = two_tasks();
  options.silu_threshold = 0.1f;
  const auto cpu = run_locally(weights, options);
  options.backend = [] { return make_emulated_cuda_backend(); };
  const auto cuda = run_locally(weights, options);
  // Inputs of quantised weights are in fixed point on the CPU and f32 on a GPU.
  CHECK(relative_difference(cpu.logits, cuda.logits) < (dtype < DType::q8_0 ? 1e-5 : 3e-4));
  size_t differ = 0;
  for (size_t i = 0; i < cpu.active.size(); ++i) differ += cpu.active[i] != cuda.active[i];
  CHECK(differ <= cpu.active.size() / 1000);
  CHECK(run_locally(weights, options).logits == cuda.logits);
}

TEST_CASE("checking finiteness names layer and tensor of a weight that is no number") {
  Spoiled weights(shape_of(FfnActivation::relu));
  const auto run = [&] {
    LocalRunOptions options = two_tasks();
    options.check_finite = true;
    return message_of([&] { run_locally(weights, options); });
  };
  CHECK(run() == "");
  weights.matrix = [](Matrix of, uint32_t layer, const MatrixSlice& slice, float* values) {
    if (of != Matrix::up || layer != 1 || slice.row_begin > 70 || slice.row_end <= 70) return;
    values[(70 - slice.row_begin) * (slice.col_end - slice.col_begin) + 5] = std::nanf("");
  };
  CHECK(run() == "layer 1, up: the weight in row 70, column 5 is nan");
  weights.matrix = nullptr;
  weights.norm = [](NormVector of, uint32_t layer, float* values) {
    if (of == NormVector::ffn_norm && layer == 1) values[9] = INFINITY;
  };
  CHECK(run() == "layer 1, ffn_norm: weight 9 is inf");
}

TEST_CASE(
    "checking finiteness looks at what lies on disk, also where an earlier run put it there") {
  const TempDir folder;
  Spoiled weights(shape_of(FfnActivation::relu));
  weights.matrix = [](Matrix of, uint32_t layer, const MatrixSlice& slice, float* values) {
    if (of != Matrix::down_t || layer != 0 || slice.row_begin > 33 || slice.row_end <= 33) return;
    values[(33 - slice.row_begin) * (slice.col_end - slice.col_begin) + 2] = INFINITY;
  };
  LocalRunOptions options = two_tasks();
  options.tiers = {folder / "", 0, "spoiled", bundle_bytes(weights.shape(), DType::f32)};
  const auto run = [&] { return message_of([&] { run_locally(weights, options); }); };
  const std::string found = "layer 0, down_t: the weight in row 33, column 2 is inf";
  options.check_finite = true;
  CHECK(run() == found);  // as the file is made
  options.check_finite = false;
  CHECK(run() ==
        "a logit is not a finite number: the weights are damaged, or their type cannot "
        "hold the model's values");
  options.check_finite = true;
  CHECK(run() == found);
}

TEST_CASE("checking finiteness names the sublayer behind which an activation is no number") {
  Spoiled weights(shape_of(FfnActivation::relu));
  weights.norm = [](NormVector of, uint32_t layer, float* values) {
    if (of == NormVector::ffn_norm && layer == 1) std::fill_n(values, 64, 1e30f);
  };
  LocalRunOptions options = two_tasks();
  options.check_finite = true;
  const std::string message = message_of([&] { run_locally(weights, options); });
  CHECK(message.starts_with("layer 1, behind its FFN: element "));
  CHECK(message.find("position 0 is ") != std::string::npos);
  if (!kEmulatesCuda) return;
  options.backend = [] { return make_emulated_cuda_backend(); };
  CHECK(message_of([&] { run_locally(weights, options); }).starts_with("layer 1, behind its FFN"));
}

TEST_CASE("what a pass reads in one go lies in one piece") {
  for (const FfnActivation activation : {FfnActivation::silu, FfnActivation::relu}) {
    const Spoiled weights(shape_of(activation));
    const auto backend = backends().by_name("cpu").make({1, {}, 0});
    const Partition partition = make_partition(weights.shape(), DType::f32, {1, 1}, {1});
    const RankWeights rank = load_rank_weights(weights, partition, 0, *backend);
    const bool pairs = activation == FfnActivation::silu;
    for (const LayerWeights& layer : rank.layers) {
      const uint64_t row = 64 * sizeof(float);
      CHECK(layer.gate.view.stride == (pairs ? 2 * row : row));
      CHECK(layer.up.view.stride == layer.gate.view.stride);
      CHECK((layer.gate.view.data + row == layer.up.view.data) == pairs);
      CHECK(layer.down_t.view.stride == row);
    }
  }
}

TEST_CASE("what a backend cannot run is refused before anything is read") {
  Spoiled weights(shape_of(FfnActivation::relu));
  weights.type = DType::q6_k;
  weights.matrix = [](Matrix, uint32_t, const MatrixSlice&, float*) { FAIL("read"); };
  const auto backend = backends().by_name("cpu").make({1, {}, 0});
  const Partition partition = make_partition(weights.shape(), DType::f32, {1, 1}, {1});
  const std::string message =
      message_of([&] { load_rank_weights(weights, partition, 0, *backend); });
  CHECK(message == "layer 0, q: rows of q6_k have a multiple of 256 columns, not 64");
}

TEST_CASE("weights that do not fit into memory are refused, with what there is") {
  const ModelSpec spec = parse_model_spec("preset:relullama-70b,type=f32");
  const auto backend = backends().by_name("cpu").make({1, {}, 0});
  if (backend->free_bytes() > uint64_t{256} << 30) {
    WARN("skipped: this machine has room for 70 billion f32");
    return;
  }
  const auto source = make_synthetic_weights(spec);
  const Partition partition = make_partition(spec.shape, DType::f32, {1, 1}, {1});
  const std::string message =
      message_of([&] { load_rank_weights(*source, partition, 0, *backend); });
  INFO(message);
  CHECK(message.starts_with("the weights of this rank take 25"));
  CHECK(message.find(" free: more ranks") != std::string::npos);
}

}  // namespace thermocline::test
