#include "traces/info_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>

#include "models/cli.h"
#include "models/units.h"
#include "traces/magnitude_codes.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

constexpr uint64_t kCountedSteps = 4096;  // popcounts at a time

struct InfoOptions {
  std::string path, json;
  bool allow_partial = false;
};

void show(const std::string& text) { std::fputs(text.c_str(), stdout); }

// Of one layer or of all: firings over all steps, and the neurons that the trace holds.
struct Activity {
  uint64_t active = 0;
  uint64_t neurons = 0;

  // 0 for a trace without steps.
  double share(uint64_t steps) const {
    const double chances = static_cast<double>(neurons) * static_cast<double>(steps);
    return chances == 0 ? 0.0 : static_cast<double>(active) / chances;
  }
};

std::vector<Activity> activity_by_layer(const TraceReader& trace) {
  const uint32_t layers = trace.header().shape.layer_count;
  std::vector<Activity> activity(layers);
  for (uint64_t begin = 0; begin < trace.step_count(); begin += kCountedSteps) {
    const uint64_t steps = std::min(kCountedSteps, trace.step_count() - begin);
    const std::vector<uint32_t> counts = trace.popcounts(begin, steps);
    for (size_t i = 0; i < counts.size(); ++i) activity[i % layers].active += counts[i];
  }
  for (uint32_t rank = 0; rank < trace.header().pools.size(); ++rank) {
    const NeuronPool& pool = trace.header().pools[rank];
    for (uint32_t i = 0; trace.holds(rank) && i < pool.layer_count; ++i) {
      activity[pool.layer_begin + i].neurons += pool.neuron_count;
    }
  }
  return activity;
}

uint64_t prefill_steps(const TraceReader& trace) {
  const auto steps = trace.steps();
  return static_cast<uint64_t>(std::count_if(steps.begin(), steps.end(), [](const StepInfo& step) {
    return step.phase == Phase::prefill;
  }));
}

// Passes over the weights: fewer than steps where prompts were prefilled or tasks batched.
uint64_t pass_count(const TraceReader& trace) {
  std::set<uint32_t> passes;
  for (const StepInfo& step : trace.steps()) passes.insert(step.pass);
  return passes.size();
}

uint64_t generated_tokens(const TraceReader& trace) {
  uint64_t total = 0;
  for (const TaskRecord& task : trace.tasks()) total += task.generated.size();
  return total;
}

// What was done to the trace since it was recorded.
nlohmann::ordered_json history_of(const TraceHeader& header) {
  const auto config = nlohmann::ordered_json::parse(header.config_json, nullptr, false);
  nlohmann::ordered_json history = nlohmann::ordered_json::object();
  for (const char* key : {"cut", "merged", "repaired"}) {
    if (config.is_object() && config.contains(key)) history[key] = config.at(key);
  }
  return history;
}

// Whose gates were computed: "exact", or the predictor that named them; empty where it is not said.
std::string gate_of(const TraceHeader& header) {
  const auto config = nlohmann::json::parse(header.config_json, nullptr, false);
  const bool says = config.is_object() && config.contains("gate") && config.at("gate").is_string();
  return says ? config.at("gate").get<std::string>() : "";
}

// Mean of a rank's decode steps.
nlohmann::ordered_json time_row(const TraceReader& trace, const std::vector<StepInfo>& steps,
                                uint32_t rank) {
  const std::vector<StepTimes> times = trace.times(rank);
  double sums[4] = {}, count = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].phase != Phase::decode) continue;
    ++count;
    const uint64_t parts[4] = {times[i].compute_ns, times[i].transfer_ns, times[i].comm_ns,
                               times[i].wait_ns};
    for (int part = 0; part < 4; ++part) sums[part] += static_cast<double>(parts[part]) * 1e-6;
  }
  for (double& sum : sums) sum = count == 0 ? 0 : sum / count;
  return {{"kind", "times"},        {"rank", rank},        {"compute_ms", sums[0]},
          {"transfer_ms", sums[1]}, {"comm_ms", sums[2]},  {"wait_ms", sums[3]},
          {"decode_steps", count},  {"source", "measured"}};
}

nlohmann::ordered_json info_row(const TraceReader& trace, const InfoOptions& options,
                                const std::vector<Activity>& layers) {
  const TraceHeader& header = trace.header();
  Activity whole;
  for (const Activity& layer : layers) {
    whole = {whole.active + layer.active, whole.neurons + layer.neurons};
  }
  const uint64_t prefill = prefill_steps(trace);
  return {{"kind", "trace"},
          {"path", options.path},
          {"model", header.model},
          {"weights", header.weight_provenance},
          {"weight_hash", header.weight_hash},
          {"trace_hash", trace.hash()},
          {"layer_count", header.shape.layer_count},
          {"model_dim", header.shape.model_dim},
          {"ffn_dim", header.shape.ffn_dim},
          {"ffn_dtype", name_of(header.ffn_types)},
          {"activation_rule", header.activation_rule},
          {"gate", gate_of(header)},
          {"prompts", header.prompts},
          {"prompts_hash", header.prompts_hash},
          {"layout", header.layout},
          {"ranks", header.pools.size()},
          {"seed", header.seed},
          {"recorded_by", header.version},
          {"step_count", trace.step_count()},
          {"prefill_steps", prefill},
          {"decode_steps", trace.step_count() - prefill},
          {"task_count", trace.tasks().size()},
          {"file_bytes", trace.file_bytes()},
          {"active_share", whole.share(trace.step_count())},
          {"pass_count", pass_count(trace)},
          {"generated_tokens", generated_tokens(trace)},
          {"predicted", header.has_predicted},
          {"magnitudes", name_of(header.magnitudes)},
          {"magnitude_steps", trace.magnitude_steps().size()},
          {"history", history_of(header)},
          {"finished", trace.finished()},
          {"missing", trace.missing()}};
}

