// The activity process held to what its regimes ask for, counted independently; its bits held to
// their probabilities, and to being the same however they are made.
#include "traces/activity_process.h"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>

#include "models/error.h"
#include "models/hash.h"
#include "traces/bernoulli_bits.h"
#include "traces/statistics.h"
#include "traces/synthetic_tasks.h"
#include "traces/top_fifth.h"

namespace thermocline::test {
namespace {

ModelSpec spec_of(const std::string& preset, uint32_t ffn_dim) {
  ModelSpec spec = parse_model_spec("preset:" + preset);
  spec.shape.ffn_dim = ffn_dim;
  return spec;
}

StatisticsOptions counted() {
  StatisticsOptions options;
  options.lags = {1, 4, 10};
  options.windows = {4, 5};
  return options;
}

// Tasks of the same length, one after the other.
TraceStatistics count(ActivityProcess& process, uint32_t tasks, uint32_t steps) {
  StatisticsCounter counter(process.pool(), counted());
  const uint64_t stride = process.pool().words_per_step();
  std::vector<uint64_t> words(steps * stride);
  for (uint32_t task = 0; task < tasks; ++task) {
    process.start_task(task);
    process.next(steps, words, {});
    for (uint32_t i = 0; i < steps; ++i) {
      counter.add({0, i, task, Phase::decode, 0}, std::span(words).subspan(i * stride, stride));
    }
  }
  return counter.finish();
}

TraceStatistics count(const ModelSpec& spec, const ActivityProcessOptions& options, uint32_t tasks,
                      uint32_t steps) {
  ActivityProcess process(spec, options);
  return count(process, tasks, steps);
}

std::vector<uint64_t> bits_of(ActivityProcess& process, uint32_t task, uint32_t steps) {
  std::vector<uint64_t> words(steps * process.pool().words_per_step());
  process.start_task(task);
  process.next(steps, words, {});
  return words;
}

std::string hash_of(const std::vector<uint64_t>& words) {
  Fnv1a hash;
  for (const uint64_t word : words) hash.add_value(word);
  return hash.hex();
}

// The rows of activations.md section 3.6: Beta of mean m and c, correlation rho, 80 % point.
struct Published {
  std::string regime;
  double m, c, rho, share_80;

