#include "runtime/synth_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <memory>

#include "models/activity_model.h"
#include "models/cli.h"
#include "models/counter_random.h"
#include "models/error.h"
#include "models/gguf_writer.h"
#include "models/synthetic.h"
#include "models/synthetic_plan.h"
#include "models/units.h"
#include "runtime/engine.h"
#include "runtime/partition.h"

namespace thermocline {
namespace {

constexpr uint32_t kChunkMax = 32;     // tokens that share one pass over the weights
constexpr uint32_t kTextStream = 0;    // of the texts' random numbers
constexpr uint64_t kTextSeed = 77001;  // a seed of its own: texts do not depend on the weights

// Published statistics are reproduced to within these.
constexpr double kActivityBound = 0.01, kShareBound = 0.02, kFreshBound = 0.005;

class CountingObserver final : public StepObserver {
 public:
  CountingObserver(StatisticsCounter& counter, uint64_t step_total)
      : counter_(counter), progress_("run", step_total, "steps") {}
  void on_step(const StepInfo& info, const StepTimes&, const StepData& data) override {
    counter_.add(info, data.active);
    progress_.update(++done_);
  }

 private:
  StatisticsCounter& counter_;
  Progress progress_;
  uint64_t done_ = 0;
};

// The tokens of one text, drawn uniformly from the vocabulary.
std::vector<int32_t> text_of(uint32_t sequence, uint32_t steps, uint32_t vocab_size) {
  const RandomStream stream(kTextSeed, kTextStream);
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < steps; ++i) {
    uint8_t bytes[RandomStream::kBytesPerBlock];
    stream.blocks(sequence, i, 1, bytes);
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    tokens.push_back(static_cast<int32_t>(uint64_t{word} * vocab_size >> 32));
  }
  return tokens;
}

void check_options(const ModelSpec& spec, const SynthRunOptions& options) {
  if (!spec.synthetic())
    throw bad_usage("model synth: expected a preset of synthetic weights, found " + spec.text);
  if (options.sequences == 0) throw bad_usage("--sequences 0: expected at least 1");
  const uint32_t least = options.skipped + 8;
  if (options.steps < least || options.steps > spec.shape.context_length) {
    throw bad_usage(fmt::format("--steps {}: expected from {} (the first {} are not counted) to {}",
                                options.steps, least, options.skipped, spec.shape.context_length));
  }
}

// Shares of neurons follow from counts, and those of neurons that fired a few times are mostly
// chance: below this mean number of firings, they are shown without a promise.
constexpr double kFiringsMin = 20;

// Firing rates of a layer spread by about 0.3: three standard deviations of the mean of so many are
// the bound of the mean activity. Every preset of a published model is wider.
constexpr uint32_t kNeuronsMin = 8192;

bool is_wide_enough(const ModelShape& shape) { return shape.ffn_dim >= kNeuronsMin; }

class Table {
 public:
  Table(const ActivityModel& model, const TraceStatistics& found) : model_(model), found_(found) {}

  std::vector<SynthStatistic> make() {
    for (uint32_t layer = 0; layer < model_.layer_count(); ++layer) {
      rows_.push_back({"mean activity", layer, model_.within(layer).mean(),
                       found_.layers[layer].mean_activity, kActivityBound});
    }
    for (uint32_t layer = 0; layer < model_.layer_count(); ++layer) {
      add_share(found_.layers[layer], layer, model_.share_80(layer), model_.within(layer).mean());
    }
    add_share(found_.whole, std::nullopt, model_.whole_share_80(), model_.mean_activity());
    add_memory();
    if (found_.sequence_count > 1) {
      // What was counted in a text of a hundred steps is not its long-run rate: no promise.
      rows_.push_back({"top fifth kept by the next text", std::nullopt, model_.sequence_overlap(),
                       found_.whole.sequence_overlap, std::nullopt});
    }
    return std::move(rows_);
  }

 private:
  // Texts that drift have rates of their own: what a regime says holds for each alone.
  void add_share(const ActivityStatistics& found, std::optional<uint32_t> layer, double target,
                 double mean_activity) {
    const bool drifts = model_.topic_share() > 0;
    const double steps = static_cast<double>(found_.step_count) /
                         static_cast<double>(drifts ? found_.sequence_count : 1);
    const bool enough = mean_activity * steps >= kFiringsMin;
    rows_.push_back({drifts ? "neurons that give 80 % of a text" : "neurons that give 80 %", layer,
                     target, drifts ? found.sequence_share_80 : found.share_80,
                     enough ? std::optional<double>(kShareBound) : std::nullopt});
  }

  void add_memory() {
    for (size_t i = 0; i < found_.options.lags.size(); ++i) {
      const uint32_t lag = found_.options.lags[i];
      rows_.push_back({fmt::format("overlap, {} step{} apart", lag, lag == 1 ? "" : "s"),
                       std::nullopt, model_.overlap(lag), found_.whole.overlap[i], kShareBound});
    }
    for (size_t i = 0; i < found_.options.windows.size(); ++i) {
      const uint32_t window = found_.options.windows[i];
      rows_.push_back({fmt::format("union of {} steps", window), std::nullopt,
                       model_.in_union(window), found_.whole.unions[i], kShareBound});
      rows_.push_back({fmt::format("new after {} steps", window), std::nullopt,
                       model_.fresh(window), found_.whole.fresh[i], kFreshBound});
    }
  }

