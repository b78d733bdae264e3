// Batches: what a task computes does not depend on how many are in flight; and what observers see.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "tests/runtime/double_decoder.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"

namespace thermocline::test {
namespace {

ModelShape shape_of(FfnActivation activation) {
  return {.layer_count = 2,
          .model_dim = 48,
          .ffn_dim = 136,
          .head_count = 6,
          .kv_head_count = 2,
          .head_dim = 8,
          .vocab_size = 80,
          .context_length = 48,
          .activation = activation,
          .fatrelu_threshold = 0.25f};
}

std::vector<int32_t> tokens_from(uint32_t seed, uint32_t count) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < count; ++i) tokens.push_back((seed + 11 * i * i + 3 * i) % 80);
  return tokens;
}

// Of different lengths: the first outlives those behind it, and one ends with its prefill.
std::vector<TaskInput> tasks_of(bool forced) {
  const std::vector<std::pair<uint32_t, uint32_t>> lengths = {{9, 14}, {1, 2}, {20, 1},
                                                              {5, 7},  {3, 3}, {12, 5}};
  std::vector<TaskInput> tasks;
  for (const auto& length : lengths) {
    TaskInput task;
    task.index = static_cast<uint32_t>(tasks.size());
    task.task_id = 100 + static_cast<int32_t>(task.index);
    task.prompt = tokens_from(task.index + 1, length.first);
    if (forced) {
      task.forced = tokens_from(task.index + 30, length.second);
    } else {
      task.new_token_max = length.second;
    }
    tasks.push_back(task);
  }
  return tasks;
}

// What a run says of each task's steps, in order of position.
struct TaskView {
  std::vector<StepInfo> steps;  // pass cleared
  std::vector<uint8_t> active;
  std::vector<float> logits;
};

std::map<uint32_t, TaskView> by_task(const LocalRunResult& run, const ModelShape& shape) {
  std::map<uint32_t, TaskView> tasks;
  const auto append = [](auto& to, const auto& from, uint64_t at, uint64_t width) {
    const auto first = from.begin() + static_cast<std::ptrdiff_t>(at * width);
    to.insert(to.end(), first, first + static_cast<std::ptrdiff_t>(width));
  };
  for (uint64_t i = 0; i < run.steps.size(); ++i) {
    TaskView& task = tasks[run.steps[i].task];
    CHECK(run.steps[i].position == task.steps.size());  // each once, in order
    task.steps.push_back(run.steps[i]);
    task.steps.back().pass = 0;
    append(task.active, run.active, i, shape.neuron_count());
    append(task.logits, run.logits, i, shape.vocab_size);
  }
  return tasks;
}

void check_same(const std::vector<TaskInput>& tasks, const LocalRunResult& one,
                const LocalRunResult& many, const ModelShape& shape) {
  auto alone = by_task(one, shape), together = by_task(many, shape);
  REQUIRE(alone.size() == tasks.size());
  REQUIRE(together.size() == tasks.size());
  for (const TaskInput& task : tasks) {
    INFO("task " << task.index);
    const TaskView &a = alone[task.index], &b = together[task.index];
    CHECK(many.tasks[task.index].tokens == one.tasks[task.index].tokens);
    CHECK(a.steps == b.steps);
    CHECK(a.active == b.active);
    CHECK(a.logits == b.logits);
  }
}

LocalRunOptions options_of(const std::vector<TaskInput>& tasks, const std::string& layout,
                           uint32_t batch) {
  LocalRunOptions options;
  options.layout = layout;
  options.tasks = tasks;
  options.batch = batch;
  options.chunk_max = 6;
  options.silu_threshold = 0.25f;
  return options;
}

