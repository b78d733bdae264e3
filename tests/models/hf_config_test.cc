// config.json: the shape it gives, its defaults, and what is refused by name.
#include "models/hf_config.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>

#include "models/json_reader.h"
#include "models/mapped_file.h"
#include "models/rope_scaling.h"
#include "models/text.h"
#include "tests/hf_files.h"
#include "tests/models/parse_bytes.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

ModelShape parse(const std::string& text) {
  return parse_hf_config(std::as_bytes(std::span(text)), "FILE");
}

std::string refusal(const std::string& text) {
  return input_error([&] { parse(text); });
}

// The config of small_shape() with fields after it.
std::string with(const std::string& fields) { return hf_config(small_shape(), "," + fields); }

std::string without(const std::string& key) {
  auto json = nlohmann::json::parse(hf_config(small_shape()));
  json.erase(key);
  return json.dump();
}

std::string changed(const std::string& key, const nlohmann::json& value) {
  auto json = nlohmann::json::parse(hf_config(small_shape()));
  json[key] = value;
  return json.dump();
}

constexpr const char* kLlama3Rule =
    R"("rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
    R"("original_max_position_embeddings":8192)";

}  // namespace

TEST_CASE("config.json gives every field of the shape") {
  ModelShape shape = small_shape();
  CHECK(parse(hf_config(shape)) == shape);
  shape.tied_embeddings = true;
  CHECK(parse(hf_config(shape)) == shape);
}

TEST_CASE("what config.json leaves out has transformers' defaults") {
  const ModelShape small = small_shape();
  CHECK(parse(without("num_key_value_heads")).kv_head_count == small.head_count);
  CHECK(parse(without("head_dim")).head_dim == 16);
  CHECK(parse(changed("head_dim", nullptr)).head_dim == 16);
  CHECK(parse(changed("head_dim", 32)).head_dim == 32);
  CHECK(parse(without("rope_theta")).rope_theta == 10000.0f);
  CHECK(parse(without("rms_norm_eps")).norm_epsilon == 1e-6f);
  CHECK(parse(without("max_position_embeddings")).context_length == 2048);
  CHECK_FALSE(parse(without("tie_word_embeddings")).tied_embeddings);
  CHECK(parse(without("architectures")) == small);
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "vocab_size", "model_type"}) {
    CHECK_THAT(refusal(without(key)), Contains(fmt::format("FILE: expected the field {}", key)));
  }
}

TEST_CASE("the activation is the file's: silu, relu, fatrelu") {
  CHECK(parse(with(R"("hidden_act":"silu")")).activation == FfnActivation::silu);
  CHECK(parse(with(R"("hidden_act":"relu")")).activation == FfnActivation::relu);
  std::string prosparse = with(R"("hidden_act":"fatrelu","hidden_act_param":0.01)");
  prosparse = replaced(prosparse, R"("model_type":"llama")", R"("model_type":"sparsellama")");
  prosparse = replaced(prosparse, "LlamaForCausalLM", "SparseLlamaForCausalLM");
  CHECK(parse(prosparse).activation == FfnActivation::fatrelu);
  CHECK(parse(prosparse).fatrelu_threshold == 0.01f);
  CHECK_THAT(refusal(with(R"("hidden_act":"fatrelu")")), Contains("the field hidden_act_param"));
  CHECK_THAT(refusal(with(R"("hidden_act":"fatrelu","hidden_act_param":-1)")),
             Contains("fatrelu_threshold of at least 0"));
  CHECK_THAT(refusal(with(R"("hidden_act":"gelu")")),
             Contains("hidden_act: expected one of silu, swish, relu, fatrelu, found \"gelu\""));
}

TEST_CASE("what is not a LLaMA decoder is refused by name") {
  CHECK_THAT(refusal(changed("model_type", "mistral")),
             Contains("model_type: expected one of llama, sparsellama, found \"mistral\""));
  CHECK_THAT(refusal(changed("architectures", {"LlamaForSequenceClassification"})),
             Contains("architectures[0]") && Contains("LlamaForSequenceClassification"));
  CHECK_THAT(refusal(with(R"("attention_bias":true)")), Contains("attention_bias: expected false"));
  CHECK_THAT(refusal(with(R"("mlp_bias":true)")), Contains("mlp_bias: expected false"));
  CHECK_THAT(refusal(with(R"("quantization_config":{"quant_method":"gptq"})")),
             Contains("quantization_config"));
  CHECK_THAT(refusal(with(R"("partial_rotary_factor":0.5)")), Contains("found 0.5"));
  CHECK(parse(with(R"("attention_bias":false,"mlp_bias":null,"torch_dtype":"float16")")) ==
        small_shape());
}

TEST_CASE("a model made for this program says where it is from and when a neuron is predicted") {
  const auto notes = [](const std::string& text) {
    return parse_hf_notes(std::as_bytes(std::span(text)), "FILE");
  };
  CHECK(notes(hf_config(small_shape())).provenance == "real");
  CHECK_FALSE(notes(hf_config(small_shape())).predictor_threshold);
  CHECK(notes(with(R"("thermocline":{})")).provenance == "real");
  const HfNotes found =
      notes(with(R"("thermocline":{"provenance":"trained-demo","predictor_threshold":-0.5})"));
  CHECK(found.provenance == "trained-demo");
  CHECK(found.predictor_threshold == -0.5f);
  const auto refused = [&](const std::string& object) {
    return input_error([&] { notes(with("\"thermocline\":" + object)); });
  };
  CHECK_THAT(refused(R"({"provenance":"invented"})"),
             Contains("one of real, trained-demo, synthetic") && Contains("invented"));
  CHECK_THAT(refused(R"({"predictor_threshold":1e300})"), Contains("a finite number"));
  CHECK_THAT(refused(R"({"predictor_threshold":"0"})"), Contains("predictor_threshold"));
  CHECK_THAT(refused("[1]"), Contains("an object"));
}