  const ActivityModel& model_;
  const TraceStatistics& found_;
  std::vector<SynthStatistic> rows_;
};

// One rank in this process: the whole model is its share.
TraceStatistics execute(const ModelSpec& spec, const SynthRunOptions& options,
                        SynthResult& result) {
  StatisticsOptions counted;
  counted.position_min = options.skipped;
  counted.lags = {1, 2, 5, 10};
  counted.windows = {5};
  const ModelShape& shape = spec.shape;
  TraceStatistics statistics;
  run_local_ranks(1, [&](Comm& comm) {
    const auto source = make_synthetic_weights(spec);
    const Partition partition =
        make_partition(shape, spec.dtype, default_layout(shape, spec.dtype, 1), {1});
    const auto backend = backends().by_name("cpu").make({static_cast<int>(result.threads), {}, 0});
    const uint64_t start = now_ns();
    RankWeights weights = load_rank_weights(*source, partition, 0, *backend);
    result.load_seconds = static_cast<double>(now_ns() - start) * 1e-9;
    result.weight_bytes = weights.total_bytes();
    Decoder decoder(comm, shape, partition, std::move(weights),
                    make_activation_rule(shape, kSiluMagnitudeThreshold), *backend,
                    {kChunkMax, options.steps});
    StatisticsCounter counter(decoder.neuron_pool(), counted);
    CountingObserver observer(counter, uint64_t{options.sequences} * options.steps);
    EngineHooks hooks;
    hooks.observers = {&observer};
    Engine engine(comm, shape, partition, decoder, hooks,
                  {{}, shape.context_length, kChunkMax, interrupted});
    for (uint32_t i = 0; i < options.sequences; ++i) {
      TaskInput task;
      task.index = i;
      task.task_id = static_cast<int32_t>(i);
      task.prompt = text_of(i, options.steps, shape.vocab_size);
      if (engine.run(task).interrupted) throw work_failed("interrupted");
    }
    result.run_seconds = static_cast<double>(now_ns() - start) * 1e-9 - result.load_seconds;
    statistics = counter.finish();
  });
  return statistics;
}

}  // namespace

bool SynthStatistic::within() const {
  return measured.has_value() && bound.has_value() && std::abs(*measured - target) <= *bound;
}

SynthResult run_synthetic(const ModelSpec& spec, const SynthRunOptions& options) {
  check_options(spec, options);
  SynthResult result;
  result.threads = options.threads != 0 ? options.threads : available_cores();
  const TraceStatistics found = execute(spec, options, result);
  const ActivityModel model(spec);
  result.statistics = Table(model, found).make();
  if (!is_wide_enough(spec.shape))
    for (SynthStatistic& row : result.statistics) row.bound = std::nullopt;
  return result;
}

void require_promises(const SynthResult& result) {
  const SynthStatistic* first = nullptr;
  size_t missed = 0, promised = 0;
  for (const SynthStatistic& row : result.statistics) {
    if (!row.bound.has_value() || !row.measured.has_value()) continue;
    ++promised;
    if (row.within()) continue;
    ++missed;
    if (first == nullptr) first = &row;
  }
  if (missed == 0) return;
  throw work_failed(fmt::format(
      "{} of {} statistics are not within their bounds, the first of them '{}'{}; more --steps or "
      "--sequences leave less to chance",
      missed, promised, first->name,
      first->layer.has_value() ? fmt::format(" of layer {}", *first->layer) : ""));
}

