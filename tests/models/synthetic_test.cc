// Synthetic weights: their addresses, their formats and the firing rates that a forward pass
// yields.
#include "models/synthetic.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/activity_model.h"
#include "models/activity_profile.h"
#include "models/counter_random.h"
#include "models/firing_rates.h"
#include "models/hash.h"
#include "models/quantize.h"
#include "models/synthetic_plan.h"
#include "tests/models/reference_decoder.h"
#include "tests/published_profile.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

constexpr DType kDTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                             DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1};
constexpr Matrix kMatrices[] = {Matrix::token_embedding,
                                Matrix::head,
                                Matrix::q,
                                Matrix::k,
                                Matrix::v,
                                Matrix::o,
                                Matrix::gate,
                                Matrix::up,
                                Matrix::down_t};

// A model of our own shape; presets have theirs.
ModelSpec spec_of(const std::string& text, const ModelShape& shape) {
  ModelSpec spec = parse_model_spec(text);
  spec.shape = shape;
  return spec;
}

ModelShape small_shape() {
  ModelShape shape = shape_preset("tiny").shape;
  shape.layer_count = 2;
  shape.model_dim = 128;
  shape.ffn_dim = 96;
  shape.vocab_size = 50;
  return shape;
}

ModelShape medium_shape() {
  ModelShape shape = shape_preset("tiny").shape;
  shape.layer_count = 2;
  shape.model_dim = 512;
  shape.ffn_dim = 2048;
  shape.head_count = 8;
  shape.kv_head_count = 2;
  shape.head_dim = 64;
  shape.vocab_size = 3000;
  return shape;
}

std::vector<std::byte> read(const WeightSource& weights, Matrix matrix, uint32_t layer,
                            const MatrixSlice& slice) {
  const uint64_t row_bytes =
      bytes_of(weights.dtype(matrix, layer), slice.col_end - slice.col_begin);
  std::vector<std::byte> bytes((slice.row_end - slice.row_begin) * row_bytes);
  weights.read(matrix, layer, slice, bytes.data());
  return bytes;
}

std::vector<float> values(const WeightSource& weights, Matrix matrix, uint32_t layer = 0) {
  const MatrixSize size = size_of(matrix, weights.shape());
  const auto bytes = read(weights, matrix, layer, {0, size.rows, 0, size.cols});
  std::vector<float> result(size.rows * size.cols);
  dequantize(weights.dtype(matrix, layer), bytes.data(), result.size(), result.data());
  return result;
}

std::vector<uint32_t> random_tokens(size_t count, uint32_t vocab_size) {
  std::vector<uint32_t> tokens(count);
  const RandomStream stream(99, 0);
  for (size_t i = 0; i < count; ++i) {
    uint8_t bytes[RandomStream::kBytesPerBlock];
    stream.blocks(0, static_cast<uint32_t>(i), 1, bytes);
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    tokens[i] = word % vocab_size;
  }
  return tokens;
}

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

double correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double mx = mean(x), my = mean(y);
  double xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xy / std::sqrt(xx * yy);
}

// Share of neurons, most active first, that carries 80 % of the firings.
double share_of_80_percent(std::vector<double> rates) {
  std::sort(rates.rbegin(), rates.rend());
  const double target = 0.8 * std::accumulate(rates.begin(), rates.end(), 0.0);
  size_t count = 0;
  for (double sum = 0; sum < target; ++count) sum += rates[count];
  return static_cast<double>(count) / static_cast<double>(rates.size());
}

// What one layer did over the tokens of a text.
struct LayerFirings {
  std::vector<double> rates;  // by neuron
  double adjacent_overlap;    // share of a token's active neurons that are active at the next
};

LayerFirings firings(const TokenColumns& gate, double threshold) {
  LayerFirings result{std::vector<double>(gate.rows), 0};
  double both = 0, first = 0;
  for (uint64_t n = 0; n < gate.rows; ++n) {
    const float* g = gate.row(n);
    double fired = 0;
    for (uint64_t t = 0; t < gate.tokens; ++t) {
      fired += g[t] > threshold;
      if (t + 1 == gate.tokens) continue;
      first += g[t] > threshold;
      both += g[t] > threshold && g[t + 1] > threshold;
    }
    result.rates[n] = fired / static_cast<double>(gate.tokens);
  }
  result.adjacent_overlap = both / first;
  return result;
}

