#include "models/commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>

#include "models/checkpoint.h"
#include "models/cli.h"
#include "models/model_spec.h"
#include "models/shape.h"
#include "models/tokenizer.h"
#include "models/units.h"
#include "models/weights.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kGibibyte = uint64_t{1} << 30;
constexpr uint64_t kBudgetsGibibytes[] = {1, 2, 4, 8, 16, 24, 32};

void show(const std::string& text) { std::fputs(text.c_str(), stdout); }

struct TypeTotal {
  uint64_t tensor_count = 0;
  uint64_t bytes = 0;
};

// What `info` says about a model, whether it is a file or a preset.
struct ModelFacts {
  std::string model;
  std::string weights;  // "real" | "synthetic" | "none" (a vocabulary alone)
  ModelShape shape;
  uint64_t token_count = 0;  // of the file's own vocabulary
  std::map<std::string_view, TypeTotal> types = {};
  uint64_t bytes = 0;         // of all tensors
  uint64_t ffn_bytes = 0;     // of gate, up and down
  uint64_t bundle_bytes = 0;  // of one neuron
};

void count_tensor(ModelFacts& model, DType dtype, uint64_t bytes, bool is_ffn) {
  TypeTotal& total = model.types[facts(dtype).name];
  ++total.tensor_count;
  total.bytes += bytes;
  model.bytes += bytes;
  if (is_ffn) model.ffn_bytes += bytes;
}

// A preset's matrices are all of one type, its norm vectors f32 as everywhere.
ModelFacts facts_of_preset(const ModelSpec& spec) {
  ModelFacts model{.model = spec.text, .weights = "synthetic", .shape = spec.shape};
  const auto count_matrix = [&](Matrix matrix, uint32_t copies) {
    const auto [rows, cols] = size_of(matrix, spec.shape);
    const bool is_ffn = matrix >= Matrix::gate;
    const uint64_t bytes = rows * bytes_of(spec.dtype, cols);
    for (uint32_t i = 0; i < copies; ++i) count_tensor(model, spec.dtype, bytes, is_ffn);
  };
  count_matrix(Matrix::token_embedding, 1);
  if (!spec.shape.tied_embeddings) count_matrix(Matrix::head, 1);
  for (const Matrix matrix :
       {Matrix::q, Matrix::k, Matrix::v, Matrix::o, Matrix::gate, Matrix::up, Matrix::down_t}) {
    count_matrix(matrix, spec.shape.layer_count);
  }
  for (uint32_t i = 0; i < 2 * spec.shape.layer_count + 1; ++i) {
    count_tensor(model, DType::f32, bytes_of(DType::f32, spec.shape.model_dim), false);
  }
  model.bundle_bytes = bundle_bytes(spec.shape, spec.dtype);
  return model;
}

ModelFacts facts_of_file(const ModelSpec& spec) {
  const auto checkpoint = open_checkpoint(spec.path);
  ModelFacts model{.model = spec.text,
                   .weights = checkpoint->vocabulary_only() ? "none" : "real",
                   .shape = checkpoint->shape(),
                   .token_count = checkpoint->vocabulary().pieces.size()};
  for (const TensorView& tensor : checkpoint->tensors()) {
    const bool is_ffn = tensor.name.find(".ffn_") != std::string::npos && tensor.rows > 1;
    count_tensor(model, tensor.dtype, tensor.byte_count(), is_ffn);
  }
  if (model.shape.neuron_count() > 0)
    model.bundle_bytes = model.ffn_bytes / model.shape.neuron_count();
  return model;
}

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
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
          {"norm_epsilon", shape.norm_epsilon},
          {"tied_embeddings", shape.tied_embeddings},
          {"tokens_in_file", model.token_count},
          {"parameters", parameter_count(shape)},
          {"bytes", model.bytes},
          {"ffn_bytes", model.ffn_bytes},
          {"ffn_share", share(model.ffn_bytes, model.bytes)},
          {"neurons", shape.neuron_count()},
          {"bundle_bytes", model.bundle_bytes}};
}

// One row for the model, one for each type of tensor, one for each size of memory.
Json info_rows(const ModelFacts& model) {
  Json rows = Json::array({model_row(model)});
  for (const auto& [name, total] : model.types) {
    rows.push_back({{"kind", "type"},
                    {"type", name},
                    {"tensor_count", total.tensor_count},
                    {"bytes", total.bytes}});
  }
  if (model.bundle_bytes == 0) return rows;
  for (const uint64_t gibibytes : kBudgetsGibibytes) {
    const uint64_t neurons =
        std::min(gibibytes * kGibibyte / model.bundle_bytes, model.shape.neuron_count());
    rows.push_back({{"kind", "memory"},
                    {"budget_bytes", gibibytes * kGibibyte},
                    {"neurons", neurons},
                    {"share", share(neurons, model.shape.neuron_count())}});
  }
  return rows;
}

