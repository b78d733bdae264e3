#include "models/info_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "models/cli.h"
#include "models/gpu_index.h"
#include "models/mapped_file.h"
#include "models/model_facts.h"
#include "models/units.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kGibibyte = uint64_t{1} << 30;
constexpr uint64_t kBudgetsGibibytes[] = {1, 2, 4, 8, 16, 24, 32};

struct Options {
  std::string model;
  std::string budget;
  bool tensors = false;
  std::string json;
};

void show(const std::string& text) { std::fputs(text.c_str(), stdout); }

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

// What a large memory holds of a small model is no error here: all of it.
constexpr uint64_t kBudgetMax = uint64_t{1} << 62;

std::vector<uint64_t> budgets_of(const Options& options, const ModelFacts& model) {
  if (!options.budget.empty()) {
    const bool relative = options.budget == "auto" || options.budget.find('%') != std::string::npos;
    const uint64_t full = model.shape.neuron_count() * model.bundle_bytes;
    return parse_budgets(options.budget, relative ? full : kBudgetMax, model.bundle_bytes);
  }
  std::vector<uint64_t> budgets;
  for (const uint64_t gibibytes : kBudgetsGibibytes) budgets.push_back(gibibytes * kGibibyte);
  return budgets;
}

// Linear where all are the same, else by the range.
std::string rope_text(const ModelShape& shape) {
  if (shape.rope_divisors.empty()) return "unscaled";
  const auto [low, high] =
      std::minmax_element(shape.rope_divisors.begin(), shape.rope_divisors.end());
  if (*low == *high) return fmt::format("scaled linearly by {:g}", *low);
  return fmt::format("scaled by {:g} to {:g}", *low, *high);
}

Json model_row(const ModelFacts& model) {
  const ModelShape& shape = model.shape;
  return {{"kind", "model"},
          {"model", model.model},
          {"weights", model.weights},
          {"layer_count", shape.layer_count},
          {"model_dim", shape.model_dim},
          {"ffn_dim", shape.ffn_dim},
          {"head_count", shape.head_count},
          {"kv_head_count", shape.kv_head_count},
          {"head_dim", shape.head_dim},
          {"vocab_size", shape.vocab_size},
          {"context_length", shape.context_length},
          {"activation", name_of(shape.activation)},
          {"fatrelu_threshold", shape.fatrelu_threshold},
          {"rope_theta", shape.rope_theta},
          {"rope_divisors", shape.rope_divisors},
          {"norm_epsilon", shape.norm_epsilon},
          {"tied_embeddings", shape.tied_embeddings},
          {"tokens_in_file", model.token_count},
          {"vocabulary_refusal", model.vocabulary_refusal},
          {"parameters", parameter_count(shape)},
          {"tensor_count", model.tensors.size()},
          {"bytes", model.bytes},
          {"ffn_bytes", model.ffn_bytes},
          {"ffn_share", share(model.ffn_bytes, model.bytes)},
          {"neurons", shape.neuron_count()},
          {"bundle_types", model.bundle ? Json(name_of(*model.bundle)) : Json()},
          {"bundle_bytes", model.bundle_bytes},
          {"stored_bundle_bytes", model.stored_bundle_bytes},
          {"bundle_stride", model.bundle_stride},
          {"predictor_ranks", model.predictor_ranks},
          {"predictor_threshold",
           model.predictor_threshold ? Json(*model.predictor_threshold) : Json()},
          {"unusable", model.unusable}};
}

Json memory_row(uint64_t budget, const ModelFacts& model) {
  const uint64_t neurons = std::min(budget / model.bundle_bytes, model.shape.neuron_count());
  return {{"kind", "memory"},
          {"budget_bytes", budget},
          {"neurons", neurons},
          {"share", share(neurons, model.shape.neuron_count())}};
}

