// What may follow --model.
#include "models/model_spec.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Contains;

Failure spec_failure(std::string_view text) {
  return failure_of([text] { parse_model_spec(text); });
}

TEST_CASE("a preset alone has its own defaults") {
  const ModelSpec spec = parse_model_spec("preset:relullama-70b");
  CHECK(spec.text == "preset:relullama-70b");
  CHECK(spec.path.empty());
  CHECK(spec.synthetic());
  CHECK(spec.preset == &shape_preset("relullama-70b"));
  CHECK(spec.shape == spec.preset->shape);
  CHECK(spec.dtype == DType::q4_0);
  CHECK(spec.seed == 1);
  CHECK(spec.regime.mean == 0.28f);
}

TEST_CASE("every key of a preset is applied, in any order") {
  const ModelSpec spec = parse_model_spec(
      "preset:llama-2-70b,seed=18446744073709551615,activity=0.1,type=bf16,layers=2");
  CHECK(spec.shape.layer_count == 2);
  CHECK(spec.preset->shape.layer_count == 80);
  CHECK(spec.shape.model_dim == 8192);
  CHECK(spec.dtype == DType::bf16);
  CHECK(spec.seed == UINT64_MAX);
  CHECK(spec.regime.mean == 0.1f);
  CHECK(parse_model_spec("preset:tiny,layers=4").shape == shape_preset("tiny").shape);
}

TEST_CASE("a regime's numbers are overridden one by one, wherever it stands among the keys") {
  const ModelSpec spec = parse_model_spec(
      "preset:relullama-70b,drift=0.5,correlation=0.3,regime=hermes,layers=2,take=even");
  CHECK(spec.regime.name == "hermes");
  CHECK(spec.regime.mean == 0.28f);
  CHECK(spec.regime.concentration == 0.714f);
  CHECK(spec.regime.correlation == 0.3f);
  CHECK(spec.regime.drift == 0.5f);
  CHECK(spec.take_even);
  CHECK(parse_model_spec("preset:tiny,profile=spread,share=0.3").regime.profile ==
        LayerProfile::spread);
  CHECK(parse_model_spec("preset:tiny,share=0.3").regime.share_80 == 0.3f);
  CHECK(parse_model_spec("preset:opt-like").regime.name == "flash-opt");
  CHECK(parse_model_spec("preset:prosparse").regime.name == "prosparse");
  CHECK(parse_model_spec("preset:swiglu-70b").regime.name == "swiglu");
  CHECK_FALSE(parse_model_spec("preset:tiny").take_even);
}

TEST_CASE("anything else is a path") {
  for (const char* text : {"model.gguf", "./tiny", "a,b=c.bin", "presets:tiny", "/x/preset:tiny"}) {
    const ModelSpec spec = parse_model_spec(text);
    INFO(text);
    CHECK(spec.path == text);
    CHECK(spec.text == text);
    CHECK_FALSE(spec.synthetic());
  }
}

TEST_CASE("a preset without its prefix is recognised, unless a file has that name") {
  for (const char* text : {"tiny", "relullama-70b,layers=2"}) {
    const Failure failure = spec_failure(text);
    CHECK(failure.kind == ErrorKind::usage);
    CHECK_THAT(failure.message, Contains("did you mean 'preset:" + std::string(text) + "'?"));
  }
  const TempDir folder;
  const std::string before = std::filesystem::current_path();
  std::ofstream(folder / "tiny") << "a file";
  std::filesystem::current_path(folder.path());
  const ModelSpec spec = parse_model_spec("tiny");
  std::filesystem::current_path(before);
  CHECK(spec.path == "tiny");
}

TEST_CASE("bad specs are usage errors that say what was expected") {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {"", "found nothing"},
      {"preset:", "unknown model preset ''"},
      {"preset:tinny", "did you mean 'tiny'?"},
      {"preset:tiny,layer=2", "did you mean 'layers'?"},
      {"preset:tiny,Type=f32", "did you mean 'type'?"},
      {"preset:tiny,", "unknown key"},
      {"preset:tiny,,layers=1", "unknown key"},
      {"preset:tiny,=1", "unknown key"},
      {"preset:tiny,layers", "expected layers=VALUE"},
      {"preset:tiny,layers=", "expected a whole number"},
      {"preset:tiny,layers=0", "expected layers from 1 to 4 (tiny), found 0"},
      {"preset:tiny,layers=5", "found 5"},
      {"preset:tiny,layers=4294967297", "found 4294967297"},
      {"preset:tiny,layers=-1", "found '-1'"},
      {"preset:tiny,layers=1,layers=2", "expected layers once"},
      {"preset:tiny,type=q4", "did you mean 'q4_0'?"},
      {"preset:tiny,type=q4_k", "at most 32 elements for synthetic weights, found q4_k (256)"},
      {"preset:tiny,seed=x", "found 'x'"},
      {"preset:tiny,seed=1=2", "found '1=2'"},
      {"preset:tiny,activity=0", "expected activity from"},
      {"preset:tiny,activity=1", "expected activity from"},
      {"preset:tiny,activity=-0.5", "expected activity from"},
      {"preset:tiny,activity=nan", "found 'nan'"},
      {"preset:tiny,regime=hermse", "did you mean 'hermes'?"},
      {"preset:tiny,regime=", "unknown activity regime ''"},
      {"preset:tiny,drift=0.8", "expected drift from 0 to 0.7"},
      {"preset:tiny,drift=-0.1", "expected drift from 0"},
      {"preset:tiny,correlation=1", "expected correlation from 0 to 0.75"},
      {"preset:tiny,share=1", "expected share from"},
      {"preset:tiny,profile=teel", "did you mean 'teal'?"},
      {"preset:tiny,take=evn", "did you mean 'even'?"},
      {"preset:tiny,activity=28%", "found '28%'"},
  };
  for (const auto& c : cases) {
    INFO(c.text);
    const Failure failure = spec_failure(c.text);
    CHECK(failure.kind == ErrorKind::usage);
    CHECK_THAT(failure.message, Contains("--model") && Contains(c.says));
  }
}

}  // namespace
}  // namespace thermocline::test
