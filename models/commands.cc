#include "models/commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "models/cli.h"
#include "models/convert_command.h"
#include "models/info_command.h"
#include "models/predictor_command.h"
#include "models/tokenizer.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

void show(const std::string& text) { std::fputs(text.c_str(), stdout); }

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

void add_tokenize(CLI::App& model) {
  const auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = model.add_subcommand("tokenize", "the token ids of a text, and their pieces");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "a .gguf with a vocabulary, llama2.c's tokenizer .bin, a tokenizer.json or a "
                   "Hugging Face model's folder, or byte")
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
  CLI::App* model = app.add_subcommand("model", "look at, convert and tokenize with checkpoints");
  model->require_subcommand(1);
  add_convert_command(*model);
  add_info_command(*model);
  add_predictor_command(*model);
  add_tokenize(*model);
}

}  // namespace thermocline
