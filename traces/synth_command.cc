#include "traces/synth_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "models/text.h"
#include "models/units.h"
#include "traces/synthesis.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

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
             result.task_count, options.process.text_seed, options.layout());
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
                  {"layout", options.layout()},
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
