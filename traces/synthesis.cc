#include "traces/synthesis.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "models/synthetic_plan.h"
#include "traces/statistics.h"
#include "traces/synthetic_tasks.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

// Neurons times steps that the figures are counted over: some seconds of counting.
constexpr uint64_t kCountedBitsMax = uint64_t{1} << 30;
constexpr uint64_t kCountedStepsMin = 64;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// As the runtime names the rule of a shape.
void set_activation_rule(TraceHeader& header) {
  float threshold = 0;
  header.activation_rule = "relu>0";
  if (header.shape.activation == FfnActivation::fatrelu) {
    header.activation_rule = "fatrelu>=t";
    threshold = header.shape.fatrelu_threshold;
  } else if (header.shape.activation == FfnActivation::silu) {
    header.activation_rule = "abs(silu)>t[layer]";
    threshold = kSiluMagnitudeThreshold;
  }
  header.activation_thresholds.assign(header.shape.layer_count, threshold);
}

Json config_of(const ModelSpec& spec, const SynthTraceOptions& options,
               const ActivityProcess& process, const SyntheticTasks& tasks) {
  const ActivityRegime& regime = spec.regime;
  const ActivityProcessOptions& asked = options.process;
  Json config = {{"generator", "trace-level"},
                 {"times", "zero: nothing was executed"},
                 {"regime", regime.name},
                 {"activity", regime.mean},
                 {"share_80", process.share_80()},
                 {"correlation", process.keep_share()},
                 {"drift", regime.drift},
                 {"redraw_share", process.redraw_share()},
                 {"profile", name_of(regime.profile)},
                 {"rate_seed", spec.seed},
                 {"text_seed", asked.text_seed},
                 {"step_count", options.step_count},
                 {"task_count", tasks.task_count()},
                 {"topics", asked.topic_count},
                 {"swing", asked.swing},
                 {"swing_steps", asked.swing_steps},
                 {"predictor", nullptr}};
  if (asked.predictor) {
    config["predictor"] = {{"recall", asked.predictor->recall},
                           {"precision", asked.predictor->precision}};
  }
  return config;
}

TraceHeader header_of(const ModelSpec& spec, const SynthTraceOptions& options,
                      const ActivityProcess& process, const SyntheticTasks& tasks) {
  TraceHeader header;
  header.version = kVersion;
  header.shape = spec.shape;
  header.shape.rope_divisors.clear();
  header.ffn_types = spec.dtype;
  header.model = spec.text;
  header.weight_provenance = "synthetic";
  header.weight_hash = process.weight_hash();
  set_activation_rule(header);
  header.prompts = fmt::format("synthetic text, lengths of MBPP, {} tasks", tasks.task_count());
  header.prompts_hash = tasks.hash();
  header.layout = options.layout();
  header.seed = options.process.text_seed;
  header.config_json = config_of(spec, options, process, tasks).dump();
  header.pools = synth_pools(spec.shape, options.stages, options.tensor_ranks);
  header.has_predicted = options.process.predictor.has_value();
  return header;
}

// One rank's part of a step. Pools meet at byte borders.
class PoolCut {
 public:
  PoolCut(const NeuronPool& whole, const NeuronPool& pool)
      : whole_(whole), pool_(pool), words_(pool.words_per_step()) {}

  // words: (layer_count, words_per_layer) of the whole model. Valid until the next call.
  std::span<const uint64_t> of(std::span<const uint64_t> words) {
    if (pool_.neuron_count == whole_.neuron_count) {
      return words.subspan(uint64_t{pool_.layer_begin} * whole_.words_per_layer(),
                           pool_.words_per_step());
    }
    static_assert(std::endian::native == std::endian::little, "neuron n is bit n % 8 of a byte");
    const uint32_t stride = pool_.words_per_layer();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      const uint64_t* row =
          words.data() + uint64_t{pool_.layer_begin + layer} * whole_.words_per_layer();
      std::memcpy(&words_[uint64_t{layer} * stride],
                  reinterpret_cast<const char*>(row) + pool_.neuron_begin / 8,
                  pool_.bytes_per_layer());
    }
    return words_;
  }

 private:
  NeuronPool whole_, pool_;
  std::vector<uint64_t> words_;
};

// What is counted in the first steps, bit by bit.
class Counts {
 public:
  Counts(const NeuronPool& pool, uint64_t step_count)
      : counter_(pool, counted()),
        wanted_(std::min(step_count, std::max(kCountedStepsMin, kCountedBitsMax / pool.total()))) {}