nlohmann::ordered_json info_rows(const TraceReader& trace, const InfoOptions& options) {
  const std::vector<Activity> layers = activity_by_layer(trace);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  rows.push_back(info_row(trace, options, layers));
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    rows.push_back({{"kind", "layer"},
                    {"layer", layer},
                    {"active", layers[layer].active},
                    {"active_share", layers[layer].share(trace.step_count())}});
  }
  const std::vector<StepInfo> steps = trace.steps();
  for (uint32_t rank = 0; rank < trace.header().pools.size(); ++rank) {
    if (trace.holds(rank)) rows.push_back(time_row(trace, steps, rank));
  }
  return rows;
}

std::string text_of(const nlohmann::ordered_json& row, const char* key) {
  return row.at(key).get<std::string>();
}

void show_facts(const TraceReader& trace, const nlohmann::ordered_json& row) {
  const TraceHeader& header = trace.header();
  const ModelShape& shape = header.shape;
  show(fmt::format("trace    {}, hash {}\n", text_of(row, "path"), text_of(row, "trace_hash")));
  show(fmt::format("model    {}: {} layers, model_dim {}, ffn_dim {}, {}, FFN in {}\n",
                   header.model, shape.layer_count, shape.model_dim, shape.ffn_dim,
                   name_of(shape.activation), name_of(header.ffn_types)));
  show(fmt::format("weights  {}, hash {}\n", header.weight_provenance, header.weight_hash));
  const std::string gate = gate_of(header);
  const bool predicted = !gate.empty() && gate != "exact";
  show(fmt::format("active   where {}{}\n", header.activation_rule,
                   predicted ? ", of what predictor " + gate + " named" : ""));
  show(fmt::format("prompts  {}, hash {}\n", header.prompts, header.prompts_hash));
  show(fmt::format("layout   {}: {} ranks; seed {}; recorded by thermocline {}\n", header.layout,
                   header.pools.size(), header.seed, header.version));
  show(fmt::format("steps    {}: {} prefill, {} decode; {} tasks\n", trace.step_count(),
                   row.at("prefill_steps").get<uint64_t>(), row.at("decode_steps").get<uint64_t>(),
                   trace.tasks().size()));
  show(fmt::format("holds    bits{}{}, {} generated tokens; {} passes over the weights\n",
                   header.has_predicted ? ", predicted bits" : "",
                   header.magnitudes == MagnitudeFormat::none
                       ? ""
                       : fmt::format(", magnitudes ({}) of {} steps", name_of(header.magnitudes),
                                     trace.magnitude_steps().size()),
                   row.at("generated_tokens").get<uint64_t>(),
                   row.at("pass_count").get<uint64_t>()));
  for (const auto& [what, how] : row.at("history").items()) {
    show(fmt::format("{:<8} {}\n", what, how.dump()));
  }
  const uint64_t raw = trace.step_count() * shape.layer_count * ((shape.ffn_dim + 7) / 8);
  show(fmt::format("size     {} on disk for {} of bits\n", format_bytes(trace.file_bytes()),
                   format_bytes(raw)));
  show(fmt::format("finished {}\n", trace.finished() ? "yes" : "no"));
  for (const std::string& line : trace.missing()) show(fmt::format("missing  {}\n", line));
}

void show_activity(const nlohmann::ordered_json& rows) {
  show(fmt::format("\n{:>5}  {:>14}  active share\n", "layer", "active"));
  for (const auto& row : rows) {
    if (row.at("kind") != "layer") continue;
    show(fmt::format("{:>5}  {:>14}  {:>11.2f}%\n", row.at("layer").get<size_t>(),
                     row.at("active").get<uint64_t>(), 100 * row.at("active_share").get<double>()));
  }
  show(fmt::format("{:>5}  {:>14}  {:>11.2f}%\n", "all", "",
                   100 * rows.at(0).at("active_share").get<double>()));
}

void show_times(const nlohmann::ordered_json& rows) {
  show(fmt::format("\n{:>5}  {:>10} {:>10} {:>10} {:>10}  ms, mean of a decode step\n", "rank",
                   "compute", "transfer", "comm", "wait"));
  for (const auto& row : rows) {
    if (row.at("kind") != "times") continue;
    show(fmt::format("{:>5}  {:>10.4f} {:>10.4f} {:>10.4f} {:>10.4f}\n",
                     row.at("rank").get<uint32_t>(), row.at("compute_ms").get<double>(),
                     row.at("transfer_ms").get<double>(), row.at("comm_ms").get<double>(),
                     row.at("wait_ms").get<double>()));
  }
}

void run_info(const InfoOptions& options) {
  const auto trace = open_trace(options.path, {.allow_partial = options.allow_partial});
  const nlohmann::ordered_json rows = info_rows(*trace, options);
  if (options.json != "-") {
    show_facts(*trace, rows.at(0));
    show_activity(rows);
    show_times(rows);
  }
  if (!options.json.empty()) write_json(options.json, "trace info", rows);
}

}  // namespace

void add_trace_info_command(CLI::App& trace) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* command = trace.add_subcommand(
      "info", "what a trace holds: model, prompts, steps, activity by layer, times by rank");
  command->add_option("TRACE", options->path, "the trace's master, for example trace.h5")
      ->required();
  command->add_option("--json", options->json, "write the tables as JSON; - is standard output");
  command->add_flag("--allow-partial", options->allow_partial,
                    "accept an unfinished trace or lost shards, and say what is missing");
  command->footer("Example: thermocline trace info results/trace.h5");
  command->callback([options] { run_info(*options); });
}

}  // namespace thermocline