// One row for the model; then for each file, type, tensor (where asked for) and size of memory.
Json info_rows(const ModelFacts& model, const Options& options) {
  Json rows = Json::array({model_row(model)});
  for (const FileFacts& file : model.files) {
    rows.push_back({{"kind", "file"}, {"path", file.path}, {"bytes", file.bytes}});
  }
  for (const auto& [name, total] : model.types) {
    rows.push_back({{"kind", "type"},
                    {"type", name},
                    {"tensor_count", total.tensor_count},
                    {"bytes", total.bytes}});
  }
  for (const TensorFacts& tensor : model.tensors) {
    if (!options.tensors) break;
    rows.push_back({{"kind", "tensor"},
                    {"name", tensor.name},
                    {"type", tensor.type},
                    {"rows", tensor.rows},
                    {"cols", tensor.cols},
                    {"bytes", tensor.bytes}});
  }
  if (model.bundle_bytes == 0) return rows;
  for (const uint64_t budget : budgets_of(options, model)) {
    rows.push_back(memory_row(budget, model));
  }
  return rows;
}

void show_shape(const ModelFacts& model) {
  const ModelShape& shape = model.shape;
  show(fmt::format("model       {}\nweights     {}\n", model.model, model.weights));
  for (const FileFacts& file : model.files) {
    if (model.files.size() > 1)
      show(fmt::format("  {} ({})\n", file.path, format_bytes(file.bytes)));
  }
  show(fmt::format(
      "shape       {} layers, model_dim {}, ffn_dim {}, {} heads and {} kv heads of {}\n",
      shape.layer_count, shape.model_dim, shape.ffn_dim, shape.head_count, shape.kv_head_count,
      shape.head_dim));
  const std::string threshold = shape.activation == FfnActivation::fatrelu
                                    ? fmt::format(" from {:g}", shape.fatrelu_threshold)
                                    : "";
  show(fmt::format("            {}{}, norm epsilon {:g}, context {}\n", name_of(shape.activation),
                   threshold, shape.norm_epsilon, shape.context_length));
  show(fmt::format("rope        theta {}, {}\n", shape.rope_theta, rope_text(shape)));
  show(fmt::format("vocabulary  {}{}{}\n", shape.vocab_size,
                   shape.tied_embeddings ? ", tied to the head" : "",
                   model.token_count == 0 ? "" : ", pieces in the file"));
  if (!model.vocabulary_refusal.empty()) {
    show(fmt::format("            not usable: {}\n", model.vocabulary_refusal));
  }
}

void show_predictor(const ModelFacts& model) {
  if (model.predictor_ranks.empty()) return;
  const auto [low, high] =
      std::minmax_element(model.predictor_ranks.begin(), model.predictor_ranks.end());
  show(fmt::format(
      "predictor   in {} layers, rank {}{}, predictor threshold {}\n", model.predictor_ranks.size(),
      *low, *low == *high ? "" : fmt::format(" to {}", *high),
      model.predictor_threshold ? fmt::format("{:g}", *model.predictor_threshold) : "not given"));
}

void show_bundle(const ModelFacts& model) {
  if (!model.bundle) {
    return show(fmt::format("bundle      no rank can run this file: {}\n", model.unusable));
  }
  show(fmt::format("bundle      {} bytes ({}): gate row, up row and down column of a neuron\n",
                   model.bundle_bytes, name_of(*model.bundle)));
  if (model.bundle_stride != 0) {
    show(fmt::format("            stored as bundles, one every {} bytes\n", model.bundle_stride));
  }
  if (model.stored_bundle_bytes == model.bundle_bytes) return;
  show(fmt::format("            {} bytes in the file{}\n", model.stored_bundle_bytes,
                   model.down_along_neurons
                       ? ": its ffn_down has blocks of many neurons, so that down columns are\n"
                         "            delivered in a wider type; `model convert --layout bundles` "
                         "stores them as they are used"
                       : ""));
}

void show_sizes(const ModelFacts& model, const Json& rows) {
  show(fmt::format("parameters  {}\nbytes       {} in {} tensors\n", parameter_count(model.shape),
                   format_bytes(model.bytes), model.tensors.size()));
  for (const auto& [name, total] : model.types) {
    show(fmt::format("            {} tensors of {}: {}\n", total.tensor_count, name,
                     format_bytes(total.bytes)));
  }
  show(fmt::format("FFN         {}, {:.1f} % of the bytes: {} neurons\n",
                   format_bytes(model.ffn_bytes), 100 * share(model.ffn_bytes, model.bytes),
                   model.shape.neuron_count()));
  show_predictor(model);
  show_bundle(model);
  if (model.bundle_bytes != 0) show("\nmemory for neurons     neurons   share\n");
  for (const Json& row : rows) {
    if (row.at("kind") != "memory") continue;
    show(fmt::format("{:>18} {:>11} {:>6.1f} %\n",
                     format_bytes(row.at("budget_bytes").get<uint64_t>()),
                     row.at("neurons").get<uint64_t>(), 100 * row.at("share").get<double>()));
  }
}

