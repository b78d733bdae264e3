// thermocline model info | tokenize.
#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/commands.h"
#include "models/error.h"
#include "tests/file_bytes.h"
#include "tests/models/small_tokenizers.h"
#include "tests/gguf_parts.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;

// Runs `model ARGUMENTS --json FILE` and gives its rows.
json rows_of(std::vector<std::string> arguments) {
  const TempDir folder;
  const std::string path = folder / "out.json";
  CLI::App app;
  add_model_commands(app);
  arguments.insert(arguments.begin(), "model");
  arguments.insert(arguments.end(), {"--json", path});
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes the last as the first
  app.parse(arguments);
  return json::parse(read_file(path)).at("rows");
}

json row_of(const json& rows, const std::string& kind, size_t index = 0) {
  for (const json& row : rows) {
    if (row.at("kind") == kind && index-- == 0) return row;
  }
  FAIL("no row " << kind);
  return {};
}

}  // namespace

TEST_CASE("model info gives a preset's published numbers") {
  const json rows = rows_of({"info", "preset:llama-2-70b,type=q4_0"});
  const json model = row_of(rows, "model");
  CHECK(model.at("parameters") == 68976648192);
  CHECK(model.at("neurons") == 2293760);
  CHECK(model.at("bundle_bytes") == 13824);
  CHECK(model.at("ffn_bytes") == 2293760ull * 13824);
  CHECK(model.at("ffn_share").get<double>() == Approx(0.817).margin(0.001));
  CHECK(model.at("bytes").get<double>() / (1 << 30) == Approx(36.13).margin(0.02));
  CHECK(model.at("weights") == "synthetic");
  const json four = row_of(rows, "memory", 2);
  CHECK(four.at("budget_bytes") == 4ull << 30);
  CHECK(four.at("neurons") == (4ull << 30) / 13824);
  const json last = row_of(rows, "memory", 6);
  CHECK(last.at("budget_bytes") == 32ull << 30);
  CHECK(last.at("share") == 1.0);
}

TEST_CASE("model info counts a file's tensors by type") {
  const TempDir folder;
  write_file(folder / "model.gguf", small_gguf(DType::q8_0).bytes());
  const json rows = rows_of({"info", folder / "model.gguf"});
  CHECK(row_of(rows, "model").at("weights") == "real");
  // The stored down projection has blocks of neurons: a rank gets it in f16.
  CHECK(row_of(rows, "model").at("stored_bundle_bytes") == 3 * 68);
  CHECK(row_of(rows, "model").at("bundle_bytes") == 2 * 68 + 128);
  CHECK(row_of(rows, "model").at("bundle_types") == "q8_0+q8_0+f16");
  CHECK(row_of(rows, "model").at("ffn_bytes") == 3 * 68 * 320);
  CHECK(row_of(rows, "type", 0).at("type") == "f32");
  CHECK(row_of(rows, "type", 0).at("tensor_count") == 5);
  CHECK(row_of(rows, "type", 1).at("type") == "q8_0");
  CHECK(row_of(rows, "type", 1).at("tensor_count") == 16);
  write_file(folder / "vocabulary.gguf", small_vocabulary_gguf().bytes());
  const json model = row_of(rows_of({"info", folder / "vocabulary.gguf"}), "model");
  CHECK(model.at("weights") == "none");
  CHECK(model.at("tokens_in_file") == 277);
}

TEST_CASE("model info lists tensors, files, what a budget holds, predictors and scaled rope") {
  const TempDir folder;
  GgufFile file = small_powerinfer(DType::q8_0);
  file.set_f32("llama.rope.scaling.factor", 2.0f);
  write_file(folder / "model.gguf", file.bytes());
  const json rows = rows_of({"info", folder / "model.gguf", "--tensors", "--budget", "20KiB"});
  const json model = row_of(rows, "model");
  CHECK(model.at("predictor_ranks") == json({32, 32}));
  CHECK(model.at("predictor_threshold") == -0.25);
  CHECK(model.at("rope_divisors") == json(std::vector<float>(8, 2.0f)));
  CHECK(model.at("activation") == "relu");
  CHECK(model.at("bundle_bytes") == 3 * 68);
  CHECK(model.at("unusable") == "");
  CHECK(row_of(rows, "file").at("bytes") == std::filesystem::file_size(folder / "model.gguf"));
  CHECK(row_of(rows, "tensor", 24).at("name") == "blk.1.fc2.weight");
  CHECK(row_of(rows, "memory").at("neurons") == 20480 / (3 * 68));
  const json all = rows_of({"info", folder / "model.gguf", "--budget", "24GiB"});
  CHECK(row_of(all, "memory").at("neurons") == 320);
  const json half = rows_of({"info", folder / "model.gguf", "--budget", "50%"});
  CHECK(row_of(half, "memory").at("neurons") == 160);
}