  double moment(int order) const {  // E[pi^order]
    double product = 1;
    for (int i = 0; i < order; ++i) product *= (m * c + i) / (c + i);
    return product;
  }
  // U(k) = 1 - E[(1 - pi) (1 - pi (1 - rho))^(k-1)], the power by its binomial sum.
  double in_union(int window) const {
    double sum = 0, factor = 1;
    for (int i = 0; i < window; ++i) {
      sum += factor * (moment(i) - moment(i + 1));
      factor *= -(1 - rho) * (window - 1 - i) / (i + 1);
    }
    return 1 - sum;
  }
  double overlap(int lag) const {
    const double plateau = (m * c + 1) / (c + 1);
    return plateau + std::pow(rho, lag) * (1 - plateau);
  }
};

TEST_CASE("each regime does what was published of it") {
  const auto published = GENERATE(Published{"flash-opt", 0.10, 3.16, 0.35, 0.269},
                                  Published{"hermes", 0.28, 0.714, 0.65, 0.29},
                                  Published{"powerinfer,profile=flat", 0.10, 8.46, 0.1, 0.43},
                                  Published{"prosparse,profile=flat", 0.11, 7.6, 0.35, 0.43},
                                  Published{"relullama-dynamicinfer", 0.20, 3.66, 0.1, 0.43},
                                  Published{"relullama-teal,profile=flat", 0.28, 2.26, 0.1, 0.43},
                                  Published{"swiglu", 0.50, 9.6, 0.1, 0.69});
  INFO(published.regime);
  const ModelSpec spec = spec_of("relullama-70b,layers=1,regime=" + published.regime, 8192);
  ActivityProcess process(spec, {});
  const ActivityStatistics found = count(process, 2, 600).whole;
  CHECK(*found.mean_activity == Approx(published.m).margin(0.01));
  CHECK(*found.share_80 == Approx(published.share_80).margin(0.02));
  CHECK(*found.unions[1] == Approx(published.in_union(5)).margin(0.02));
  CHECK(*found.fresh[1] == Approx(published.in_union(6) - published.in_union(5)).margin(0.005));
  CHECK(*found.overlap[0] == Approx(published.overlap(1)).margin(0.02));
  CHECK(*found.overlap[2] == Approx(published.overlap(10)).margin(0.02));
  // What the command prints as asked.
  CHECK(*found.mean_activity == Approx(process.mean_activity()).margin(0.005));
  CHECK(*found.share_80 == Approx(process.share_80()).margin(0.01));
  CHECK(*found.unions[1] == Approx(*process.in_union(5)).margin(0.005));
  CHECK(*found.fresh[1] == Approx(*process.fresh(5)).margin(0.002));
  CHECK(*found.overlap[0] == Approx(process.overlap(1)).margin(0.005));
  CHECK(*found.overlap[2] == Approx(process.overlap(10)).margin(0.005));
}

TEST_CASE("adjacent tokens share 90 % by Hermes and 40 to 46 % by DynamicInfer") {
  const auto adjacent = [](const std::string& regime) {
    return *count(spec_of("relullama-70b,layers=1,regime=" + regime, 8192), {}, 1, 200)
                .whole.overlap[0];
  };
  CHECK(adjacent("hermes") == Approx(0.90).margin(0.01));
  CHECK(adjacent("relullama-dynamicinfer") == Approx(0.43).margin(0.03));
}

TEST_CASE("flash-opt: four tokens use 21.3 %, five 24 %, the next 2.4 % more") {
  const ActivityStatistics found = count(spec_of("opt-like,layers=1", 28672), {}, 1, 300).whole;
  CHECK(*found.unions[0] == Approx(0.213).margin(0.02));
  CHECK(*found.unions[1] == Approx(0.240).margin(0.02));
  CHECK(*found.fresh[1] == Approx(0.0238).margin(0.005));
}

TEST_CASE("layers have the density that their profile says") {
  const TraceStatistics teal = count(spec_of("relullama-70b,layers=4,take=even", 4096), {}, 1, 200);
  const double published[] = {0.28105, 0.28690, 0.27301, 0.26382};  // layers 10, 30, 50, 70
  for (int i = 0; i < 4; ++i) {
    CHECK(*teal.layers[i].mean_activity == Approx(published[i]).margin(0.01));
  }
  const TraceStatistics spread =
      count(spec_of("relullama-70b,regime=powerinfer,layers=8,take=even", 2048), {}, 1, 500);
  CHECK(*spread.whole.share_80 == Approx(0.26).margin(0.02));  // of a model
  CHECK(*spread.layers[3].share_80 == Approx(0.43).margin(0.02));
}

// The most active fifth by rate, which no counting blurs.
double fifth_kept(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b) {
  const std::vector<uint32_t> wide_a(a.begin(), a.end()), wide_b(b.begin(), b.end());
  return top_fifth_overlap(wide_a, wide_b);
}

std::vector<uint16_t> rates_of(ActivityProcess& process, uint32_t task, uint32_t layer) {
  process.start_task(task);
  return {process.rates(layer).begin(), process.rates(layer).end()};
}

TEST_CASE("drift is the share of the most active fifth that changes with the task") {
  const double drift = GENERATE(0.0, 0.2, 0.5, 0.7);
  const std::string regime = GENERATE("hermes", "relullama-dynamicinfer");
  INFO(regime << ", drift " << drift);
  ActivityProcess process(
      spec_of("relullama-70b,layers=2,regime=" + regime + ",drift=" + std::to_string(drift), 28672),
      {});
  for (uint32_t layer = 0; layer < 2; ++layer) {
    const double kept = fifth_kept(rates_of(process, 0, layer), rates_of(process, 1, layer));
    CHECK(1 - kept == Approx(drift).margin(0.02));
  }
  CHECK(process.task_overlap() == Approx(1 - drift));
  CHECK(ActivityProcess::redraw_share_of(drift) == Approx(process.redraw_share()).margin(1e-4));
}

TEST_CASE("drift shows in what is counted, and leaves each task as it was") {
  const std::string preset = "relullama-70b,layers=1,regime=hermes,drift=";
  const ActivityStatistics still = count(spec_of(preset + "0", 2048), {}, 4, 1500).whole;
  const ActivityStatistics drifting = count(spec_of(preset + "0.5", 2048), {}, 4, 1500).whole;
  // Counting a finite task blurs places in both alike.
  CHECK(*drifting.sequence_overlap / *still.sequence_overlap == Approx(0.5).margin(0.04));
  CHECK(*drifting.mean_activity == Approx(0.28).margin(0.01));
  CHECK(*drifting.sequence_share_80 == Approx(*still.sequence_share_80).margin(0.02));
  CHECK(*drifting.overlap[0] == Approx(*still.overlap[0]).margin(0.02));
  CHECK(*drifting.share_80 > *still.share_80 + 0.05);
}

TEST_CASE("tasks of one topic have the same rates") {
  ActivityProcessOptions options;
  options.topic_count = 3;
  ActivityProcess process(spec_of("relullama-70b,layers=2,drift=0.5", 1024), options);
  std::map<uint32_t, std::vector<uint16_t>> by_topic;
  for (uint32_t task = 0; task < 30; ++task) {
    REQUIRE(process.topic_of(task) < 3);
    const std::vector<uint16_t> rates = rates_of(process, task, 1);
    const auto [known, fresh] = by_topic.emplace(process.topic_of(task), rates);
    CHECK(known->second == rates);
  }
  REQUIRE(by_topic.size() == 3);
  CHECK(fifth_kept(by_topic[0], by_topic[1]) == Approx(0.5).margin(0.1));
  CHECK(process.task_overlap() == Approx(1 - 2.0 / 3 * 0.5));
  // Another text meets the same topics; a task's own topic is its text's.
  options.text_seed = 2;
  ActivityProcess other(spec_of("relullama-70b,layers=2,drift=0.5", 1024), options);
  uint32_t task = 0;
  while (other.topic_of(task) != 0) ++task;
  CHECK(rates_of(other, task, 1) == by_topic[0]);
  CHECK(other.weight_hash() == process.weight_hash());
}

// Correlation over the steps, between two layers, of how many neurons fire that lean to the state.
double layer_correlation(ActivityProcess& process, const ActivityProcess& leaning, uint32_t tasks,
                         uint32_t steps) {
  const NeuronPool& pool = process.pool();
  double sum[2] = {}, squares[2] = {}, product = 0;
  for (uint32_t task = 0; task < tasks; ++task) {
    const std::vector<uint64_t> words = bits_of(process, task, steps);
    for (uint32_t step = 0; step < steps; ++step) {
      const auto of_step =
          std::span(words).subspan(step * pool.words_per_step(), pool.words_per_step());
      double fired[2] = {};
      for_each_bit(pool, of_step, [&](uint32_t flat) {
        const uint32_t layer = flat / pool.neuron_count;
        fired[layer] += leaning.leans(layer, flat % pool.neuron_count);
      });
      for (int layer = 0; layer < 2; ++layer) {
        sum[layer] += fired[layer];
        squares[layer] += fired[layer] * fired[layer];
      }
      product += fired[0] * fired[1];
    }
  }
  const double n = tasks * steps;
  const auto deviation = [&](int i) { return std::sqrt(squares[i] / n - sum[i] * sum[i] / n / n); };
  return (product / n - sum[0] * sum[1] / n / n) / (deviation(0) * deviation(1));
}

TEST_CASE("a swing ties layers together and leaves every neuron its rate") {
  const ModelSpec spec = spec_of("relullama-70b,layers=2,regime=relullama-dynamicinfer", 512);
  ActivityProcessOptions options;
  options.swing = 0.5;
  ActivityProcess process(spec, options);
  const ActivityStatistics found = count(process, 40, 250).whole;
  CHECK(*found.mean_activity == Approx(0.20).margin(0.01));
  for (int i = 0; i < 3; ++i) {
    const uint32_t lag = counted().lags[i];
    CHECK(*found.overlap[i] == Approx(process.overlap(lag)).margin(0.01));
  }
  CHECK(*found.overlap[0] > ActivityProcess(spec, {}).overlap(1) + 0.015);
  CHECK(!process.in_union(5).has_value());
  CHECK(layer_correlation(process, process, 12, 250) > 0.5);
  ActivityProcess still(spec, {});
  CHECK(std::abs(layer_correlation(still, process, 12, 250)) < 0.1);
}

TEST_CASE("guesses have the recall and the precision that were asked for, in each layer") {
  ActivityProcessOptions options;
  options.predictor = {0.95, 0.6};
  ActivityProcess process(spec_of("relullama-70b,regime=powerinfer,layers=4,take=even", 4100),
                          options);
  constexpr uint32_t kSteps = 200;
  const NeuronPool& pool = process.pool();
  std::vector<uint64_t> active(kSteps * pool.words_per_step()), predicted(active.size());
  process.start_task(3);
  process.next(kSteps, active, predicted);
  for (uint32_t layer = 0; layer < 4; ++layer) {
    uint64_t fired = 0, guessed = 0, both = 0;
    for (uint32_t step = 0; step < kSteps; ++step) {
      const uint64_t begin = step * pool.words_per_step() + layer * pool.words_per_layer();
      for (uint64_t i = begin; i < begin + pool.words_per_layer(); ++i) {
        fired += static_cast<uint64_t>(std::popcount(active[i]));
        guessed += static_cast<uint64_t>(std::popcount(predicted[i]));
        both += static_cast<uint64_t>(std::popcount(active[i] & predicted[i]));
      }
      CHECK(predicted[begin + pool.words_per_layer() - 1] >> 4 == 0);  // 4100 = 64 * 64 + 4
    }
    CHECK(static_cast<double>(both) / fired == Approx(0.95).margin(0.01));
    CHECK(static_cast<double>(both) / guessed == Approx(0.6).margin(0.02));
  }
  // Active bits are the same whoever guesses, and nobody guesses at random better than by chance.
  ActivityProcess plain(spec_of("relullama-70b,regime=powerinfer,layers=4,take=even", 4100), {});
  CHECK(bits_of(plain, 3, kSteps) == active);
  options.predictor = {0.95, 0.05};
  CHECK_THROWS_AS(ActivityProcess(spec_of("swiglu-70b,layers=1", 512), options), Error);
}

TEST_CASE("bits do not depend on how steps are asked for, nor on what was drawn before") {
  ActivityProcessOptions options;
  options.swing = 0.4;
  const ModelSpec spec = spec_of("relullama-70b,layers=2,drift=0.4", 1992);
  ActivityProcess whole(spec, options), parts(spec, options);
  const std::vector<uint64_t> expected = bits_of(whole, 7, 100);
  parts.start_task(5);
  std::vector<uint64_t> words(100 * parts.pool().words_per_step());
  parts.next(9, std::span(words).first(9 * parts.pool().words_per_step()), {});
  parts.start_task(7);
  uint32_t done = 0;
  for (const uint32_t part : {1, 2, 61, 36}) {
    const uint64_t stride = parts.pool().words_per_step();
    parts.next(part, std::span(words).subspan(done * stride, part * stride), {});
    done += part;
  }
  CHECK(words == expected);
  CHECK(bits_of(whole, 8, 100) != expected);
  for (size_t i = parts.pool().words_per_layer() - 1; i < words.size();
       i += parts.pool().words_per_layer()) {
    REQUIRE(words[i] >> 8 == 0);  // 1992 = 31 * 64 + 8
  }
}

TEST_CASE("every instruction set makes the same bits") {
  ActivityProcessOptions options;
  options.swing = 0.4;
  options.predictor = {0.9, 0.7};
  const uint32_t ffn_dim = GENERATE(8u, 1000u, 1024u, 3000u);
  const ModelSpec spec = spec_of("relullama-70b,layers=2,drift=0.4", ffn_dim);
  std::vector<uint64_t> first, first_predicted;
  for (const BitKernels& kernels : bit_kernels()) {
    INFO(kernels.name << ", " << ffn_dim);
    ActivityProcess process(spec, options, kernels);
    std::vector<uint64_t> active(70 * process.pool().words_per_step()), predicted(active.size());
    process.start_task(1);
    process.next(70, active, predicted);
    if (first.empty()) {
      first = active;
      first_predicted = predicted;
    }
    CHECK(active == first);
    CHECK(predicted == first_predicted);
  }
}

// Written down once: another compiler or mathematics library gives the same.
TEST_CASE("the bits of a seed are for ever") {
  ActivityProcessOptions options;
  options.topic_count = 2;
  ActivityProcess process(parse_model_spec("preset:tiny,drift=0.5,seed=3"), options);
  CHECK(hash_of(bits_of(process, 4, 100)) == "f4f91366b7cc007c");
  CHECK(process.weight_hash() == "3dde9a2ca4795891");
  options.text_seed = 2;
  ActivityProcess other(parse_model_spec("preset:tiny,drift=0.5,seed=3"), options);
  CHECK(hash_of(bits_of(other, 4, 100)) != hash_of(bits_of(process, 4, 100)));
  CHECK(other.weight_hash() == process.weight_hash());
  ActivityProcess another(parse_model_spec("preset:tiny,drift=0.5,seed=4"), options);
  CHECK(another.weight_hash() != process.weight_hash());
}

TEST_CASE("bits fire with their 65536ths, and stay with the chain's") {
  constexpr uint32_t kNeurons = 1024, kSteps = 4000;
  std::vector<uint16_t> probabilities(kNeurons);
  for (uint32_t i = 0; i < kNeurons; ++i) probabilities[i] = static_cast<uint16_t>(64 * i + i % 64);
  std::vector<uint64_t> planes(bit_groups(kNeurons) * kProbabilityDigits * kGroupWords);
  fill_planes(probabilities, planes.data());
  std::vector<uint64_t> generators(kGeneratorWords * kGroupWords), state(kGroupWords);
  for (size_t i = 0; i < generators.size(); ++i) generators[i] = 0x9E3779B97F4A7C15u * (i + 1);
  std::vector<uint64_t> out(kSteps * kNeurons / 64);
  constexpr uint16_t kKeep = kProbabilityOne / 4;
  bit_kernels().back().chain({kNeurons, kSteps, kKeep, true, planes.data(), generators.data(),
                              state.data(), out.data(), kNeurons / 64});
  double worst = 0, stayed = 0, spread = 0;
  for (uint32_t i = 0; i < kNeurons; ++i) {
    const double rate = probabilities[i] / double{kProbabilityOne};
    double fired = 0, both = 0;
    for (uint32_t step = 0; step < kSteps; ++step) {
      const auto bit = [&](uint32_t at) { return out[at * 16 + i / 64] >> i % 64 & 1; };
      fired += static_cast<double>(bit(step));
      both += step > 0 ? static_cast<double>(bit(step) & bit(step - 1)) : 0;
    }
    // Correlation 1/4 leaves (1 - 1/4) / (1 + 1/4) = 0.6 of the steps as if independent.
    const double deviation = std::sqrt(rate * (1 - rate) / (0.6 * kSteps));
    if (i == 0) CHECK(fired == 0);
    if (i > 0) worst = std::max(worst, std::abs(fired / kSteps - rate) / deviation);
    stayed += both / kSteps - rate * rate;
    spread += rate * (1 - rate);
  }
  CHECK(worst < 5);  // standard deviations, over 1023 neurons
  CHECK(stayed / spread == Approx(0.25).margin(0.01));
}

std::vector<SyntheticTask> all_of(SyntheticTasks& tasks) {
  std::vector<SyntheticTask> all;
  while (const auto task = tasks.next()) all.push_back(*task);
  return all;
}

TEST_CASE("synthetic tasks are as long as MBPP's") {
  SyntheticTasks tasks({.seed = 1, .step_count = 2'000'000, .task_count = {}, .vocab_size = 100});
  std::vector<uint32_t> lengths, prompts;
  double sum = 0;
  for (const SyntheticTask& task : all_of(tasks)) {
    lengths.push_back(task.step_count);
    prompts.push_back(task.prompt_tokens);
    sum += task.step_count;
  }
  CHECK(sum == 2'000'000);
  CHECK(lengths.size() == tasks.task_count());
  CHECK(sum / lengths.size() == Approx(227).margin(5));
  lengths.pop_back();  // cut
  std::sort(lengths.begin(), lengths.end());
  std::sort(prompts.begin(), prompts.end());
  const auto quantile = [](const std::vector<uint32_t>& of, double share) {
    return of[static_cast<size_t>(share * (of.size() - 1))];
  };
  CHECK(lengths.front() == 98);
  CHECK(quantile(lengths, 0.05) == Approx(117).margin(3));
  CHECK(quantile(lengths, 0.5) == Approx(197).margin(5));
  CHECK(quantile(lengths, 0.95) == Approx(392).margin(8));
  CHECK(quantile(lengths, 0.99) == Approx(572).margin(30));
  CHECK(quantile(prompts, 0.5) == Approx(118).margin(5));
  CHECK(tasks.longest() == lengths.back());
}

TEST_CASE("synthetic tasks follow each other, their passes too") {
  const auto wanted = GENERATE(std::optional<uint32_t>(), std::optional<uint32_t>(37));
  SyntheticTasks tasks({.seed = 5, .step_count = 5001, .task_count = wanted, .vocab_size = 300});
  uint64_t step = 0;
  int64_t pass = -1;
  uint32_t index = 0;
  for (const SyntheticTask& task : all_of(tasks)) {
    REQUIRE(task.index == index++);
    REQUIRE(task.step_begin == step);
    REQUIRE(task.prompt_tokens >= 1);
    REQUIRE(task.prompt_tokens <= task.step_count);
    const TaskRecord record = tasks.record(task);
    REQUIRE(record.generated.size() == task.step_count - task.prompt_tokens + 1);
    for (uint32_t position = 0; position < task.step_count; ++position, ++step) {
      const StepInfo info = tasks.step(task, position);
      const bool prefill = position < task.prompt_tokens;
      REQUIRE((info.phase == Phase::prefill) == prefill);
      REQUIRE(info.position == position);
      REQUIRE(info.task == task.index);
      REQUIRE((info.token >= 0 && info.token < 300));
      pass += !prefill || position % 32 == 0;
      REQUIRE(info.pass == pass);
      if (!prefill) REQUIRE(info.token == record.generated[position - task.prompt_tokens]);
    }
  }
  CHECK(step == 5001);
  CHECK(index == wanted.value_or(tasks.task_count()));
}

TEST_CASE("synthetic tasks say which numbers do not fit") {
  const auto make = [](uint64_t steps, std::optional<uint32_t> tasks) {
    return SyntheticTasks({.seed = 1, .step_count = steps, .task_count = tasks, .vocab_size = 9});
  };
  CHECK_THROWS_WITH(make(0, {}), Catch::Contains("--steps 0"));
  CHECK_THROWS_WITH(make(100, 0), Catch::Contains("--tasks 0"));
  CHECK_THROWS_WITH(make(100, 13), Catch::Contains("from 1 to 12"));
  CHECK(make(100, 12).task_count() == 12);
  CHECK(make(1, {}).task_count() == 1);
}

}  // namespace
}  // namespace thermocline::test