std::vector<LayerFirings> run(const WeightSource& weights, const std::vector<uint32_t>& tokens) {
  std::vector<LayerFirings> result;
  const double threshold = activation_threshold(weights.shape());
  ReferenceDecoder(weights).run(tokens, [&](uint32_t, const TokenColumns& gate) {
    result.push_back(firings(gate, threshold));
  });
  return result;
}

TEST_CASE("any slice equals the cut of the whole") {
  ModelShape shape = small_shape();
  for (const DType dtype : kDTypes) {
    ModelSpec spec = spec_of("preset:tiny", shape);
    spec.dtype = dtype;
    const auto weights = make_synthetic_weights(spec);
    const uint64_t items = facts(dtype).items_per_block;
    for (const Matrix matrix : kMatrices) {
      const MatrixSize size = size_of(matrix, shape);
      const auto whole = read(*weights, matrix, 1, {0, size.rows, 0, size.cols});
      const uint64_t row_bytes = bytes_of(dtype, size.cols);
      // Blocks where the type has them, odd columns where it has none.
      const uint64_t begin = items == 1 ? 13 : 32, end = items == 1 ? size.cols - 3 : 96;
      for (const MatrixSlice& slice :
           {MatrixSlice{0, size.rows, begin, end}, MatrixSlice{7, 9, 0, end},
            MatrixSlice{size.rows - 1, size.rows, begin, size.cols},
            MatrixSlice{3, 3, 0, size.cols}}) {
        const auto part = read(*weights, matrix, 1, slice);
        const uint64_t part_bytes = bytes_of(dtype, slice.col_end - slice.col_begin);
        bool equal = true;
        for (uint64_t row = slice.row_begin; row < slice.row_end; ++row) {
          equal &= std::memcmp(part.data() + (row - slice.row_begin) * part_bytes,
                               whole.data() + row * row_bytes + bytes_of(dtype, slice.col_begin),
                               part_bytes) == 0;
        }
        INFO(facts(dtype).name << " matrix " << int(matrix));
        CHECK(equal);
      }
    }
  }
}

TEST_CASE("a shape whose rows end inside a block is served in the types without blocks") {
  ModelShape shape = small_shape();
  shape.model_dim = 50;
  shape.head_count = 3;
  shape.kv_head_count = 1;
  shape.head_dim = 6;
  ModelSpec spec = spec_of("preset:tiny,type=f32", shape);
  const auto weights = make_synthetic_weights(spec);
  for (const Matrix matrix : kMatrices) {
    for (const float value : values(*weights, matrix, 1)) REQUIRE(std::isfinite(value));
  }
}