TEST_CASE("hostile configurations are refused") {
  check_truncations(hf_config(small_shape()), [](const std::string& text) { parse(text); });
  CHECK_THAT(refusal("[]"), Contains("an object"));
  CHECK_THAT(refusal(changed("hidden_size", -64)), Contains("hidden_size") && Contains("-64"));
  CHECK_THAT(refusal(changed("hidden_size", 64.5)), Contains("64.5"));
  CHECK_THAT(refusal(changed("hidden_size", UINT64_MAX)), Contains("below 2^32"));
  CHECK_THAT(refusal(changed("num_attention_heads", 0)), Contains("head_count"));
  CHECK_THAT(refusal(changed("head_dim", 4294967295u)), Contains("head_dim from 1 to"));
  CHECK_THAT(refusal(changed("num_key_value_heads", 3)), Contains("divides"));
  CHECK_THAT(refusal(changed("rope_theta", -1)), Contains("rope_theta: expected a number above"));
  CHECK_THAT(refusal(changed("rope_theta", 1e300)), Contains("rope_theta"));
  CHECK_THAT(refusal(changed("rms_norm_eps", 0)), Contains("norm_epsilon"));
  CHECK_THAT(refusal(with(R"("hidden_size":64)")), Contains("'hidden_size' again"));
  auto indivisible = nlohmann::json::parse(without("head_dim"));
  indivisible["num_attention_heads"] = 7;
  indivisible["num_key_value_heads"] = 7;
  CHECK_THAT(refusal(indivisible.dump()), Contains("7 and 64"));
}

TEST_CASE("rotary scaling is read from both fields and refused where it is unknown") {
  CHECK(parse(with(R"("rope_scaling":null)")).rope_divisors.empty());
  CHECK(parse(with(R"("rope_scaling":{"type":"default"})")).rope_divisors.empty());
  CHECK(parse(with(R"("rope_parameters":{"rope_theta":777.0})")).rope_theta == 777.0f);
  const std::vector<float> thirds(8, 3.0f);
  CHECK(parse(with(R"("rope_scaling":{"type":"linear","factor":3})")).rope_divisors == thirds);
  CHECK(parse(with(R"("rope_scaling":{"rope_type":"linear","factor":3})")).rope_divisors == thirds);
  const auto old_form = parse(with(fmt::format(R"("rope_scaling":{{{}}})", kLlama3Rule)));
  const auto new_form =
      parse(with(fmt::format(R"("rope_parameters":{{{},"rope_theta":50000.0}})", kLlama3Rule)));
  CHECK(old_form.rope_divisors.size() == 8);
  CHECK(old_form == new_form);
  for (const char* rule : {"yarn", "dynamic", "longrope"}) {
    CHECK_THAT(
        refusal(with(fmt::format(R"("rope_scaling":{{"type":"{}","factor":2}})", rule))),
        Contains("rope_scaling.type: expected one of default, linear, llama3") && Contains(rule));
  }
  CHECK_THAT(refusal(with(R"("rope_scaling":{"type":"linear"})")), Contains("the field factor"));
  CHECK_THAT(refusal(with(R"("rope_scaling":{"type":"linear","factor":0})")),
             Contains("rope_scaling.factor: expected a number above 0, found 0"));
  const std::string flat = replaced(kLlama3Rule, "4.0", "1.0");
  CHECK_THAT(refusal(with(fmt::format(R"("rope_scaling":{{{}}})", flat))),
             Contains("more than low_freq_factor"));
}

TEST_CASE("scaled rotary frequencies are those of transformers") {
  const std::string path =
      std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/hf_models/rope_frequencies.json";
  const auto json = parse_json(map_file(path).bytes, path);
  REQUIRE(json.size() >= 4);
  for (const auto& [name, model] : json.items()) {
    INFO(name);
    auto config = nlohmann::json::parse(hf_config(small_shape()));
    config["rope_parameters"] = model["rope"];
    config["head_dim"] = model["head_dim"];
    const std::vector<double> found = rope_frequencies(parse(config.dump()));
    const auto expected = model["frequencies"].get<std::vector<double>>();
    REQUIRE(found.size() == expected.size());
    // transformers computes in f32.
    for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).epsilon(2e-6));
  }
}

TEST_CASE("Llama-3.1's rule leaves fast pairs, slows slow ones, and blends between") {
  const auto divisors = llama3_rope_divisors({8, 1, 4, 8192}, 500000, 128);
  REQUIRE(divisors.size() == 64);
  CHECK(divisors.front() == 1.0f);
  CHECK(divisors.back() == 8.0f);
  CHECK(std::is_sorted(divisors.begin(), divisors.end()));
  CHECK(std::count_if(divisors.begin(), divisors.end(),
                      [](float divisor) { return divisor > 1 && divisor < 8; }) > 3);
}

}  // namespace thermocline::test
