// The decoder against Hugging Face transformers and against double precision, in every layout.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <numeric>

#include "models/synthetic.h"
#include "tests/npy_files.h"
#include "tests/runtime/double_decoder.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

// The models of tests/oracles/make_llama_logits.py.
const std::map<std::string, ModelShape>& oracle_shapes() {
  static const std::map<std::string, ModelShape> shapes = {{"silu_grouped",
                                                            {.layer_count = 2,
                                                             .model_dim = 64,
                                                             .ffn_dim = 96,
                                                             .head_count = 4,
                                                             .kv_head_count = 2,
                                                             .head_dim = 16,
                                                             .vocab_size = 96,
                                                             .context_length = 64}},
                                                           {"relu_tied",
                                                            {.layer_count = 3,
                                                             .model_dim = 48,
                                                             .ffn_dim = 88,
                                                             .head_count = 6,
                                                             .kv_head_count = 3,
                                                             .head_dim = 8,
                                                             .vocab_size = 80,
                                                             .context_length = 64,
                                                             .activation = FfnActivation::relu,
                                                             .rope_theta = 500000.0f,
                                                             .norm_epsilon = 1e-6f,
                                                             .tied_embeddings = true}},
                                                           {"silu_wide_heads",
                                                            {.layer_count = 2,
                                                             .model_dim = 64,
                                                             .ffn_dim = 120,
                                                             .head_count = 4,
                                                             .kv_head_count = 4,
                                                             .head_dim = 24,
                                                             .vocab_size = 72,
                                                             .context_length = 64}}};
  return shapes;
}

std::vector<int32_t> oracle_tokens(uint32_t vocab_size, uint32_t count = 40) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>((7 + 13 * i * i) % vocab_size));
  }
  return tokens;
}

// The first `prompt_count` tokens are the prompt, the rest is forced.
LocalRunOptions forced_run(const std::vector<int32_t>& tokens, size_t prompt_count,
                           const std::string& layout) {
  LocalRunOptions options;
  options.layout = layout;
  options.prompt.assign(tokens.begin(), tokens.begin() + static_cast<int64_t>(prompt_count));
  options.forced.assign(tokens.begin() + static_cast<int64_t>(prompt_count), tokens.end());
  return options;
}

TEST_CASE("logits agree with Hugging Face transformers, and across layouts") {
  const std::string name = GENERATE("silu_grouped", "relu_tied", "silu_wide_heads");
  const RandomWeights weights(oracle_shapes().at(name));
  const auto tokens = oracle_tokens(weights.shape().vocab_size);
  const auto golden = load_npy(std::string(THERMOCLINE_SOURCE_DIR) +
                               "/tests/oracles/llama_logits/" + name + ".npy");
  const auto one = run_locally(weights, forced_run(tokens, 20, "pp1,tp1"));
  INFO(name);
  CHECK(relative_difference(golden, one.logits) < 1e-4);

  const uint32_t tensor_max = weights.shape().kv_head_count;
  for (const std::string layout : {"pp1,tp2", "pp2,tp1", "pp2,tp2", "pp1,tp3", "pp1,tp4"}) {
    if (static_cast<uint32_t>(layout.back() - '0') > tensor_max) continue;
    const auto many = run_locally(weights, forced_run(tokens, 20, layout));
    INFO(layout);
    CHECK(relative_difference(one.logits, many.logits) < 1e-5);
    CHECK(one.active == many.active);
  }
}

TEST_CASE("bits do not depend on chunks, threads or what observes") {
  const RandomWeights weights(oracle_shapes().at("relu_tied"));
  const auto tokens = oracle_tokens(80);
  const std::string layout = GENERATE("pp1,tp1", "pp1,tp3", "pp3,tp1", "pp2,tp2");
  const auto whole = run_locally(weights, forced_run(tokens, 39, layout));
  LocalRunOptions by_token = forced_run(tokens, 1, layout);
  by_token.chunk_max = 1;
  CHECK(run_locally(weights, by_token).logits == whole.logits);
  LocalRunOptions chunked = forced_run(tokens, 33, layout);
  chunked.chunk_max = 7;
  chunked.threads = 3;
  const auto other = run_locally(weights, chunked);
  CHECK(other.logits == whole.logits);
  CHECK(other.active == whole.active);
}