// A change here is a new generator: then kGeneratorVersion goes up, and so do all weight hashes.
TEST_CASE("the generator makes the bytes that it has always made") {
  const std::pair<DType, const char*> goldens[] = {{DType::f32, "2ee280418cbef04c"},
                                                   {DType::f16, "b2b67afa3d336f04"},
                                                   {DType::bf16, "1ca27ec4b3f11752"},
                                                   {DType::q8_0, "8f058ebd643cc372"},
                                                   {DType::q4_0, "5ce8c18813309745"}};
  for (const auto& [dtype, golden] : goldens) {
    ModelSpec spec = spec_of("preset:tiny", small_shape());
    spec.dtype = dtype;
    const auto weights = make_synthetic_weights(spec);
    Fnv1a hash;
    for (const Matrix matrix : kMatrices) {
      const MatrixSize size = size_of(matrix, spec.shape);
      const auto bytes = read(*weights, matrix, 1, {0, size.rows, 0, size.cols});
      hash.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    INFO(facts(dtype).name);
    CHECK(hash.hex() == golden);
  }
}

TEST_CASE("one seed is one model, whatever the type") {
  const ModelShape shape = small_shape();
  ModelSpec spec = spec_of("preset:tiny,type=f32", shape);
  const auto exact = make_synthetic_weights(spec);
  for (const DType dtype : kDTypes) {
    spec.dtype = dtype;
    const auto weights = make_synthetic_weights(spec);
    CHECK(weights->dtype(Matrix::gate, 0) == dtype);
    for (const Matrix matrix : kMatrices) {
      const auto expected = values(*exact, matrix, 1), found = values(*weights, matrix, 1);
      double squares = 0, errors = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        REQUIRE(std::isfinite(found[i]));
        squares += double{expected[i]} * expected[i];
        errors += (double{found[i]} - expected[i]) * (found[i] - expected[i]);
      }
      INFO(facts(dtype).name << " matrix " << int(matrix));
      // A step of 1/2.6 standard deviations (4 bits) rounds by 1/9 of one; 5 bits by 1/19; 8 bits
      // by 1/150.
      const bool four = dtype == DType::q4_0 || dtype == DType::q4_1;
      const bool five = dtype == DType::q5_0 || dtype == DType::q5_1;
      const double bound = four ? 0.12 : five ? 0.06 : dtype == DType::q8_0 ? 0.01 : 0.004;
      CHECK(std::sqrt(errors / squares) < bound);
    }
  }
}

TEST_CASE("every preset in every type is finite, however sparse or dense", "[long]") {
  for (const ShapePreset& preset : shape_presets()) {
    for (const DType dtype : kDTypes) {
      for (const char* activity : {"0.000001", "0.28", "0.999999"}) {
        ModelSpec spec =
            parse_model_spec("preset:" + std::string(preset.name) + ",activity=" + activity);
        spec.shape.layer_count = std::min(spec.shape.layer_count, 2u);
        spec.dtype = dtype;
        const auto weights = make_synthetic_weights(spec);
        std::vector<float> norm(spec.shape.model_dim);
        for (const NormVector vector :
             {NormVector::attention_norm, NormVector::ffn_norm, NormVector::output_norm}) {
          weights->read(vector, 1, norm.data());
          for (const float value : norm) REQUIRE(std::isfinite(value));
        }
        for (const Matrix matrix : kMatrices) {
          const uint64_t cols = size_of(matrix, spec.shape).cols;
          const auto bytes = read(*weights, matrix, 1, {40, 42, 0, cols});
          std::vector<float> rows(2 * cols);
          dequantize(dtype, bytes.data(), rows.size(), rows.data());
          double squares = 0;
          for (const float value : rows) squares += double{value} * value;
          INFO(preset.name << " " << facts(dtype).name << " matrix " << int(matrix));
          CHECK(std::isfinite(squares));
          CHECK(squares > 0);
        }
      }
    }
  }
}

TEST_CASE("elements have the planned variance and mean 0, in every type") {
  const ModelShape shape = medium_shape();
  for (const DType dtype : kDTypes) {
    ModelSpec spec = spec_of("preset:tiny", shape);
    spec.dtype = dtype;
    const auto weights = make_synthetic_weights(spec);
    const auto up = values(*weights, Matrix::up, 1);
    double sum = 0, squares = 0, count = 0;
    for (size_t i = 0; i < up.size(); ++i) {
      if (i % shape.model_dim < SyntheticPlan::kConstantDim) {
        CHECK(up[i] == 0);
        continue;
      }
      sum += up[i];
      squares += double{up[i]} * up[i];
      ++count;
    }
    const double expected = 1 / std::sqrt(shape.model_dim - double{SyntheticPlan::kConstantDim});
    INFO(facts(dtype).name);
    CHECK(std::sqrt(squares / count) == Approx(expected).epsilon(0.005));
    CHECK(std::abs(sum / count) < 5 * expected / std::sqrt(count));
  }
}