namespace {

struct SynthOptions {
  std::string preset, type, out, json;
  std::optional<uint32_t> layers;
  std::optional<uint64_t> seed;
  SynthRunOptions run;
};

// Options are other names for keys of the preset.
ModelSpec spec_of(const SynthOptions& options) {
  std::string text = options.preset;
  if (!text.starts_with("preset:")) text = "preset:" + text;
  if (options.layers.has_value()) text += fmt::format(",layers={}", *options.layers);
  if (!options.type.empty()) text += ",type=" + options.type;
  if (options.seed.has_value()) text += fmt::format(",seed={}", *options.seed);
  return parse_model_spec(text);
}

const char* verdict(const SynthStatistic& statistic) {
  if (!statistic.measured.has_value()) return "not measured";
  if (!statistic.bound.has_value()) return "no bound";
  return statistic.within() ? "yes" : "NO";
}

void print(const SynthOptions& options, const ModelSpec& spec, const SynthResult& result) {
  const ActivityRegime& regime = spec.regime;
  fmt::print("{}\nregime {}: activity {:g}, correlation {:g}, drift {:g}, profile {}\n", spec.text,
             regime.name, regime.mean, regime.correlation, regime.drift, name_of(regime.profile));
  if (regime.whole_share_80 > 0) {
    fmt::print("published for a whole model: 80 % of the firings on {:.0f} % of the neurons\n",
               100 * regime.whole_share_80);
  }
  fmt::print(
      "weights {} made in {:.1f} s; {} texts of {} random tokens run in {:.1f} s, {} "
      "threads; the first {} steps of each are not counted\n\n",
      format_bytes(result.weight_bytes), result.load_seconds, options.run.sequences,
      options.run.steps, result.run_seconds, result.threads, options.run.skipped);
  fmt::print("{:<32} {:>6} {:>8} {:>9} {:>7}  within\n", "statistic", "layer", "target", "measured",
             "bound");
  for (const SynthStatistic& row : result.statistics) {
    fmt::print("{:<32} {:>6} {:>6.2f} % {:>9} {:>7}  {}\n", row.name,
               row.layer.has_value() ? fmt::format("{}", *row.layer) : "all", 100 * row.target,
               row.measured.has_value() ? fmt::format("{:.2f} %", 100 * *row.measured) : "-",
               row.bound.has_value() ? fmt::format("{:.1f}", 100 * *row.bound) : "-", verdict(row));
  }
  if (is_wide_enough(spec.shape)) return;
  fmt::print(
      "no bounds: layers of {} neurons are too narrow for them; they hold from {} neurons on\n",
      spec.shape.ffn_dim, kNeuronsMin);
}

template <class Value>
nlohmann::ordered_json json_of(const std::optional<Value>& value) {
  return value.has_value() ? nlohmann::ordered_json(*value) : nullptr;
}

nlohmann::ordered_json rows_of(const SynthOptions& options, const ModelSpec& spec,
                               const SynthResult& result) {
  const ActivityRegime& regime = spec.regime;
  auto rows = nlohmann::ordered_json::array();
  rows.push_back({{"kind", "model"},
                  {"model", spec.text},
                  {"weights", "synthetic"},
                  {"weight_hash", make_synthetic_weights(spec)->hash()},
                  {"regime", regime.name},
                  {"activity", regime.mean},
                  {"correlation", regime.correlation},
                  {"drift", regime.drift},
                  {"profile", name_of(regime.profile)},
                  {"weight_bytes", result.weight_bytes},
                  {"load_seconds", result.load_seconds},
                  {"run_seconds", result.run_seconds},
                  {"threads", result.threads},
                  {"sequences", options.run.sequences},
                  {"steps", options.run.steps},
                  {"steps_skipped", options.run.skipped},
                  {"source", "measured"}});
  for (const SynthStatistic& row : result.statistics) {
    rows.push_back({{"kind", "statistic"},
                    {"name", row.name},
                    {"layer", json_of(row.layer)},
                    {"target", row.target},
                    {"measured", json_of(row.measured)},
                    {"bound", json_of(row.bound)},
                    {"within", row.within()}});
  }
  return rows;
}

void write(const SynthOptions& options, const ModelSpec& spec) {
  const auto source = make_synthetic_weights(spec);
  std::optional<Progress> progress;
  GgufWriteOptions written;
  written.name = spec.text;
  written.description = "synthetic weights of thermocline: " + spec.text;
  written.thread_count = options.run.threads != 0 ? options.run.threads : available_cores();
  written.progress = [&progress](uint64_t done, uint64_t total) {
    if (!progress.has_value()) progress.emplace("write", total, "bytes");
    progress->update(done);
  };
  write_gguf(*source, options.out, written);
  if (options.json != "-") fmt::print("{} written: {}\n", options.out, spec.text);
}

void run(const SynthOptions& options) {
  const ModelSpec spec = spec_of(options);
  install_interrupt_handler();
  const bool runs = options.run.steps > 0;
  if (!runs && options.out.empty()) throw bad_usage("--steps 0 leaves nothing to do but --out");
  if (runs) check_options(spec, options.run);
  if (!options.out.empty()) write(options, spec);
  if (!runs) return;
  const SynthResult result = run_synthetic(spec, options.run);
  if (options.json != "-") print(options, spec, result);
  if (!options.json.empty())
    write_json(options.json, "model synth", rows_of(options, spec, result));
  require_promises(result);
}

}  // namespace

void add_synth_command(CLI::App& model) {
  const auto options = std::make_shared<SynthOptions>();
  CLI::App* command = model.add_subcommand(
      "synth", "make synthetic weights, and print what they do beside what they promise");
  command->footer(
      "Example: thermocline model synth --preset relullama-70b --layers 2 --out x.gguf");
  command->add_option("--preset", options->preset, "NAME[,KEY=VALUE...], as after --model preset:")
      ->required();
  command->add_option("--layers", options->layers, "how many layers to make and run");
  command->add_option("--type", options->type, "element type of the matrices; default: q4_0");
  command->add_option("--seed", options->seed, "of the weights");
  command->add_option("--sequences", options->run.sequences, "texts to run")->capture_default_str();
  command
      ->add_option("--steps", options->run.steps, "tokens of each text; 0: run nothing, only write")
      ->capture_default_str();
  command->add_option("--out", options->out, "write the weights to this .gguf first");
  command->add_option("--threads", options->run.threads, "default: all cores");
  command->add_option("--json", options->json, "write the rows of the table; - is standard output");
  command->callback([options] { run(*options); });
}

}  // namespace thermocline