TEST_CASE("weights of every type run in every layout and agree with double precision") {
  ModelShape shape = oracle_shapes().at("silu_grouped");
  shape.head_dim = 16;
  const FfnActivation activation =
      GENERATE(FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu);
  shape.activation = activation;
  shape.fatrelu_threshold = 0.125f;
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1,
                               DType::q5_0, DType::q5_1, DType::q4_k, DType::q5_k, DType::q6_k);
  if (facts(dtype).items_per_block == 256) {  // rows, and a rank's columns of o, are whole blocks
    shape.model_dim = 256;
    shape.head_count = 8;
    shape.head_dim = 64;
  }
  const RandomWeights weights(shape, dtype);
  const auto tokens = oracle_tokens(shape.vocab_size, 12);
  const DoubleRun exact = run_in_double(weights, tokens);
  const std::vector<float> expected(exact.logits.begin(), exact.logits.end());
  for (const std::string layout : {"pp1,tp1", "pp1,tp2", "pp2,tp2"}) {
    const auto run = run_locally(weights, forced_run(tokens, 5, layout));
    INFO(facts(dtype).name << " " << name_of(activation) << " " << layout);
    // Inputs of quantised weights are rounded to 1 / 65278 of the largest of their block, which
    // every layer passes on.
    const bool fixed = facts(dtype).items_per_block > 1;
    CHECK(relative_difference(expected, run.logits) < (fixed ? 2e-4 : 1e-5));
  }
}

// The activation rule in double precision.
std::vector<uint8_t> active_in_double(const ModelShape& shape, const std::vector<double>& gate,
                                      double silu_threshold) {
  std::vector<uint8_t> active;
  for (const double g : gate) {
    const double silu = g / (1 + std::exp(-g));
    active.push_back(shape.activation == FfnActivation::relu ? g > 0
                     : shape.activation == FfnActivation::fatrelu
                         ? g >= shape.fatrelu_threshold
                         : std::fabs(silu) > silu_threshold);
  }
  return active;
}

TEST_CASE("recorded bits equal a dense recomputation in double precision") {
  ModelShape shape = oracle_shapes().at("silu_wide_heads");
  shape.activation = GENERATE(FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu);
  shape.fatrelu_threshold = 0.25f;
  const RandomWeights weights(shape);
  const auto tokens = oracle_tokens(shape.vocab_size);
  const DoubleRun exact = run_in_double(weights, tokens);
  LocalRunOptions options = forced_run(tokens, 10, GENERATE("pp1,tp1", "pp1,tp3", "pp2,tp2"));
  options.silu_threshold = 0.25f;
  const auto run = run_locally(weights, options);
  CHECK(run.active == active_in_double(shape, exact.gate, 0.25));
  const double share = std::accumulate(run.active.begin(), run.active.end(), 0.0) /
                       static_cast<double>(run.active.size());
  CHECK(share > 0.1);  // the comparison is about something
  CHECK(share < 0.9);
}

TEST_CASE("recorded bits of the tiny preset equal a dense recomputation in double precision") {
  const ModelSpec spec =
      parse_model_spec("preset:tiny,type=" + std::string(GENERATE("f32", "q8_0", "q4_0")));
  const auto weights = make_synthetic_weights(spec);
  const auto tokens = oracle_tokens(spec.shape.vocab_size, 16);
  const DoubleRun exact = run_in_double(*weights, tokens);
  const auto run = run_locally(*weights, forced_run(tokens, 10, "pp2,tp2"));
  CHECK(run.active == active_in_double(spec.shape, exact.gate, 0));
}

TEST_CASE("a SiLU model's activation threshold changes what is recorded, not what is computed") {
  const RandomWeights weights(oracle_shapes().at("silu_grouped"));
  const auto tokens = oracle_tokens(96);
  LocalRunOptions options = forced_run(tokens, 20, "pp1,tp2");
  const auto all = run_locally(weights, options);
  options.silu_threshold = 0.2f;
  const auto some = run_locally(weights, options);
  CHECK(some.logits == all.logits);
  const auto count = [](const LocalRunResult& run) {
    return std::count(run.active.begin(), run.active.end(), 1);
  };
  CHECK(count(all) == static_cast<int64_t>(all.active.size()));
  CHECK(count(some) < count(all));
}

}  // namespace
}  // namespace thermocline::test