  void add(const StepInfo& info, std::span<const uint64_t> active,
           std::span<const uint64_t> predicted) {
    if (steps_ == wanted_) return;
    ++steps_;
    counter_.add(info, active);
    for (size_t i = 0; i < predicted.size(); ++i) {
      active_ += static_cast<uint64_t>(std::popcount(active[i]));
      predicted_ += static_cast<uint64_t>(std::popcount(predicted[i]));
      both_ += static_cast<uint64_t>(std::popcount(active[i] & predicted[i]));
    }
  }

  uint64_t steps() const { return steps_; }

  std::vector<SynthFigure> figures(const ActivityProcess& process,
                                   const std::optional<PredictorQuality>& predictor) {
    const ActivityStatistics found = counter_.finish().whole;
    std::vector<SynthFigure> rows = {
        {"active at a step", process.mean_activity(), found.mean_activity},
        {"neurons that give 80 % within a task", process.share_80(), found.sequence_share_80},
        {"active ones active at the next step", process.overlap(1), found.overlap[0]},
        {"... 10 steps later", process.overlap(10), found.overlap[1]},
        {"active in at least one of 5 steps", process.in_union(5), found.unions[0]},
        {"active and not so in the 5 steps before", process.fresh(5), found.fresh[0]},
        {"top fifth of rates kept by the next task", process.task_overlap(),
         found.sequence_overlap}};
    if (!predictor) return rows;
    rows.push_back({"recall of the predictor", predictor->recall, ratio(both_, active_)});
    rows.push_back({"precision of the predictor", predictor->precision, ratio(both_, predicted_)});
    return rows;
  }

 private:
  static StatisticsOptions counted() {
    StatisticsOptions options;
    options.lags = {1, 10};
    options.windows = {5};
    return options;
  }
  static std::optional<double> ratio(uint64_t part, uint64_t whole) {
    if (whole == 0) return std::nullopt;
    return static_cast<double>(part) / static_cast<double>(whole);
  }

  StatisticsCounter counter_;
  uint64_t wanted_, steps_ = 0;
  uint64_t active_ = 0, predicted_ = 0, both_ = 0;
};

class Synthesis {
 public:
  Synthesis(const ModelSpec& spec, const SynthTraceOptions& options)
      : options_(options),
        tasks_({options.process.text_seed, options.step_count, options.task_count,
                spec.shape.vocab_size}),
        process_(spec, options.process),
        header_(header_of(spec, options, process_, tasks_)),
        counts_(process_.pool(), options.step_count),
        progress_("drawing", options.step_count, "steps"),
        active_(kBlockSteps * process_.pool().words_per_step()),
        predicted_(header_.has_predicted ? active_.size() : 0) {
    check_lengths();
    for (uint32_t rank = 0; rank < header_.pools.size(); ++rank) {
      writers_.push_back(create_shard(options.path, header_, rank));
      cuts_.emplace_back(process_.pool(), header_.pools[rank]);
      predicted_cuts_.emplace_back(process_.pool(), header_.pools[rank]);
    }
  }

  SynthTraceResult run() {
    while (const auto task = tasks_.next()) write(*task);
    for (const auto& writer : writers_) writer->finish();
    writers_.clear();
    write_master(options_.path);
    result_.step_count = done_;
    result_.task_count = tasks_.task_count();
    result_.raw_bytes = done_ * header_.shape.layer_count * ((header_.shape.ffn_dim + 7) / 8);
    result_.weight_hash = header_.weight_hash;
    result_.trace_hash = open_trace(options_.path)->hash();
    result_.counted_steps = counts_.steps();
    result_.figures = counts_.figures(process_, options_.process.predictor);
    result_.seconds = seconds_since(begin_);
    return result_;
  }

 private:
  void check_lengths() const {
    if (tasks_.longest() <= header_.shape.context_length) return;
    throw bad_usage(fmt::format(
        "--tasks {}: expected tasks of at most {} steps (the model's context), the longest would "
        "have {}; ask for more tasks or fewer steps",
        tasks_.task_count(), header_.shape.context_length, tasks_.longest()));
  }

