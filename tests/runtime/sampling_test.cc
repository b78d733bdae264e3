// Sampled tokens and stop strings in the engine: the same for any batch, layout and threads.
#include <algorithm>
#include <catch2/catch.hpp>
#include <limits>

#include "models/error.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"

namespace thermocline::test {
namespace {

// Vocabulary of the byte tokenizer.
ModelShape byte_shape() {
  return {.layer_count = 2,
          .model_dim = 48,
          .ffn_dim = 136,
          .head_count = 6,
          .kv_head_count = 2,
          .head_dim = 8,
          .vocab_size = 259,
          .context_length = 64};
}

// Three tasks, two samples of each.
std::vector<TaskInput> sampled_tasks() {
  std::vector<TaskInput> tasks;
  for (const uint32_t length : {9u, 1u, 20u}) {
    for (const uint32_t sample : {0u, 1u}) {
      TaskInput task;
      task.index = static_cast<uint32_t>(tasks.size());
      task.task_id = 11 + static_cast<int32_t>(length);
      for (uint32_t i = 0; i < length; ++i) {
        task.prompt.push_back(static_cast<int32_t>((length + 31 * i * i) % 259));
      }
      task.new_token_max = 5 + length;
      task.sample = sample;
      tasks.push_back(task);
    }
  }
  return tasks;
}

LocalRunOptions options_of(const std::string& layout, uint32_t batch) {
  LocalRunOptions options;
  options.layout = layout;
  options.tasks = sampled_tasks();
  options.batch = batch;
  options.chunk_max = 6;
  options.logits = false;
  options.sampling = {0.9, 0.95, 5};
  return options;
}

using Tokens = std::vector<std::vector<int32_t>>;

Tokens tokens_of(const LocalRunResult& run) {
  Tokens tokens;
  for (const TaskResult& task : run.tasks) tokens.push_back(task.tokens);
  return tokens;
}

TEST_CASE("sampled tokens are the same for any batch, ranks and threads") {
  const RandomWeights weights(byte_shape());
  const Tokens alone = tokens_of(run_locally(weights, options_of("pp1,tp1", 1)));
  CHECK(alone[0] != alone[1]);  // another sample of the same task
  for (const std::string layout : {"pp1,tp1", "pp1,tp2", "pp2,tp1", "pp2,tp2"}) {
    for (const uint32_t batch : {1u, 4u}) {
      INFO(layout << " batch " << batch);
      LocalRunOptions options = options_of(layout, batch);
      options.threads = batch == 4 ? 2 : 1;
      const auto run = run_locally(weights, options);
      CHECK(tokens_of(run) == alone);
      for (const uint32_t steps : run.step_counts) CHECK(steps == run.step_counts[0]);
    }
  }
}

TEST_CASE("a sample does not depend on the tasks that run beside it, but on the seed") {
  const RandomWeights weights(byte_shape());
  LocalRunOptions options = options_of("pp1,tp2", 3);
  const Tokens all = tokens_of(run_locally(weights, options));
  options.sampling.seed = 6;
  CHECK(tokens_of(run_locally(weights, options)) != all);
  options.sampling.seed = 5;
  for (const size_t picked : {1u, 4u}) {
    options.tasks = {sampled_tasks()[picked]};
    options.tasks[0].index = 0;
    options.batch = 1;
    CHECK(tokens_of(run_locally(weights, options))[0] == all[picked]);
  }
}

TEST_CASE("each sampled token is the one that its own step's logits, seed and position give") {
  const RandomWeights weights(byte_shape());
  LocalRunOptions options = options_of("pp1,tp2", 3);
  options.logits = true;
  const auto run = run_locally(weights, options);
  const uint32_t width = weights.shape().vocab_size;
  uint64_t checked = 0;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const StepInfo& step = run.steps[i];
    const TaskInput& task = options.tasks[step.task];
    const uint32_t next = step.position + 1;
    if (next < task.prompt.size()) continue;
    const auto& tokens = run.tasks[step.task].tokens;
    const size_t place = next - task.prompt.size();
    if (place >= tokens.size()) continue;
    const std::span<const float> logits(run.logits.data() + i * width, width);
    CHECK(tokens[place] ==
          Sampler(options.sampling).draw(logits, {task.task_id, task.sample, next}));
    ++checked;
  }
  CHECK(checked == 2 * (14 + 6 + 25));
  options.logits = false;
  CHECK(tokens_of(run_locally(weights, options)) == tokens_of(run));
}

TEST_CASE("a temperature close to 0 decodes what greedy decoding does") {
  const RandomWeights weights(byte_shape());
  LocalRunOptions options = options_of("pp2,tp2", 4);
  options.sampling = {1e-9, 1.0, 5};
  const Tokens cold = tokens_of(run_locally(weights, options));
  options.sampling = {};
  CHECK(tokens_of(run_locally(weights, options)) == cold);
}

// Weights whose logits are none.
class DamagedWeights final : public WeightSource {
 public:
  explicit DamagedWeights(const ModelShape& shape) : weights_(shape) {}
  const ModelShape& shape() const override { return weights_.shape(); }
  DType dtype(Matrix matrix, uint32_t layer) const override {
    return weights_.dtype(matrix, layer);
  }
  std::string provenance() const override { return weights_.provenance(); }
  std::string hash() const override { return weights_.hash(); }
  void read(Matrix matrix, uint32_t layer, const MatrixSlice& slice,
            std::byte* out) const override {
    weights_.read(matrix, layer, slice, out);
  }
  void read(NormVector vector, uint32_t layer, float* out) const override {
    weights_.read(vector, layer, out);
    if (vector == NormVector::output_norm) out[3] = std::numeric_limits<float>::quiet_NaN();
  }