TEST_CASE("tokens, logits and active sets of each task are those of batch 1, bit for bit") {
  const FfnActivation activation = GENERATE(FfnActivation::relu, FfnActivation::silu);
  const RandomWeights weights(shape_of(activation), GENERATE(DType::f32, DType::bf16));
  const bool forced = GENERATE(false, true);
  const auto tasks = tasks_of(forced);
  for (const std::string layout : {"pp1,tp1", "pp1,tp2", "pp2,tp2"}) {
    const auto one = run_locally(weights, options_of(tasks, layout, 1));
    for (const uint32_t batch : {2u, 3u, 8u}) {
      INFO(layout << " batch " << batch << (forced ? " forced" : " greedy"));
      LocalRunOptions options = options_of(tasks, layout, batch);
      options.threads = batch == 3 ? 3 : 1;
      check_same(tasks, one, run_locally(weights, options), weights.shape());
    }
  }
}

TEST_CASE("quantised weights give each task the same bits in any batch") {
  ModelShape shape = shape_of(FfnActivation::relu);
  shape.model_dim = 64;
  shape.head_count = 4;
  shape.head_dim = 32;
  const RandomWeights weights(shape, GENERATE(DType::q8_0, DType::q4_0));
  const auto tasks = tasks_of(false);
  const auto one = run_locally(weights, options_of(tasks, "pp1,tp2", 1));
  for (const uint32_t batch : {2u, 3u, 8u}) {
    INFO(batch);
    check_same(tasks, one, run_locally(weights, options_of(tasks, "pp1,tp2", batch)), shape);
  }
}

TEST_CASE("a stop token or a full context ends one task and no other") {
  const RandomWeights weights(shape_of(FfnActivation::relu));
  auto tasks = tasks_of(false);
  for (TaskInput& task : tasks) task.new_token_max = 60;  // the context holds 48
  auto options = options_of(tasks, "pp1,tp2", 1);
  const auto free = run_locally(weights, options);
  options.stop.tokens = {free.tasks[3].tokens[6]};
  const auto one = run_locally(weights, options);
  CHECK(one.tasks[3].tokens.size() <= 7);
  CHECK(one.steps.size() < free.steps.size());
  options.batch = 3;
  check_same(tasks, one, run_locally(weights, options), weights.shape());
}

TEST_CASE("steps of one pass share its number, and the batch stays full") {
  const RandomWeights weights(shape_of(FfnActivation::relu));
  const auto tasks = tasks_of(true);
  const auto run = run_locally(weights, options_of(tasks, "pp2,tp1", 3));
  std::map<uint32_t, std::vector<StepInfo>> passes;
  uint32_t last = 0;
  for (const StepInfo& step : run.steps) {
    CHECK((step.pass == last || step.pass == last + 1));
    last = step.pass;
    passes[step.pass].push_back(step);
  }
  std::vector<uint64_t> left;  // steps, of each task
  for (const TaskInput& task : tasks) left.push_back(task.prompt.size() + task.forced.size());
  for (const auto& entry : passes) {
    const std::vector<StepInfo>& steps = entry.second;
    for (const StepInfo& step : steps) {
      CHECK(step.phase == steps[0].phase);
      --left[step.task];
      if (step.phase == Phase::prefill) CHECK(step.task == steps[0].task);
    }
    if (steps[0].phase == Phase::prefill) {
      CHECK(steps.size() <= 6);
      continue;
    }
    // Fewer than three decode only where fewer than three tasks were left.
    const auto open = std::count_if(left.begin(), left.end(), [](uint64_t n) { return n > 0; });
    CHECK((steps.size() == 3 || open < 3));
  }
}

TEST_CASE("task records come in the order of the tasks, and name each task's first step") {
  const RandomWeights weights(shape_of(FfnActivation::relu));
  const auto tasks = tasks_of(GENERATE(false, true));
  const uint32_t batch = GENERATE(1u, 2u, 4u);
  const auto run = run_locally(weights, options_of(tasks, "pp1,tp1", batch));
  REQUIRE(run.records.size() == tasks.size());
  for (uint32_t i = 0; i < tasks.size(); ++i) {
    const TaskRecord& record = run.records[i];
    CHECK(record.task_id == tasks[i].task_id);
    CHECK(record.prompt_tokens == tasks[i].prompt.size());
    CHECK(record.generated == run.tasks[i].tokens);
    const auto of_task = [i](const StepInfo& step) { return step.task == i; };
    const auto first = std::find_if(run.steps.begin(), run.steps.end(), of_task);
    CHECK(record.step_begin == static_cast<uint64_t>(first - run.steps.begin()));
    CHECK(record.step_count == std::count_if(run.steps.begin(), run.steps.end(), of_task));
    CHECK(run.tasks[i].tpot_ns.size() == record.step_count - record.prompt_tokens);
  }
}