void show_shape(const ModelFacts& model) {
  const ModelShape& shape = model.shape;
  show(fmt::format("model       {}\nweights     {}\n", model.model, model.weights));
  show(fmt::format(
      "shape       {} layers, model_dim {}, ffn_dim {}, {} heads and {} kv heads of {}\n",
      shape.layer_count, shape.model_dim, shape.ffn_dim, shape.head_count, shape.kv_head_count,
      shape.head_dim));
  show(fmt::format("            {}, rope theta {}, norm epsilon {:g}, context {}\n",
                   name_of(shape.activation), shape.rope_theta, shape.norm_epsilon,
                   shape.context_length));
  show(fmt::format("vocabulary  {}{}{}\n", shape.vocab_size,
                   shape.tied_embeddings ? ", tied to the head" : "",
                   model.token_count == 0 ? "" : ", pieces in the file"));
}

void show_sizes(const ModelFacts& model, const Json& rows) {
  show(fmt::format("parameters  {}\nbytes       {}\n", parameter_count(model.shape),
                   format_bytes(model.bytes)));
  for (const auto& [name, total] : model.types) {
    show(fmt::format("            {} tensors of {}: {}\n", total.tensor_count, name,
                     format_bytes(total.bytes)));
  }
  show(fmt::format("FFN         {}, {:.1f} % of the bytes: {} neurons\n",
                   format_bytes(model.ffn_bytes), 100 * share(model.ffn_bytes, model.bytes),
                   model.shape.neuron_count()));
  show(fmt::format("bundle      {} bytes: gate row, up row and down column of a neuron\n\n",
                   model.bundle_bytes));
  show("memory for neurons     neurons   share\n");
  for (const Json& row : rows) {
    if (row.at("kind") != "memory") continue;
    show(fmt::format("{:>18} {:>11} {:>6.1f} %\n",
                     format_bytes(row.at("budget_bytes").get<uint64_t>()),
                     row.at("neurons").get<uint64_t>(), 100 * row.at("share").get<double>()));
  }
}

struct InfoOptions {
  std::string model;
  std::string json;
};

void run_info(const InfoOptions& options) {
  const ModelSpec spec = parse_model_spec(options.model);
  const ModelFacts model = spec.synthetic() ? facts_of_preset(spec) : facts_of_file(spec);
  const Json rows = info_rows(model);
  if (options.json != "-") {
    show_shape(model);
    if (model.bundle_bytes != 0) show_sizes(model, rows);
  }
  if (!options.json.empty()) write_json(options.json, "model info", rows);
}

struct TokenizeOptions {
  std::string tokenizer;
  std::string text;
  std::string file;
  std::string json;
};

// A piece as one line can show it; a byte alone is seldom a character.
std::string quoted(const std::string& piece) {
  const bool is_byte = piece.size() == 1 && (piece[0] < ' ' || piece[0] > '~');
  if (is_byte) return fmt::format("\"\\x{:02x}\"", static_cast<uint8_t>(piece[0]));
  return Json(piece).dump(-1, ' ', false, Json::error_handler_t::replace);
}

void run_tokenize(const TokenizeOptions& options) {
  const auto tokenizer = open_tokenizer(options.tokenizer, UINT32_MAX);
  const std::string text = options.file.empty() ? options.text : read_file(options.file);
  const std::vector<int32_t> ids = tokenizer->encode(text);
  Json rows = Json::array();
  for (const int32_t id : ids) {
    const std::string piece = tokenizer->decode(-1, id);
    rows.push_back({{"kind", "token"}, {"id", id}, {"piece", piece}});
    if (options.json != "-") show(fmt::format("{:>7} {}\n", id, quoted(piece)));
  }
  if (options.json != "-") {
    show(fmt::format("{} tokens for {} bytes ({}, {} ids)\n", ids.size(), text.size(),
                     tokenizer->name(), tokenizer->vocab_size()));
  }
  if (!options.json.empty()) write_json(options.json, "model tokenize", rows);
}

void add_info(CLI::App& model) {
  const auto options = std::make_shared<InfoOptions>();
  CLI::App* command =
      model.add_subcommand("info", "shape, parameters, bytes, and what memory holds in neurons");
  command
      ->add_option("MODEL", options->model,
                   "a checkpoint file (.gguf, llama2.c's .bin) or preset:NAME")
      ->required();
  command->add_option("--json", options->json, "write the table as JSON; - is standard output");
  command->footer("Example: thermocline model info preset:relullama-70b,type=q4_0");
  command->callback([options] { run_info(*options); });
}

void add_tokenize(CLI::App& model) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = model.add_subcommand("tokenize", "the token ids of a text, and their pieces");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "a .gguf with a vocabulary, llama2.c's tokenizer .bin, or byte")
      ->required();
  CLI::Option_group* source = command->add_option_group("text");
  source->add_option("--text", options->text, "the text itself");
  source->add_option("--file", options->file, "a file that holds it");
  source->require_option(1);
  command->add_option("--json", options->json, "write the tokens as JSON; - is standard output");
  command->footer("Example: thermocline model tokenize --tokenizer byte --text 'def add(a, b):'");
  command->callback([options] { run_tokenize(*options); });
}

}  // namespace

void add_model_commands(CLI::App& app) {
  CLI::App* model = app.add_subcommand("model", "look at checkpoints and tokenizers");
  model->require_subcommand(1);
  add_info(*model);
  add_tokenize(*model);
}

}  // namespace thermocline
