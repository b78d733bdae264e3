#include "models/predictor_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <optional>

#include "models/cli.h"
#include "models/embedded.h"
#include "models/error.h"
#include "models/gguf_keys.h"
#include "models/gguf_output.h"
#include "models/low_rank.h"
#include "models/predictor_file.h"
#include "models/quantize.h"

namespace thermocline {
namespace {

constexpr DType kType = DType::f16;

// The gate matrix of a layer in f32.
std::vector<float> gate_of(const WeightSource& source, uint32_t layer) {
  const MatrixSize size = size_of(Matrix::gate, source.shape());
  const DType dtype = source.dtype(Matrix::gate, layer);
  std::vector<std::byte> row(bytes_of(dtype, size.cols));
  std::vector<float> values(size.rows * size.cols);
  for (uint64_t r = 0; r < size.rows; ++r) {
    source.read(Matrix::gate, layer, {r, r + 1, 0, size.cols}, row.data());
    dequantize(dtype, row.data(), size.cols, values.data() + r * size.cols);
  }
  return values;
}

void set_keys(GgufOutput& output, const WeightSource& source,
              const PredictorWriteOptions& options) {
  output.set_text("general.architecture", kPredictorArchitecture);
  output.set_text("general.name",
                  fmt::format("gates of {} in rank {}", options.model, options.rank));
  output.set_text(kGgufProvenanceKey, source.provenance());
  output.set_text("thermocline.predictor.weight_hash", source.hash());
  output.set_text(kGgufPredictorInputKey, name_of(PredictorInput::normed));
  output.set_text(kGgufPredictorActivationKey, name_of(PredictorActivation::identity));
  output.set_number(kGgufPredictorThresholdKey, 0.0f);
}

void append_matrix(GgufOutput& output, const std::vector<float>& values) {
  std::vector<std::byte> bytes(bytes_of(kType, values.size()));
  quantize(kType, values.data(), values.size(), bytes.data());
  output.append(bytes);
}

}  // namespace

std::vector<double> write_predictor(const WeightSource& source, const std::string& path,
                                    const PredictorWriteOptions& options) {
  const ModelShape& shape = source.shape();
  const uint64_t rank = options.rank, most = std::min(shape.model_dim, shape.ffn_dim);
  if (rank < 1 || rank > most) {
    throw bad_usage(fmt::format("--rank {}: expected from 1 to {}", rank, most));
  }
  GgufOutput output(path);
  set_keys(output, source, options);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const auto add = [&](int part, uint64_t rows, uint64_t cols) {
      output.add_tensor(fmt::format("blk.{}.{}", layer, kPredictorTensors[part]),
                        facts(kType).ggml_id, {cols, rows}, rows * bytes_of(kType, cols));
    };
    add(0, rank, shape.model_dim);
    add(1, shape.ffn_dim, rank);
  }
  output.begin();
  std::vector<double> energies;
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    if (interrupted()) throw work_failed(path + ": interrupted; nothing was written");
    const LowRankFactors factors =
        low_rank_factors(gate_of(source, layer), shape.ffn_dim, shape.model_dim, rank,
                         options.seed + layer, options.thread_count);
    append_matrix(output, factors.right);
    append_matrix(output, factors.left);
    energies.push_back(factors.energy);
    if (options.progress) options.progress(energies.size());
  }
  output.finish();
  return energies;
}

namespace {

struct Options {
  std::string model = std::string(kDemoModel), out, json;
  PredictorWriteOptions written;
  uint32_t threads = 0;  // 0: all cores
};

void run(Options options) {
  const ModelSpec spec = parse_model_spec(options.model);
  const auto source = open_weights(spec);
  install_interrupt_handler();
  std::optional<Progress> bar;
  bar.emplace("predictor", source->shape().layer_count, "layers");
  options.written.model = spec.text;
  options.written.thread_count = options.threads == 0 ? available_cores() : options.threads;
  options.written.progress = [&bar](uint64_t done) { bar->update(done); };
  const std::vector<double> energies = write_predictor(*source, options.out, options.written);
  bar.reset();
  auto rows = nlohmann::ordered_json::array();
  for (size_t layer = 0; layer < energies.size(); ++layer) {
    rows.push_back({{"kind", "predictor"},
                    {"model", spec.text},
                    {"weights", source->provenance()},
                    {"weight_hash", source->hash()},
                    {"layer", layer},
                    {"rank", options.written.rank},
                    {"energy", energies[layer]},
                    {"seed", options.written.seed}});
    if (options.json == "-") continue;
    fmt::print("layer {:>3}: rank {} keeps {:.2f} % of the gate's squares\n", layer,
               options.written.rank, 100 * energies[layer]);
  }
  if (options.json != "-") fmt::print("{} written\n", options.out);
  if (!options.json.empty()) write_json(options.json, "model predictor", rows);
}

}  // namespace

void add_predictor_command(CLI::App& model) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = model.add_subcommand(
      "predictor", "low-rank activation predictors of a model's gates, without training");
  command->add_option("--model", options->model, "PATH or preset:NAME[,layers=N][,type=q4_0]")
      ->capture_default_str();
  command->add_option("--rank", options->written.rank, "rows of fc1")->capture_default_str();
  command->add_option("--out", options->out, "the .gguf to write")->required();
  command->add_option("--seed", options->written.seed, "of the random directions")
      ->capture_default_str();
  command->add_option("--threads", options->threads, "threads; 0 for all cores")
      ->check(CLI::Range(0u, 1024u));
  command->add_option("--json", options->json, "write the rows as JSON; - is standard output");
  command->footer(
      "Example: thermocline model predictor --model preset:demo --rank 64 --out demo-64.gguf");
  command->callback([options] { run(*options); });
}

}  // namespace thermocline