TEST_CASE("seed, layer and matrix make different weights: layers do not depend on their number") {
  const ModelShape shape = small_shape();
  const auto weights = make_synthetic_weights(spec_of("preset:tiny", shape));
  const auto other = make_synthetic_weights(spec_of("preset:tiny,seed=2", shape));
  const auto up = values(*weights, Matrix::up);
  CHECK(up == values(*make_synthetic_weights(spec_of("preset:tiny", shape)), Matrix::up));
  CHECK(up != values(*other, Matrix::up));
  CHECK(up != values(*weights, Matrix::up, 1));
  CHECK(up != values(*weights, Matrix::down_t));

  const ModelSpec one = parse_model_spec("preset:relullama-70b,layers=1");
  const ModelSpec three = parse_model_spec("preset:relullama-70b,layers=3");
  const MatrixSlice slice{100, 104, 0, 8192};
  const auto of_one = make_synthetic_weights(one), of_three = make_synthetic_weights(three);
  for (const Matrix matrix : kMatrices) {
    CHECK(read(*of_one, matrix, 0, slice) == read(*of_three, matrix, 0, slice));
  }
}

TEST_CASE("the weights say what they are, and their hash names them") {
  std::set<std::string> hashes;
  const std::vector<std::string> texts = {
      "preset:tiny",          "preset:tiny,seed=2",        "preset:tiny,type=q8_0",
      "preset:tiny,layers=2", "preset:tiny,activity=.2",   "preset:relullama-70b,layers=1",
      "preset:llama-2-7b",    "preset:llama-2-70b",        "preset:llama-3-70b",
      "preset:tiny,drift=.2", "preset:tiny,drift=.3",      "preset:tiny,correlation=.2",
      "preset:tiny,share=.4", "preset:tiny,regime=hermes", "preset:tiny,profile=spread"};
  for (const std::string& text : texts) {
    const auto weights = make_synthetic_weights(parse_model_spec(text));
    CHECK(weights->provenance() == "synthetic");
    CHECK(weights->hash().size() == 16);
    hashes.insert(weights->hash());
  }
  CHECK(hashes.size() == texts.size());
  // The same model, said in another way.
  CHECK(make_synthetic_weights(parse_model_spec("preset:tiny"))->hash() ==
        make_synthetic_weights(parse_model_spec("preset:tiny,type=q4_0,seed=1"))->hash());
}

TEST_CASE("rates follow the Beta distribution that they are drawn from") {
  struct Case {
    double mean, concentration, share_80;
  };
  // The table of activations.md section 3.6: ReGLU-70B 43 %, OPT 26 %.
  for (const Case& beta : {Case{0.28, 2.26, 0.43}, Case{0.10, 8.46, 0.43}, Case{0.10, 2.97, 0.26},
                           Case{0.50, 9.6, 0.69}, Case{0.28, 0.714, 0.29}}) {
    const FiringRates layer(beta.mean, beta.concentration);
    constexpr int kCount = 20000;
    std::vector<double> rates(kCount);
    for (int i = 0; i < kCount; ++i) rates[i] = normal_cdf(layer.bias((i + 0.5) / kCount));
    double variance = 0;
    for (const double rate : rates) variance += (rate - beta.mean) * (rate - beta.mean) / kCount;
    INFO("m " << beta.mean << " c " << beta.concentration);
    CHECK(mean(rates) == Approx(beta.mean).margin(2e-4));
    CHECK(variance ==
          Approx(beta.mean * (1 - beta.mean) / (beta.concentration + 1)).epsilon(0.005));
    CHECK(share_of_80_percent(rates) == Approx(beta.share_80).margin(0.01));
    CHECK(layer.mean_of([](double bias) { return normal_cdf(bias); }) ==
          Approx(beta.mean).margin(2e-4));
    CHECK(*std::min_element(rates.begin(), rates.end()) > 0.99e-4);
    CHECK(*std::max_element(rates.begin(), rates.end()) < 1 - 0.99e-4);
  }
}