 private:
  RandomWeights weights_;
};

TEST_CASE("logits that are not finite are the error that they are to greedy decoding") {
  const DamagedWeights weights(byte_shape());
  LocalRunOptions options = options_of(GENERATE("pp1,tp1", "pp1,tp2"), 1);
  if (GENERATE(true, false)) options.sampling = {};
  CHECK_THROWS_WITH(run_locally(weights, options), Catch::Contains("not a finite number"));
}

// What each task decodes where nothing stops it, cut at `stop`, with the tokens that this takes.
struct Expected {
  std::string text;
  size_t token_count;
};
Expected cut(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens,
             const std::string& stop) {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    text += tokenizer.decode(3, tokens[i]);
    const size_t end = text.find(stop);
    if (end != std::string::npos) return {text.substr(0, end), i + 1};
  }
  return {text, tokens.size()};
}

TEST_CASE("a stop string across tokens ends its task on every rank at the same token") {
  const auto tokenizer = make_byte_tokenizer();
  const RandomWeights weights(byte_shape());
  LocalRunOptions options = options_of("pp1,tp1", 1);
  if (GENERATE(true, false)) options.sampling = {};
  const auto free = run_locally(weights, options);
  // Three bytes, a token each, from the middle of what the first task says.
  std::string said;
  for (size_t i = 4; i < 7; ++i) said += tokenizer->decode(3, free.tasks[0].tokens[i]);
  REQUIRE(said.size() >= 2);
  options.stop = {{}, {"never to be found", said}, tokenizer.get()};
  for (const std::string layout : {"pp1,tp1", "pp1,tp2", "pp2,tp2"}) {
    for (const uint32_t batch : {1u, 4u}) {
      INFO(layout << " batch " << batch);
      options.layout = layout;
      options.batch = batch;
      const auto run = run_locally(weights, options);
      CHECK(run.tasks[0].tokens.size() <= 7);
      for (size_t i = 0; i < run.tasks.size(); ++i) {
        const auto& tokens = run.tasks[i].tokens;
        const Expected expected = cut(*tokenizer, free.tasks[i].tokens, said);
        CHECK(tokens.size() == expected.token_count);
        CHECK(std::equal(tokens.begin(), tokens.end(), free.tasks[i].tokens.begin()));
        CHECK(decoded_text(options.stop, 3, tokens).text == expected.text);
      }
      for (const uint32_t steps : run.step_counts) CHECK(steps == run.step_counts[0]);
    }
  }
}

}  // namespace
}  // namespace thermocline::test
