#include "traces/synth_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "models/synthetic_plan.h"
#include "models/text.h"
#include "models/units.h"
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

std::string layout_text(const SynthTraceOptions& options) {
  return fmt::format("pp{},tp{}", options.stages, options.tensor_ranks);
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
  header.layout = layout_text(options);
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

namespace {

struct CommandOptions {
  std::string preset = "relullama-70b", layout, predictor, json;
  std::optional<uint64_t> seed;
  std::optional<uint32_t> ranks;
  SynthTraceOptions trace;
};

// --seed is another name for a key of the preset.
ModelSpec spec_of(const CommandOptions& options) {
  std::string text = options.preset;
  if (!text.starts_with("preset:")) text = "preset:" + text;
  if (options.seed.has_value()) text += fmt::format(",seed={}", *options.seed);
  return parse_model_spec(text);
}

uint32_t degree_of(std::string_view text, std::string_view layout) {
  const bool digits =
      !text.empty() && text.size() <= 4 &&
      std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const uint64_t degree = digits ? parse_count(text) : 0;
  if (degree == 0) {
    throw bad_usage(fmt::format("--layout {}: expected ppN,tpM with N, M from 1", layout));
  }
  return static_cast<uint32_t>(degree);
}

void set_layout(CommandOptions& options) {
  SynthTraceOptions& trace = options.trace;
  if (options.layout.empty()) {
    trace.tensor_ranks = options.ranks.value_or(trace.tensor_ranks);
    return;
  }
  trace.stages = trace.tensor_ranks = 0;
  for (const std::string_view part : split(options.layout, ',')) {
    uint32_t& degree = part.starts_with("pp") ? trace.stages : trace.tensor_ranks;
    if ((!part.starts_with("pp") && !part.starts_with("tp")) || degree != 0) {
      throw bad_usage(
          fmt::format("--layout {}: expected ppN,tpM with N, M from 1", options.layout));
    }
    degree = degree_of(part.substr(2), options.layout);
  }
  trace.stages = std::max(trace.stages, 1u);
  trace.tensor_ranks = std::max(trace.tensor_ranks, 1u);
  const uint64_t ranks = uint64_t{trace.stages} * trace.tensor_ranks;
  if (options.ranks && *options.ranks != ranks) {
    throw bad_usage(fmt::format("--layout {}: expected {} ranks, as --ranks says, found {}",
                                options.layout, *options.ranks, ranks));
  }
}

// "recall=0.95,precision=0.6".
PredictorQuality predictor_of(std::string_view text) {
  PredictorQuality quality{0, 0};
  for (const std::string_view part : split(text, ',')) {
    const size_t equals = std::min(part.find('='), part.size());
    const std::string_view key = part.substr(0, equals);
    if ((key != "recall" && key != "precision") || equals == part.size()) {
      throw bad_usage(fmt::format("--predictor {}: expected recall=R,precision=P", text));
    }
    const double value = parse_number(part.substr(equals + 1));
    (key == "recall" ? quality.recall : quality.precision) = value;
  }
  for (const double value : {quality.recall, quality.precision}) {
    if (value > 0 && value <= 1) continue;
    throw bad_usage(fmt::format(
        "--predictor {}: expected recall=R,precision=P, both above 0 and at most 1", text));
  }
  return quality;
}

void check_swing(const ActivityProcessOptions& process) {
  if (!(process.swing >= 0 && process.swing <= 1)) {
    throw bad_usage(fmt::format("--swing {:g}: expected from 0 to 1", process.swing));
  }
  if (!(process.swing_steps >= 1 && process.swing_steps <= 1e6)) {
    throw bad_usage(
        fmt::format("--swing-steps {:g}: expected from 1 to 1000000", process.swing_steps));
  }
}

std::string percent_text(const std::optional<double>& share) {
  return share ? fmt::format("{:.2f} %", 100 * *share) : "-";
}

void print_asked(const ModelSpec& spec, const SynthTraceOptions& options) {
  const ActivityRegime& regime = spec.regime;
  const ActivityProcessOptions& process = options.process;
  fmt::print("model    {}: {} layers of {} neurons, seed {}\n", spec.text, spec.shape.layer_count,
             spec.shape.ffn_dim, spec.seed);
  fmt::print("regime   {}: activity {:g}, correlation {:g}, drift {:g}, profile {}\n", regime.name,
             regime.mean, regime.correlation, regime.drift, name_of(regime.profile));
  const std::string topics =
      process.topic_count == 0 ? "each task its own" : fmt::format("{}", process.topic_count);
  fmt::print("process  topics: {}; swing {:g} for {:g} steps; predictor: {}\n", topics,
             process.swing, process.swing_steps,
             process.predictor
                 ? fmt::format("recall {:g}, precision {:g}", process.predictor->recall,
                               process.predictor->precision)
                 : "none");
}

void print_result(const SynthTraceOptions& options, const SynthTraceResult& result) {
  fmt::print("trace    {}, hash {}\n", options.path, result.trace_hash);
  fmt::print("weights  synthetic, hash {}\n", result.weight_hash);
  fmt::print("steps    {} of {} tasks, text seed {}; layout {}\n", result.step_count,
             result.task_count, options.process.text_seed, layout_text(options));
  const double bytes = static_cast<double>(result.raw_bytes);
  fmt::print("size     {} of bits, drawn at {:.2f} GB/s, in all {:.1f} s\n",
             format_bytes(result.raw_bytes), bytes / std::max(result.draw_seconds, 1e-9) / 1e9,
             result.seconds);
  fmt::print("times    zero: nothing was executed\n\n");
  fmt::print("{:<42} {:>9} {:>9}   ({} steps counted)\n", "share", "asked", "counted",
             result.counted_steps);
  for (const SynthFigure& figure : result.figures) {
    fmt::print("{:<42} {:>9} {:>9}\n", figure.name, percent_text(figure.asked),
               percent_text(figure.counted));
  }
}

Json json_of(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json rows_of(const ModelSpec& spec, const SynthTraceOptions& options,
             const SynthTraceResult& result) {
  const ActivityProcessOptions& process = options.process;
  Json rows = Json::array();
  rows.push_back({{"kind", "trace"},
                  {"path", options.path},
                  {"model", spec.text},
                  {"weights", "synthetic"},
                  {"weight_hash", result.weight_hash},
                  {"trace_hash", result.trace_hash},
                  {"regime", spec.regime.name},
                  {"activity", spec.regime.mean},
                  {"correlation", spec.regime.correlation},
                  {"drift", spec.regime.drift},
                  {"profile", name_of(spec.regime.profile)},
                  {"seed", spec.seed},
                  {"text_seed", process.text_seed},
                  {"topics", process.topic_count},
                  {"swing", process.swing},
                  {"swing_steps", process.swing_steps},
                  {"layout", layout_text(options)},
                  {"step_count", result.step_count},
                  {"task_count", result.task_count},
                  {"raw_bytes", result.raw_bytes},
                  {"draw_seconds", result.draw_seconds},
                  {"seconds", result.seconds},
                  {"counted_steps", result.counted_steps},
                  {"version", kVersion}});
  for (const SynthFigure& figure : result.figures) {
    rows.push_back({{"kind", "figure"},
                    {"name", figure.name},
                    {"asked", json_of(figure.asked)},
                    {"counted", json_of(figure.counted)}});
  }
  return rows;
}

void run(CommandOptions options) {
  const ModelSpec spec = spec_of(options);
  set_layout(options);
  SynthTraceOptions& trace = options.trace;
  if (!options.predictor.empty()) trace.process.predictor = predictor_of(options.predictor);
  check_swing(trace.process);
  install_interrupt_handler();
  if (options.json != "-" && spec.synthetic()) print_asked(spec, trace);
  const SynthTraceResult result = synthesise_trace(spec, trace);
  if (options.json != "-") print_result(trace, result);
  if (!options.json.empty()) write_json(options.json, "trace synth", rows_of(spec, trace, result));
}

}  // namespace

void add_synth_trace_command(CLI::App& trace) {
  const auto options = std::make_shared<CommandOptions>();
  SynthTraceOptions& of_trace = options->trace;
  CLI::App* command = trace.add_subcommand(
      "synth", "write a trace whose activity is drawn from published statistics");
  command->add_option("--out", of_trace.path, "the trace's master, for example synth.h5")
      ->required();
  command->add_option("--preset", options->preset, "NAME[,KEY=VALUE...], as after --model preset:")
      ->capture_default_str();
  command->add_option("--steps", of_trace.step_count, "tokens of all tasks")->capture_default_str();
  command->add_option("--tasks", of_trace.task_count,
                      "how many, lengths stretched to fit; default: as many as MBPP's lengths ask");
  command->add_option("--ranks", options->ranks, "shards to cut neurons into; default: 4");
  command->add_option("--layout", options->layout, "ppN,tpM: shards by layers and neurons");
  command
      ->add_option("--topics", of_trace.process.topic_count,
                   "topics that tasks have rates by, where they drift; 0: each its own")
      ->capture_default_str();
  command
      ->add_option("--swing", of_trace.process.swing,
                   "0 to 1: how far a state that all layers share moves rates up and down")
      ->capture_default_str();
  command->add_option("--swing-steps", of_trace.process.swing_steps, "steps that it lasts")
      ->capture_default_str();
  command->add_option("--predictor", options->predictor,
                      "recall=R,precision=P: predicted bits too");
  command->add_option("--seed", options->seed, "of the rates: the model");
  command->add_option("--text-seed", of_trace.process.text_seed, "of the tasks and their steps")
      ->capture_default_str();
  command->add_option("--json", options->json, "write the rows as JSON; - is standard output");
  command->footer(
      "Example: thermocline trace synth --out test.h5 --preset relullama-70b,drift=0.5 --steps "
      "100000");
  command->callback([options] { run(*options); });
}

}  // namespace thermocline