TEST_CASE("the rates of a layer have its mean activity, at any size") {
  for (const char* text : {"preset:tiny", "preset:tiny,activity=0.05", "preset:prosparse-13b"}) {
    const ModelSpec spec = parse_model_spec(text);
    const auto rates = synthetic_firing_rates(spec, 1);
    INFO(text);
    CHECK(mean(rates) == Approx(spec.regime.mean).margin(5e-4));
    CHECK(rates != synthetic_firing_rates(spec, 0));
  }
}

TEST_CASE("models of 80 layers take the published profile of Llama-2-70B") {
  const std::vector<double> published = published_profile();
  if (published.empty()) return;
  REQUIRE(published.size() == 80);
  const auto whole = layer_activity(parse_model_spec("preset:relullama-70b"));
  REQUIRE(whole.size() == 80);
  for (int layer = 0; layer < 80; ++layer) {
    CHECK(whole[layer] == Approx(published[layer]).margin(2e-4));
  }
}

TEST_CASE("the activity profile keeps its mean, its shape and the layers it has") {
  const auto whole = layer_activity(parse_model_spec("preset:relullama-70b"));
  CHECK(mean(whole) == Approx(0.28).margin(1e-6));
  const auto first = layer_activity(parse_model_spec("preset:relullama-70b,layers=2"));
  CHECK(first == std::vector<double>(whole.begin(), whole.begin() + 2));
  const auto dense = layer_activity(parse_model_spec("preset:relullama-70b,activity=0.9"));
  CHECK(mean(dense) == Approx(0.9).margin(1e-6));
  CHECK(*std::max_element(dense.begin(), dense.end()) < 1);
  CHECK(dense[0] > dense[75]);
  const auto flat = layer_activity(parse_model_spec("preset:prosparse-13b,activity=0.2"));
  CHECK(flat == std::vector<double>(40, flat[0]));
  CHECK(flat[0] == Approx(0.2));
}

TEST_CASE("no layer changes the constant coordinates") {
  for (const DType dtype : kDTypes) {
    ModelSpec spec = spec_of("preset:tiny", small_shape());
    spec.dtype = dtype;
    const auto weights = make_synthetic_weights(spec);
    const TokenColumns stream = ReferenceDecoder(*weights).run(
        random_tokens(20, spec.shape.vocab_size), [](uint32_t, const TokenColumns&) {});
    const float one = values(*weights, Matrix::token_embedding)[0];
    CHECK(one == Approx(1).margin(1e-3));
    for (uint32_t c = 0; c < SyntheticPlan::kConstantDim; ++c) {
      for (uint64_t t = 0; t < stream.tokens; ++t) REQUIRE(stream.row(c)[t] == one);
    }
    for (const float value : stream.values) REQUIRE(std::isfinite(value));
  }
}

// The promise of the generator, measured in executed layers.
void check_rates(const ModelSpec& spec, size_t token_count) {
  const auto weights = make_synthetic_weights(spec);
  const auto layers = run(*weights, random_tokens(token_count, spec.shape.vocab_size));
  const auto activity = layer_activity(spec);
  for (uint32_t l = 0; l < layers.size(); ++l) {
    INFO(facts(spec.dtype).name << " layer " << l << " adjacent " << layers[l].adjacent_overlap);
    CHECK(mean(layers[l].rates) == Approx(activity[l]).margin(0.01));
    CHECK(correlation(layers[l].rates, synthetic_firing_rates(spec, l)) > 0.97);
  }
}

TEST_CASE("neurons of executed layers fire at their rates", "[long]") {
  for (const DType dtype : {DType::f32, DType::q4_0}) {
    ModelSpec spec = spec_of("preset:tiny", medium_shape());
    spec.dtype = dtype;
    check_rates(spec, 250);
  }
}

TEST_CASE("rates hold for FATReLU and SiLU, sparse and dense") {
  ModelShape shape = medium_shape();
  shape.model_dim = 256;
  shape.ffn_dim = 1024;
  for (const FfnActivation activation : {FfnActivation::fatrelu, FfnActivation::silu}) {
    shape.activation = activation;
    shape.fatrelu_threshold = activation == FfnActivation::fatrelu ? 0.01f : 0.0f;
    for (const char* text : {"preset:tiny,activity=0.1,share=0.22", "preset:tiny,activity=0.6"}) {
      ModelSpec spec = spec_of(text, shape);
      spec.dtype = DType::q8_0;
      check_rates(spec, 250);
    }
  }
}