TEST_CASE("model info shows bundles as they are stored, and says why a file cannot run") {
  const TempDir folder;
  write_file(folder / "bundles.gguf", small_bundles(DType::q8_0, 512).bytes());
  const json bundles = row_of(rows_of({"info", folder / "bundles.gguf"}), "model");
  CHECK(bundles.at("bundle_stride") == 512);
  CHECK(bundles.at("bundle_bytes") == 3 * 68);
  GgufFile biased = small_gguf(DType::q8_0);
  add_made_tensor(biased, "blk.0.attn_q.bias", 1, 64, DType::f32);
  write_file(folder / "biased.gguf", biased.bytes());
  const json model = row_of(rows_of({"info", folder / "biased.gguf"}), "model");
  CHECK(model.at("bundle_types").is_null());
  CHECK_THAT(model.at("unusable").get<std::string>(), Contains("blk.0.attn_q.bias"));
}

TEST_CASE("model info shows a GPU index") {
  const TempDir folder;
  write_file(folder / "x.gpuidx", small_gpu_index({{1, 0, 1, 1}, {0, 0, 0, 0}}).bytes());
  const json rows = rows_of({"info", folder / "x.gpuidx"});
  CHECK(row_of(rows, "gpu_index").at("hot_neurons") == 3);
  CHECK(row_of(rows, "gpu_index").at("vram_capacity") == 8ull << 30);
  CHECK(row_of(rows, "layer", 0).at("share") == 0.75);
  CHECK(row_of(rows, "layer", 1).at("hot_neurons") == 0);
}

TEST_CASE("model tokenize gives ids and pieces of a text or a file") {
  const TempDir folder;
  write_file(folder / "tokenizer.bin", small_tokenizer_bin());
  write_file(folder / "text", "the \xff");
  const json from_text =
      rows_of({"tokenize", "--tokenizer", folder / "tokenizer.bin", "--text", "the an"});
  REQUIRE(from_text.size() == 3);
  CHECK(from_text[0].at("piece") == " the");
  CHECK(from_text[0].at("id") == 262);
  const json from_file =
      rows_of({"tokenize", "--tokenizer", folder / "tokenizer.bin", "--file", folder / "text"});
  REQUIRE(from_file.size() == 3);
  CHECK(from_file[2].at("id") == 3 + 0xff);
  CHECK(rows_of({"tokenize", "--tokenizer", "byte", "--text", "abc"}).size() == 3);
  write_file(folder / "tokenizer.json", small_byte_bpe().dump());
  const json from_json = rows_of({"tokenize", "--tokenizer", folder.path(), "--text", "the the"});
  REQUIRE(from_json.size() == 2);
  CHECK(from_json[1].at("id") == 258);
  CHECK(from_json[1].at("piece") == " the");
}

TEST_CASE("model commands refuse what they cannot do") {
  CHECK_THROWS_AS(rows_of({"tokenize", "--tokenizer", "byte"}), CLI::ParseError);
  CHECK_THROWS_AS(rows_of({"tokenize", "--tokenizer", "byte", "--text", "a", "--file", "b"}),
                  CLI::ParseError);
  CHECK_THROWS_AS(rows_of({"info"}), CLI::ParseError);
  CHECK_THROWS_AS(rows_of({"info", "missing.gguf"}), Error);
  CHECK_THROWS_AS(rows_of({"info", "preset:nothing"}), Error);
}

}  // namespace thermocline::test
