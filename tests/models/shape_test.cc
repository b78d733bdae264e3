// Shapes: published sizes of the presets, and what validate refuses.
#include "models/shape.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "models/activity_regime.h"
#include "tests/models/failures.h"

namespace thermocline::test {
namespace {

using Catch::Contains;

TEST_CASE("presets have the published parameter counts") {
  const struct {
    const char* name;
    uint64_t parameters;
  } cases[] = {
      {"llama-2-7b", 6'738'415'616},     {"llama-2-13b", 13'015'864'320},
      {"llama-2-70b", 68'976'648'192},   {"llama-3-70b", 70'553'706'496},
      {"relullama-70b", 68'976'648'192}, {"prosparse-13b", 13'015'864'320},
  };
  for (const auto& c : cases) {
    INFO(c.name);
    CHECK(parameter_count(shape_preset(c.name).shape) == c.parameters);
  }
}

TEST_CASE("tied embeddings are counted once") {
  ModelShape shape = shape_preset("llama-2-7b").shape;
  const uint64_t untied = parameter_count(shape);
  shape.tied_embeddings = true;
  CHECK(untied - parameter_count(shape) == uint64_t{32000} * 4096);
}

TEST_CASE("a 70B bundle and layer have the bytes of the formats") {
  const ModelShape& shape = shape_preset("llama-2-70b").shape;
  CHECK(shape.neuron_count() == 2'293'760);
  CHECK(bundle_bytes(shape, DType::f16) == 49152);
  CHECK(bundle_bytes(shape, DType::q8_0) == 26112);
  CHECK(bundle_bytes(shape, DType::q4_0) == 13824);
  CHECK(ffn_bytes(shape, DType::q4_0) / shape.layer_count == uint64_t{378} << 20);
  CHECK(ffn_bytes(shape, DType::f16) == uint64_t{105} << 30);
}

TEST_CASE("every preset is valid, fits the byte tokenizer and can be quantised") {
  REQUIRE(shape_presets().size() == 10);
  for (const ShapePreset& preset : shape_presets()) {
    INFO(preset.name);
    validate(preset.shape, std::string(preset.name));
    CHECK(&shape_preset(preset.name) == &preset);
    CHECK(preset.shape.vocab_size >= 259);
    CHECK(preset.shape.model_dim % 32 == 0);
    CHECK(preset.shape.q_dim() % 32 == 0);
    CHECK(preset.shape.head_dim * preset.shape.head_count == preset.shape.model_dim);
    CHECK(activity_regime(preset.regime).name == preset.regime);
    CHECK_FALSE(preset.summary.empty());
  }
}

TEST_CASE("presets differ where their models do") {
  CHECK(shape_preset("relullama-70b").shape.activation == FfnActivation::relu);
  CHECK(shape_preset("relullama-70b").shape.context_length == 2048);
  CHECK(shape_preset("prosparse-13b").shape.activation == FfnActivation::fatrelu);
  CHECK(shape_preset("prosparse-13b").shape.fatrelu_threshold == 0.01f);
  CHECK(shape_preset("llama-3-70b").shape.rope_theta == 500000.0f);
  CHECK(shape_preset("llama-2-70b").shape.kv_head_count == 8);
  CHECK(shape_preset("swiglu-70b").shape == shape_preset("llama-2-70b").shape);
  CHECK(shape_preset("prosparse").shape.fatrelu_threshold == 0.01f);
  for (const char* name : {"prosparse", "opt-like", "swiglu-70b", "relullama-70b"}) {
    CHECK(shape_preset(name).shape.model_dim == 8192);
    CHECK(shape_preset(name).shape.ffn_dim == 28672);
  }
}

TEST_CASE("an unknown preset, activation or type is a usage error with the nearest name") {
  const Failure preset = failure_of([] { shape_preset("llama-70b"); });
  CHECK(preset.kind == ErrorKind::usage);
  CHECK_THAT(preset.message, Contains("'llama-70b'") && Contains("prosparse-13b"));
  CHECK_THAT(failure_of([] { shape_preset("relulama-70b"); }).message,
             Contains("did you mean 'relullama-70b'?"));
  CHECK_THAT(failure_of([] { ffn_activation_by_name("swish"); }).message,
             Contains("relu, fatrelu, silu"));
  CHECK_THAT(failure_of([] { dtype_by_name("Q4_0"); }).message, Contains("did you mean 'q4_0'?"));
}

TEST_CASE("names of activations and types are their own inverse") {
  for (const auto activation : {FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu}) {
    CHECK(ffn_activation_by_name(name_of(activation)) == activation);
  }
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(dtype_by_name(facts(dtype).name) == dtype);
  }
}

void check_refused(const char* what, void (*change)(ModelShape& shape)) {
  ModelShape shape = shape_preset("tiny").shape;
  change(shape);
  INFO(what);
  const Failure failure = failure_of([&shape] { validate(shape, "file.gguf"); });
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains("file.gguf: expected") && Contains(what));
}