TEST_CASE(
    "an interruption ends all tasks in flight, and the tasks behind one of them are not recorded") {
  const RandomWeights weights(shape_of(FfnActivation::relu));
  static int asked;
  asked = 0;
  auto options = options_of(tasks_of(true), "pp1,tp1", 3);
  options.interrupted = [] { return ++asked == 14; };
  const auto run = run_locally(weights, options);
  CHECK(run.records.empty());  // the first was still in flight
  CHECK(run.tasks[0].interrupted);
  CHECK(!run.tasks[1].interrupted);  // ended before
  CHECK(run.tasks[1].step_count == 3);
  CHECK(run.tasks[5].step_count == 0);  // never began
  uint64_t steps = 0;
  for (const TaskResult& task : run.tasks) steps += task.step_count;
  CHECK(steps == run.steps.size());
}

TEST_CASE("recorded magnitudes are those of double precision, and say what was active") {
  const FfnActivation activation =
      GENERATE(FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu);
  const RandomWeights weights(shape_of(activation));
  const auto tokens = tokens_from(5, 30);
  auto options = options_of({}, GENERATE("pp1,tp1", "pp2,tp2"), 1);
  options.prompt.assign(tokens.begin(), tokens.begin() + 20);
  options.forced.assign(tokens.begin() + 20, tokens.end());
  options.threads = 2;
  options.magnitudes_every = 1;
  const auto run = run_locally(weights, options);
  const DoubleRun exact = run_in_double(weights, tokens);
  REQUIRE(run.magnitudes.size() == exact.gate.size());
  uint64_t wrong = 0, inactive = 0;
  for (size_t i = 0; i < exact.gate.size(); ++i) {
    const double g = exact.gate[i];
    const double expected = activation == FfnActivation::silu   ? std::fabs(g / (1 + std::exp(-g)))
                            : activation == FfnActivation::relu ? std::max(g, 0.0)
                            : g >= 0.25                         ? g
                                                                : 0.0;
    const float found = run.magnitudes[i];
    if (std::fabs(double{found} - expected) > 1e-5 * (1 + expected)) ++wrong;
    const bool active = activation == FfnActivation::relu ? found > 0.0f : found > 0.2499999f;
    if (active != (run.active[i] == 1)) ++wrong;
    inactive += run.active[i] == 0;
  }
  CHECK(wrong == 0);
  CHECK(inactive > 0);
}

TEST_CASE("magnitudes come with every k-th step of the run, and change no bit") {
  const RandomWeights weights(shape_of(FfnActivation::silu));
  const auto tasks = tasks_of(true);
  const auto plain = run_locally(weights, options_of(tasks, "pp1,tp2", 3));
  auto options = options_of(tasks, "pp1,tp2", 3);
  options.magnitudes_every = 1;
  const auto all = run_locally(weights, options);
  CHECK(all.logits == plain.logits);
  CHECK(all.active == plain.active);
  options.magnitudes_every = GENERATE(2u, 5u, 1000u);
  const auto some = run_locally(weights, options);
  CHECK(some.logits == plain.logits);
  const uint64_t width = weights.shape().neuron_count();
  for (uint64_t i = 0; i < all.magnitudes.size(); ++i) {
    const bool sampled = i / width % options.magnitudes_every == 0;
    if (some.magnitudes[i] != (sampled ? all.magnitudes[i] : -1.0f)) FAIL("neuron " << i);
    if (all.magnitudes[i] < 0) FAIL("a step without magnitudes");
  }
}

}  // namespace
}  // namespace thermocline::test