  void write(const SyntheticTask& task) {
    const auto begin = std::chrono::steady_clock::now();
    process_.start_task(task.index);
    result_.draw_seconds += seconds_since(begin);
    for (uint32_t position = 0; position < task.step_count;) {
      if (interrupted()) leave();
      const uint32_t count = std::min(kBlockSteps, task.step_count - position);
      draw(count);
      for (uint32_t i = 0; i < count; ++i) append(tasks_.step(task, position + i), i);
      position += count;
      done_ += count;
      progress_.update(done_);
    }
    const TaskRecord record = tasks_.record(task);
    for (const auto& writer : writers_) writer->end_task(record);
  }

  void draw(uint32_t count) {
    const auto begin = std::chrono::steady_clock::now();
    const uint64_t words = count * process_.pool().words_per_step();
    process_.next(count, std::span(active_).first(words),
                  std::span(predicted_).first(header_.has_predicted ? words : 0));
    result_.draw_seconds += seconds_since(begin);
  }

  void append(const StepInfo& info, uint32_t i) {
    const uint64_t words = process_.pool().words_per_step();
    const auto active = std::span<const uint64_t>(active_).subspan(i * words, words);
    std::span<const uint64_t> predicted;
    if (header_.has_predicted) {
      predicted = std::span<const uint64_t>(predicted_).subspan(i * words, words);
    }
    counts_.add(info, active, predicted);
    for (size_t rank = 0; rank < writers_.size(); ++rank) {
      StepData data{cuts_[rank].of(active), {}, {}};
      if (header_.has_predicted) data.predicted = predicted_cuts_[rank].of(predicted);
      writers_[rank]->append(info, {}, data);
    }
  }

  [[noreturn]] void leave() {
    writers_.clear();  // closes the shards, which stay partial files
    if (done_ == 0) throw work_failed("interrupted before the first step");
    throw work_failed(fmt::format(
        "interrupted after {} of {} steps; those so far are in {} and what lies beside it "
        "(--allow-partial reads them); the same command again draws the same from the start",
        done_, options_.step_count, partial_path(options_.path, 0)));
  }

  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  const SynthTraceOptions options_;
  SyntheticTasks tasks_;
  ActivityProcess process_;
  TraceHeader header_;
  Counts counts_;
  Progress progress_;
  std::vector<uint64_t> active_, predicted_;  // (kBlockSteps, layer_count, words_per_layer)
  std::vector<std::unique_ptr<TraceWriter>> writers_;
  std::vector<PoolCut> cuts_, predicted_cuts_;  // by rank
  uint64_t done_ = 0;                           // steps
  SynthTraceResult result_;
};

}  // namespace

std::string SynthTraceOptions::layout() const {
  return fmt::format("pp{},tp{}", stages, tensor_ranks);
}

std::vector<NeuronPool> synth_pools(const ModelShape& shape, uint32_t stages,
                                    uint32_t tensor_ranks) {
  // Whole words where there are several for each rank, else bytes.
  const uint32_t unit = shape.ffn_dim >= 256 * uint64_t{tensor_ranks} ? 64 : 8;
  const uint32_t units = (shape.ffn_dim + unit - 1) / unit;
  if (stages == 0 || stages > shape.layer_count || tensor_ranks == 0 || tensor_ranks > units) {
    throw bad_usage(fmt::format(
        "layout pp{},tp{}: expected pp from 1 to {} (layers) and tp from 1 to {} (groups of 8 "
        "neurons)",
        stages, tensor_ranks, shape.layer_count, (shape.ffn_dim + 7) / 8));
  }
  const auto cut = [](uint32_t count, uint32_t parts, uint32_t i) {
    return static_cast<uint32_t>(uint64_t{count} * i / parts);
  };
  std::vector<NeuronPool> pools;
  for (uint32_t rank = 0; rank < stages * tensor_ranks; ++rank) {
    const uint32_t stage = rank / tensor_ranks, index = rank % tensor_ranks;
    NeuronPool pool;
    pool.layer_begin = cut(shape.layer_count, stages, stage);
    pool.layer_count = cut(shape.layer_count, stages, stage + 1) - pool.layer_begin;
    pool.neuron_begin = cut(units, tensor_ranks, index) * unit;
    const uint32_t end = cut(units, tensor_ranks, index + 1) * unit;
    pool.neuron_count = std::min(end, shape.ffn_dim) - pool.neuron_begin;
    pools.push_back(pool);
  }
  return pools;
}

SynthTraceResult synthesise_trace(const ModelSpec& spec, const SynthTraceOptions& options) {
  if (!spec.synthetic()) {
    throw bad_usage("trace synth: expected a preset of synthetic weights, found " + spec.text);
  }
  return Synthesis(spec, options).run();
}

}  // namespace thermocline