void show_tensors(const ModelFacts& model) {
  show("\n       rows       cols type            bytes name\n");
  for (const TensorFacts& tensor : model.tensors) {
    show(fmt::format("{:>11} {:>10} {:<6} {:>14} {}\n", tensor.rows, tensor.cols, tensor.type,
                     tensor.bytes, tensor.name));
  }
}

// PowerInfer's placement of neurons, which is a file of its own.
void run_gpu_index(const MappedFile& file, const Options& options) {
  const GpuIndex index = parse_gpu_index(file.bytes, options.model);
  const uint64_t neurons = index.hot_neurons.size() * uint64_t{index.ffn_dim};
  Json rows = Json::array();
  rows.push_back({{"kind", "gpu_index"},
                  {"model", options.model},
                  {"layer_count", index.hot_neurons.size()},
                  {"ffn_dim", index.ffn_dim},
                  {"hot_neurons", index.hot_count()},
                  {"share", share(index.hot_count(), neurons)},
                  {"vram_capacity", index.vram_capacity ? Json(*index.vram_capacity) : Json()}});
  for (size_t layer = 0; layer < index.hot_neurons.size(); ++layer) {
    rows.push_back({{"kind", "layer"},
                    {"layer", layer},
                    {"hot_neurons", index.hot_neurons[layer].size()},
                    {"share", share(index.hot_neurons[layer].size(), index.ffn_dim)}});
  }
  if (options.json != "-") {
    show(fmt::format("GPU index   {}\n{} of {} neurons on the GPU ({:.1f} %), for {} of memory\n\n",
                     options.model, index.hot_count(), neurons,
                     100 * share(index.hot_count(), neurons),
                     index.vram_capacity ? format_bytes(*index.vram_capacity) : "an unknown size"));
    show("layer     neurons   share\n");
    for (size_t layer = 0; layer < index.hot_neurons.size(); ++layer) {
      const uint64_t count = index.hot_neurons[layer].size();
      show(fmt::format("{:>5} {:>11} {:>6.1f} %\n", layer, count,
                       100 * share(count, index.ffn_dim)));
    }
  }
  if (!options.json.empty()) write_json(options.json, "model info", rows);
}

bool shown_as_gpu_index(const ModelSpec& spec, const Options& options) {
  std::error_code missing;
  if (spec.synthetic() || !std::filesystem::is_regular_file(spec.path, missing)) return false;
  const MappedFile file = map_file(spec.path);
  if (!is_gpu_index(file.bytes, spec.path)) return false;
  run_gpu_index(file, options);
  return true;
}

void run_info(const Options& options) {
  const ModelSpec spec = parse_model_spec(options.model);
  if (shown_as_gpu_index(spec, options)) return;
  const ModelFacts model = facts_of(spec);
  const Json rows = info_rows(model, options);
  if (options.json != "-") {
    show_shape(model);
    if (!model.tensors.empty()) show_sizes(model, rows);
    if (options.tensors) show_tensors(model);
  }
  if (!options.json.empty()) write_json(options.json, "model info", rows);
}

}  // namespace

void add_info_command(CLI::App& model) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      model.add_subcommand("info", "shape, parameters, bytes, and what memory holds in neurons");
  command
      ->add_option("MODEL", options->model,
                   "a checkpoint (a file, one part of several, or a folder), PowerInfer's GPU "
                   "index, or preset:NAME")
      ->required();
  command->add_option("--budget", options->budget,
                      "memory for neurons: BYTES, PERCENT or FROM..TO/STEP; default: 1 to 32 GiB");
  command->add_flag("--tensors", options->tensors, "list every tensor");
  command->add_option("--json", options->json, "write the table as JSON; - is standard output");
  command->footer("Example: thermocline model info preset:relullama-70b,type=q4_0 --budget 24GiB");
  command->callback([options] { run_info(*options); });
}

}  // namespace thermocline