TEST_CASE("executed layers are as uneven as published, and tokens share neurons") {
  const ModelSpec spec = spec_of("preset:tiny,type=q8_0", medium_shape());
  const auto weights = make_synthetic_weights(spec);
  for (const LayerFirings& layer : run(*weights, random_tokens(300, spec.shape.vocab_size))) {
    CHECK(share_of_80_percent(layer.rates) == Approx(0.43).margin(0.02));
    // Independent draws of these rates would share (m c + 1) / (c + 1) = 0.50.
    CHECK(layer.adjacent_overlap > 0.52);
    CHECK(layer.adjacent_overlap < 0.65);
  }
}

TEST_CASE("the same token in another context fires other neurons") {
  const ModelSpec spec = spec_of("preset:tiny,type=q8_0", medium_shape());
  const auto weights = make_synthetic_weights(spec);
  auto tokens = random_tokens(64, spec.shape.vocab_size);
  tokens[40] = tokens[60];
  ReferenceDecoder(*weights).run(tokens, [](uint32_t, const TokenColumns& gate) {
    double both = 0, first = 0, other = 0;
    for (uint64_t n = 0; n < gate.rows; ++n) {
      first += gate.row(n)[40] > 0;
      both += gate.row(n)[40] > 0 && gate.row(n)[60] > 0;
      other += gate.row(n)[40] > 0 && gate.row(n)[50] > 0;
    }
    CHECK(both / first < 0.9);    // not the same set
    CHECK(both / first > 0.65);   // but nearer to it
    CHECK(other / first < 0.65);  // than another token's
  });
}

// All pairs of steps of a layer, as many steps apart: how alike they are.
double overlap_apart(const TokenColumns& gate, uint64_t begin, uint64_t lag) {
  double both = 0, first = 0;
  for (uint64_t n = 0; n < gate.rows; ++n) {
    for (uint64_t t = begin; t + lag < gate.tokens; ++t) {
      first += gate.row(n)[t] > 0;
      both += gate.row(n)[t] > 0 && gate.row(n)[t + lag] > 0;
    }
  }
  return both / first;
}

TEST_CASE("executed layers remember as their regime says, and keep it over other layers",
          "[long]") {
  for (const char* text : {"preset:tiny,type=q8_0,regime=hermes",
                           "preset:tiny,type=q8_0,regime=relullama-dynamicinfer"}) {
    ModelShape shape = medium_shape();
    shape.layer_count = 3;
    shape.head_count = 10;  // two of each rung
    shape.kv_head_count = 5;
    const ModelSpec spec = spec_of(text, shape);
    const auto weights = make_synthetic_weights(spec);
    const ActivityModel model(spec);
    ReferenceDecoder(*weights).run(
        random_tokens(160, spec.shape.vocab_size), [&](uint32_t layer, const TokenColumns& gate) {
          for (const uint32_t lag : {1u, 2u, 10u}) {
            INFO(text << " layer " << layer << " lag " << lag);
            CHECK(overlap_apart(gate, 32, lag) == Approx(model.overlap(lag)).margin(0.03));
          }
        });
  }
}

// What the most active neurons of two texts share, from the second layer on.
TEST_CASE("with drift, another text has other hot neurons", "[long]") {
  ModelShape shape = medium_shape();
  shape.head_count = 10;
  shape.kv_head_count = 5;
  std::vector<double> overlaps;  // of (drift, layer)
  for (const char* text : {"preset:tiny,type=q8_0", "preset:tiny,type=q8_0,drift=0.6"}) {
    const auto weights = make_synthetic_weights(spec_of(text, shape));
    const auto tokens = random_tokens(320, shape.vocab_size);
    std::vector<std::vector<LayerFirings>> texts;
    for (const size_t begin : {size_t{0}, size_t{160}}) {
      texts.push_back(run(*weights, {tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                     tokens.begin() + static_cast<std::ptrdiff_t>(begin + 160)}));
    }
    for (uint32_t layer = 0; layer < 2; ++layer) {
      overlaps.push_back(correlation(texts[0][layer].rates, texts[1][layer].rates));
    }
  }
  CHECK(overlaps[0] > 0.95);
  CHECK(overlaps[1] > 0.95);
  CHECK(overlaps[2] > 0.95);  // the first layer sees no topic
  CHECK(overlaps[3] < 0.75);
}

