// A model whose neurons lie in bundles computes what the same model computes from plain tensors.
#include <catch2/catch.hpp>

#include "models/convert.h"
#include "tests/runtime/local_run.h"
#include "tests/support.h"

namespace thermocline::test {

TEST_CASE("logits from neuron bundles are those from plain tensors, bit for bit") {
  const DType dtype = GENERATE(DType::f32, DType::q8_0, DType::q4_0);
  const TempDir folder;
  const auto synthetic = open_weights(parse_model_spec("preset:tiny,layers=2,type=f32"));
  write_gguf(*synthetic, folder / "in.gguf", {.name = "tiny", .description = "preset:tiny"});
  convert_checkpoint(folder / "in.gguf", folder / "plain.gguf", {.dtype = dtype});
  convert_checkpoint(folder / "in.gguf", folder / "bundles.gguf",
                     {.dtype = dtype, .layout = GgufLayout::bundles});
  const auto plain = open_weights(parse_model_spec(folder / "plain.gguf"));
  const auto bundles = open_weights(parse_model_spec(folder / "bundles.gguf"));
  CHECK(bundle_types(*plain) == bundle_types(*bundles));
  CHECK(plain->dtype(Matrix::down_t, 0) == dtype);
  for (const char* layout : {"pp1,tp1", "pp2,tp2"}) {
    LocalRunOptions options;
    options.layout = layout;
    options.prompt = {1, 5, 9, 200, 31};
    options.new_token_max = 4;
    const LocalRunResult expected = run_locally(*plain, options);
    REQUIRE(!expected.logits.empty());
    CHECK(run_locally(*bundles, options).logits == expected.logits);
  }
}

}  // namespace thermocline::test
