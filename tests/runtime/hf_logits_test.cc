// Models that transformers stored, run here: logits against transformers' own, in every layout.
#include <catch2/catch.hpp>
#include <string>

#include "models/weights.h"
#include "tests/npy_files.h"
#include "tests/runtime/local_run.h"

namespace thermocline::test {
namespace {

struct StoredModel {
  const char* folder;        // in tests/oracles/hf_models, made by make_hf_models.py
  const char* native;        // logits that transformers computed in the stored type, if not f32
  double native_difference;  // what that arithmetic may differ by
  FfnActivation activation;
  bool tied, scaled;
};

// bf16 has 8 bits, f16 11; both of transformers' runs round every intermediate result.
constexpr StoredModel kModels[] = {
    {"silu_f32", nullptr, 0, FfnActivation::silu, false, false},
    {"relu_tied_f32_3_shards", nullptr, 0, FfnActivation::relu, true, true},
    {"silu_llama3_bf16", "native.npy", 2e-2, FfnActivation::silu, false, true},
    {"relu_f16_3_shards", "native.npy", 2e-3, FfnActivation::relu, false, false},
};

std::string path_of(const StoredModel& model, const std::string& file = "") {
  return std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/hf_models/" + model.folder + "/" +
         file;
}

// The tokens of make_hf_models.py: twenty as prompt, twenty forced.
LocalRunOptions forced_run(const std::string& layout) {
  LocalRunOptions options;
  options.layout = layout;
  options.prompt.clear();
  for (int32_t i = 0; i < 40; ++i) {
    (i < 20 ? options.prompt : options.forced).push_back((7 + 13 * i * i) % 40);
  }
  return options;
}

}  // namespace

TEST_CASE("logits of models that transformers stored are transformers' logits") {
  for (const StoredModel& model : kModels) {
    INFO(model.folder);
    const auto weights = open_weights(parse_model_spec(path_of(model)));
    CHECK(weights->provenance() == "real");
    CHECK(weights->shape().activation == model.activation);
    CHECK(weights->shape().tied_embeddings == model.tied);
    CHECK(weights->shape().rope_divisors.empty() == !model.scaled);
    const auto exact = load_npy(path_of(model, "f32.npy"));  // of the stored weights, in f32
    for (const std::string layout : {"pp1,tp1", "pp2,tp1", "pp1,tp2", "pp2,tp2"}) {
      const bool one_head = weights->shape().kv_head_count == 1;
      if (one_head && layout.ends_with("tp2")) continue;
      INFO(layout);
      const auto logits = run_locally(*weights, forced_run(layout)).logits;
      CHECK(relative_difference(exact, logits) < 1e-4);
      if (model.native == nullptr) continue;
      CHECK(relative_difference(load_npy(path_of(model, model.native)), logits) <
            model.native_difference);
    }
  }
}

TEST_CASE("transformers' models differ where the test would see it") {
  // Scaling, tying and permutation each matter: without them the logits are others.
  const auto weights = open_weights(parse_model_spec(path_of(kModels[2])));
  const auto exact = load_npy(path_of(kModels[2], "f32.npy"));
  class Unscaled final : public WeightSource {
   public:
    explicit Unscaled(const WeightSource& from) : from_(from), shape_(from.shape()) {
      shape_.rope_divisors.clear();
    }
    const ModelShape& shape() const override { return shape_; }
    DType dtype(Matrix matrix, uint32_t layer) const override { return from_.dtype(matrix, layer); }
    void read(Matrix matrix, uint32_t layer, const MatrixSlice& slice,
              std::byte* out) const override {
      from_.read(matrix, layer, slice, out);
    }
    void read(NormVector vector, uint32_t layer, float* out) const override {
      from_.read(vector, layer, out);
    }
    std::string provenance() const override { return from_.provenance(); }
    std::string hash() const override { return from_.hash(); }

   private:
    const WeightSource& from_;
    ModelShape shape_;
  };
  const auto logits = run_locally(Unscaled(*weights), forced_run("pp1,tp1")).logits;
  CHECK(relative_difference(exact, logits) > 1e-3);
}

}  // namespace thermocline::test
