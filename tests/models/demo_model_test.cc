// The model that the program carries: what it is, and how it is asked for.
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/checkpoint.h"
#include "models/cli.h"
#include "models/convert.h"
#include "models/embedded.h"
#include "models/model_facts.h"
#include "models/model_spec.h"
#include "models/tokenizer.h"
#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Contains;

const std::string kOracle = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/demo_logits/";

TEST_CASE("the demo model is a trained LLaMA with a vocabulary and predictors") {
  const auto model = open_checkpoint(std::string(kDemoModel));
  const ModelShape& shape = model->shape();
  CHECK(model->provenance() == "trained-demo");
  CHECK(shape.activation == FfnActivation::relu);
  CHECK(shape.layer_count == 8);
  CHECK(shape.model_dim == 256);
  CHECK(shape.ffn_dim == 1024);
  CHECK(shape.kv_head_count == 4);
  CHECK(shape.context_length == 1024);
  CHECK(shape.tied_embeddings);
  CHECK(model->vocabulary().kind == Vocabulary::Kind::byte_bpe);
  CHECK(model->vocabulary().pieces.size() == 2048);
  CHECK(model->predictor_threshold() == 0.0f);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    model->get(prefix + "fc1.weight", 64, shape.model_dim);
    model->get(prefix + "fc2.weight", shape.ffn_dim, 64);
    CHECK(model->find(prefix + "ffn_gate.weight")->dtype == DType::q8_0);
  }
  CHECK(demo_model_bytes().size() <= uint64_t{16} << 20);
}

// The cells of the last line of a .csv in models/demo, by the names of the first.
std::map<std::string, double> last_row(const std::string& name) {
  std::istringstream file(read_file(std::string(THERMOCLINE_SOURCE_DIR) + "/models/demo/" + name));
  std::string head, line, last;
  std::getline(file, head);
  while (std::getline(file, line)) last = line;
  std::map<std::string, double> cells;
  std::istringstream names(head), values(last);
  for (std::string key, value; std::getline(names, key, ',') && std::getline(values, value, ',');) {
    while (key.ends_with('\r')) key.pop_back();
    cells[key] = std::stod(value);
  }
  return cells;
}

TEST_CASE("the demo model's log ends sparse, uneven and a fifth below the 5-gram model") {
  const auto last = last_row("log.csv");
  const auto ngram =
      nlohmann::json::parse(read_file(THERMOCLINE_SOURCE_DIR "/models/demo/ngram.json"));
  CHECK(last.at("held_out_loss") < 0.8 * ngram.at("all").get<double>());
  CHECK(last.at("activity") > 0.08);
  CHECK(last.at("activity") < 0.20);
  double least = 1, most = 0;
  for (int layer = 0; layer < 8; ++layer) {
    const double activity = last.at("activity_" + std::to_string(layer));
    least = std::min(least, activity);
    most = std::max(most, activity);
  }
  CHECK(most > 2 * least);
}

TEST_CASE("the program carries the files that the repository holds") {
  const std::string model = read_file(THERMOCLINE_SOURCE_DIR "/models/demo/demo.gguf");
  const auto bytes = demo_model_bytes();
  REQUIRE(bytes.size() == model.size());
  CHECK(std::memcmp(bytes.data(), model.data(), model.size()) == 0);
  CHECK(demo_study_text() == read_file(THERMOCLINE_SOURCE_DIR "/sim/studies/demo.toml"));
}

TEST_CASE("preset:demo is a model like a file's") {
  const ModelSpec spec = parse_model_spec("preset:demo");
  CHECK(spec.path == kDemoModel);
  CHECK_FALSE(spec.synthetic());
  CHECK(facts_of(spec).weights == "trained-demo");
  const TempDir folder;
  const Conversion conversion = convert_checkpoint("preset:demo", folder / "copy.gguf",
                                                   {.dtype = DType::f16, .name = "a copy"});
  CHECK(conversion.tensor_count == open_checkpoint("preset:demo")->tensors().size());
  const auto copy = open_checkpoint(folder / "copy.gguf");
  CHECK(copy->shape() == open_checkpoint("preset:demo")->shape());
  CHECK(copy->provenance() == "trained-demo");
  CHECK(copy->predictor_threshold() == 0.0f);
}

TEST_CASE("preset:demo takes no options, and a slip of it is recognised") {
  CHECK_THAT(failure_of([] { parse_model_spec("preset:demo,layers=2"); }).message,
             Contains("expected preset:demo alone"));
  CHECK_THAT(failure_of([] { parse_model_spec("preset:dem"); }).message,
             Contains("did you mean 'demo'?"));
  CHECK_THAT(failure_of([] { parse_model_spec("demo"); }).message,
             Contains("did you mean 'preset:demo'?"));
}

TEST_CASE("the demo model's tokens are those that transformers made of the same text") {
  const auto tokenizer = tokenizer_of(*open_checkpoint(std::string(kDemoModel)));
  std::vector<int32_t> tokens = {tokenizer->bos_id()};
  for (const int32_t token : tokenizer->encode(read_file(kOracle + "text.txt"))) {
    tokens.push_back(token);
  }
  CHECK(tokenizer->adds_bos());
  CHECK(nlohmann::json(tokens) == nlohmann::json::parse(read_file(kOracle + "tokens.json")));
  const auto named = open_tokenizer(std::string(kDemoModel), 2048);
  CHECK(named->encode("def f(x):\n    return x") == tokenizer->encode("def f(x):\n    return x"));
}

}  // namespace
}  // namespace thermocline::test