TEST_CASE("rates hold through 80 layers", "[slow]") {
  ModelShape shape = medium_shape();
  shape.layer_count = 80;
  shape.model_dim = 256;
  shape.ffn_dim = 512;
  shape.head_dim = 32;
  const ModelSpec spec = spec_of("preset:tiny,type=q4_0", shape);
  check_rates(spec, 200);
}

// One layer of LLaMA-70B's true dimensions, all of its attention and an eighth of its neurons.
TEST_CASE("neurons of a 70B layer fire at their rates", "[slow]") {
  const ModelSpec spec = parse_model_spec("preset:relullama-70b,layers=1,type=q4_0");
  const auto weights = make_synthetic_weights(spec);
  const ReferenceDecoder decoder(*weights);
  TokenColumns stream = decoder.embed(random_tokens(64, spec.shape.vocab_size));
  decoder.add_attention(0, stream);
  constexpr uint64_t kRowStep = 8;
  const LayerFirings layer =
      firings(multiply(*weights, Matrix::gate, 0, decoder.ffn_input(0, stream), kRowStep), 0);
  std::vector<double> expected;
  const auto rates = synthetic_firing_rates(spec, 0);
  for (size_t i = 0; i < rates.size(); i += kRowStep) expected.push_back(rates[i]);
  CHECK(mean(layer.rates) == Approx(mean(expected)).margin(0.01));
  CHECK(correlation(layer.rates, expected) > 0.95);
}

// Tokens that a model of one small layer says after the first, and how far its logits spread.
struct Greedy {
  std::vector<uint32_t> tokens;
  double logit_std_dev;
};

Greedy decode_greedily(bool tied, size_t count) {
  ModelShape shape = shape_preset("tiny").shape;
  shape.layer_count = 1;
  shape.tied_embeddings = tied;
  const auto weights = make_synthetic_weights(spec_of("preset:tiny,type=q8_0", shape));
  const ReferenceDecoder decoder(*weights);
  Greedy result{{1}, 0};
  double squares = 0;
  while (result.tokens.size() < count) {
    const auto logits =
        decoder.logits(decoder.run(result.tokens, [](uint32_t, const TokenColumns&) {}));
    const size_t last = logits.tokens - 1;
    uint32_t best = 0;
    for (uint32_t v = 0; v < shape.vocab_size; ++v) {
      if (logits.row(v)[last] > logits.row(best)[last]) best = v;
      squares += logits.row(v)[last] * logits.row(v)[last] / shape.vocab_size;
    }
    result.tokens.push_back(best);
  }
  result.logit_std_dev = std::sqrt(squares / (count - 1));
  return result;
}

TEST_CASE("greedy decoding wanders") {
  const Greedy greedy = decode_greedily(false, 48);
  CHECK(std::set<uint32_t>(greedy.tokens.begin() + 24, greedy.tokens.end()).size() >= 8);
  CHECK(greedy.logit_std_dev == Approx(2).margin(0.4));
}

TEST_CASE("with tied embeddings, a token does not call for itself") {
  const Greedy greedy = decode_greedily(true, 24);
  int repeated = 0;
  for (size_t i = 1; i < greedy.tokens.size(); ++i) {
    repeated += greedy.tokens[i] == greedy.tokens[i - 1];
  }
  CHECK(repeated < 6);
  CHECK(greedy.logit_std_dev == Approx(2).margin(0.6));
}

}  // namespace
}  // namespace thermocline::test