TEST_CASE("a dimension of zero or beyond any model is an input error that names it") {
  const struct {
    const char* name;
    uint32_t ModelShape::*field;
  } cases[] = {
      {"layer_count", &ModelShape::layer_count},
      {"model_dim", &ModelShape::model_dim},
      {"ffn_dim", &ModelShape::ffn_dim},
      {"head_count", &ModelShape::head_count},
      {"kv_head_count", &ModelShape::kv_head_count},
      {"head_dim", &ModelShape::head_dim},
      {"vocab_size", &ModelShape::vocab_size},
      {"context_length", &ModelShape::context_length},
  };
  for (const auto& c : cases) {
    for (const uint32_t bad : {0u, UINT32_MAX, 1u << 31}) {
      ModelShape shape = shape_preset("tiny").shape;
      shape.*c.field = bad;
      INFO(c.name << " = " << bad);
      const Failure failure = failure_of([&shape] { validate(shape, "x"); });
      CHECK(failure.kind == ErrorKind::input);
      CHECK_THAT(failure.message, Contains(c.name) && Contains(std::to_string(bad)));
    }
  }
}

TEST_CASE("the types of a bundle have one name where they are one, and count in its bytes") {
  const ModelShape shape = shape_preset("llama-2-70b").shape;
  const BundleTypes same = DType::q4_k, mixed = {DType::q4_k, DType::q5_k, DType::q8_0};
  CHECK(name_of(same) == "q4_k");
  CHECK(name_of(mixed) == "q4_k+q5_k+q8_0");
  for (const BundleTypes& types : {same, mixed}) {
    CHECK(bundle_types_by_name(name_of(types)) == types);
  }
  CHECK(bundle_bytes(shape, same) == 3 * 4608);
  CHECK(bundle_bytes(shape, mixed) == 4608 + 5632 + 8704);
  for (const char* name : {"", "q4", "q4_k+q5_k", "q4_k+q5_k+q8_0+f16", "q4_k++q8_0"}) {
    INFO(name);
    CHECK(failure_of([name] { bundle_types_by_name(name); }).kind == ErrorKind::usage);
  }
}

TEST_CASE("rotary pairs turn by powers of theta over their divisors") {
  ModelShape shape = shape_preset("tiny").shape;
  const std::vector<double> plain = rope_frequencies(shape);
  REQUIRE(plain.size() == shape.head_dim / 2);
  CHECK(plain[0] == 1.0);
  CHECK(plain[1] == std::pow(double{shape.rope_theta}, -2.0 / shape.head_dim));
  shape.rope_divisors.assign(shape.head_dim / 2, 1.0f);
  CHECK(rope_frequencies(shape) == plain);
  shape.rope_divisors[1] = 4.0f;
  CHECK(rope_frequencies(shape)[1] == plain[1] / 4);
  CHECK(rope_frequencies(shape)[2] == plain[2]);
}

TEST_CASE("inconsistent or absurd values are input errors") {
  check_refused("kv_head_count that divides", [](ModelShape& s) { s.kv_head_count = 3; });
  check_refused("kv_head_count that divides", [](ModelShape& s) { s.kv_head_count = 16; });
  check_refused("even head_dim", [](ModelShape& s) { s.head_dim = 15; });
  check_refused("rope_theta", [](ModelShape& s) { s.rope_theta = 0; });
  check_refused("rope_theta", [](ModelShape& s) { s.rope_theta = NAN; });
  check_refused("rope divisor", [](ModelShape& s) { s.rope_divisors = {1, 2}; });
  check_refused("rope divisor",
                [](ModelShape& s) { s.rope_divisors.assign(s.head_dim / 2, 0.0f); });
  check_refused("rope divisor", [](ModelShape& s) { s.rope_divisors.assign(s.head_dim / 2, NAN); });
  check_refused("norm_epsilon", [](ModelShape& s) { s.norm_epsilon = -1e-5f; });
  check_refused("norm_epsilon", [](ModelShape& s) { s.norm_epsilon = NAN; });
  check_refused("fatrelu_threshold", [](ModelShape& s) { s.fatrelu_threshold = INFINITY; });
  check_refused("fatrelu_threshold", [](ModelShape& s) { s.fatrelu_threshold = -1; });
  check_refused("activation", [](ModelShape& s) { s.activation = static_cast<FfnActivation>(9); });
}

}  // namespace
}  // namespace thermocline::test
