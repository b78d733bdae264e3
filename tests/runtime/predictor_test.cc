// Predictors: their candidates against plain references, what they change of a run and what not,
// and the audit against counts of the test's own.
#include "runtime/predictor.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <set>

#include "models/cli.h"
#include "models/error.h"
#include "models/predictor_command.h"
#include "models/predictor_file.h"
#include "models/quantize.h"
#include "tests/emulated/cuda.h"
#include "tests/gguf_parts.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

ModelShape shape_of(FfnActivation activation) {
  return {.layer_count = 2,
          .model_dim = 64,
          .ffn_dim = 160,
          .head_count = 4,
          .kv_head_count = 2,
          .head_dim = 32,
          .vocab_size = 80,
          .context_length = 48,
          .activation = activation};
}

std::vector<int32_t> tokens_from(uint32_t seed, uint32_t count) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < count; ++i) tokens.push_back((seed + 11 * i * i + 3 * i) % 80);
  return tokens;
}

LocalRunOptions options_of(const std::string& predictor, const std::string& layout = "pp1,tp1") {
  LocalRunOptions options;
  options.predictor = predictor;
  options.layout = layout;
  options.prompt = tokens_from(1, 12);
  options.forced = tokens_from(2, 9);
  options.chunk_max = 5;
  options.silu_threshold = 0.1f;
  return options;
}

// Written once for the weights of a test.
std::string predictor_file(const TempDir& folder, const WeightSource& source, uint64_t rank) {
  const std::string path = folder / ("rank" + std::to_string(rank) + ".gguf");
  PredictorWriteOptions options;
  options.rank = rank;
  write_predictor(source, path, options);
  return path;
}

Partition partition_of(const WeightSource& source, uint32_t ranks) {
  return make_partition(source.shape(), longest_block(source, Matrix::o),
                        parse_layout("pp1,tp" + std::to_string(ranks), ranks),
                        std::vector<double>(ranks, 1));
}

// Candidates of layer 1 for the rows of x, by each of `ranks` ranks, side by side: (token, neuron).
std::vector<uint8_t> predicted(const std::string& text, const WeightSource& source, uint32_t ranks,
                               int threads, const std::vector<float>& residual,
                               const std::vector<float>& normed) {
  const ModelShape& shape = source.shape();
  const auto count = static_cast<int>(normed.size() / shape.model_dim);
  const Partition partition = partition_of(source, ranks);
  const PredictorSpec spec = parse_predictor_spec(text);
  std::vector<uint8_t> all(static_cast<size_t>(count) * shape.ffn_dim);
  for (const RankShare& share : partition.ranks) {
    const auto backend = backends().by_name("cpu").make({threads, {}, 0});
    const ModelSpec model;
    const auto predictor = spec.entry->make(
        spec.values, {source, model, share, *backend, static_cast<uint32_t>(count)});
    std::vector<TokenRow> rows(static_cast<size_t>(count));
    backend->begin(rows);
    const uint64_t stride = share.neurons.count / 64 + 1;
    std::vector<uint64_t> words(static_cast<size_t>(count) * stride);
    predictor->predict(1, {residual.data(), normed.data(), count}, words.data(), stride);
    for (size_t t = 0; t < static_cast<size_t>(count); ++t)
      for (size_t n = 0; n < share.neurons.count; ++n)
        all[t * shape.ffn_dim + share.neurons.begin + n] = words[t * stride + n / 64] >> n % 64 & 1;
  }
  return all;
}

std::vector<float> inputs(uint64_t seed, int count, uint32_t width) {
  std::vector<float> x(static_cast<size_t>(count) * width);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(uniform(seed, 0, i));
  return x;
}

std::vector<float> decoded_gate(const WeightSource& source, uint32_t layer) {
  const MatrixSize size = size_of(Matrix::gate, source.shape());
  const DType dtype = source.dtype(Matrix::gate, layer);
  std::vector<std::byte> bytes(size.rows * bytes_of(dtype, size.cols));
  source.read(Matrix::gate, layer, {0, size.rows, 0, size.cols}, bytes.data());
  std::vector<float> values(size.rows * size.cols);
  dequantize(dtype, bytes.data(), values.size(), values.data());
  return values;
}

TEST_CASE("every predictor registers itself from its own file") {
  std::set<std::string> files, entries;
  const auto folder = std::filesystem::path(THERMOCLINE_SOURCE_DIR) / "runtime" / "predictors";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    files.insert(entry.path().stem().string());
  }
  for (const std::string& name : predictors().names()) entries.insert(name);
  CHECK(files == entries);
  for (const std::string& name : entries) CHECK_THAT(predictor_help(), Contains(name + " ("));
}

TEST_CASE("a predictor is named with its parameters, and what is wrong is said") {
  CHECK(parse_predictor_spec("exact").exact());
  CHECK(parse_predictor_spec("sign").text() == "sign:threshold=0.5");
  CHECK(parse_predictor_spec("lowrank").text() == "lowrank");
  const PredictorSpec spec = parse_predictor_spec("lowrank:threshold=-1,file=a.gguf");
  CHECK(spec.text() == "lowrank:file=a.gguf,threshold=-1");
  CHECK_THROWS_WITH(parse_predictor_spec("sing"),
                    Contains("unknown predictor 'sing'; did you mean 'sign'?") &&
                        Contains("valid: exact, lowrank, sign"));
  CHECK_THROWS_WITH(parse_predictor_spec("sign:treshold=1"), Contains("valid: threshold"));
  CHECK_THROWS_WITH(parse_predictor_spec("exact:a=1"), Contains("has no parameters"));
  CHECK_THROWS_WITH(parse_predictor_spec("sign:threshold"), Contains("threshold=VALUE"));
  CHECK_THROWS_WITH(parse_predictor_spec("sign:threshold=1,threshold=0"), Contains("set twice"));
  const ModelSpec synthetic = parse_model_spec("preset:tiny");
  const auto check = [&](const char* text) {
    const PredictorSpec asked = parse_predictor_spec(text);
    asked.entry->check(asked.values, synthetic, synthetic.shape);
  };
  for (const char* bad : {"sign:threshold=nan", "sign:threshold=1.5", "sign:threshold=x"}) {
    CHECK_THROWS_WITH(check(bad), Contains("expected threshold to be a number from 0 to 1"));
  }
  CHECK_THROWS_WITH(check("lowrank"), Contains("expected file=PATH"));
  CHECK_THROWS_WITH(check("lowrank:file=/no/such"), Contains("/no/such"));
}

TEST_CASE("sign: candidates are rows with enough agreeing signs, by any ranks and threads") {
  const DType dtype = GENERATE(DType::f32, DType::q4_0);
  const RandomWeights weights(shape_of(FfnActivation::relu), dtype);
  const std::vector<float> gate = decoded_gate(weights, 1);
  const auto x = inputs(70, 3, 64);
  for (const double threshold : {0.0, 0.5, 0.55, 1.0}) {
    const std::string text = "sign:threshold=" + std::to_string(threshold);
    const auto found = predicted(text, weights, 1, 1, {}, x);
    uint64_t wrong = 0;
    for (size_t t = 0; t < 3; ++t)
      for (size_t n = 0; n < 160; ++n) {
        int agreeing = 0;
        for (size_t c = 0; c < 64; ++c) agreeing += (gate[n * 64 + c] < 0) == (x[t * 64 + c] < 0);
        wrong += (agreeing >= threshold * 64) != (found[t * 160 + n] == 1);
      }
    CHECK(wrong == 0);
    CHECK(predicted(text, weights, 2, 1, {}, x) == found);
    CHECK(predicted(text, weights, 1, 3, {}, x) == found);
  }
}

TEST_CASE("lowrank: candidates are those of double precision, by any ranks and threads") {
  const TempDir folder;
  const RandomWeights weights(shape_of(FfnActivation::relu));
  const std::string path = predictor_file(folder, weights, 7);
  const PredictorFile file = open_predictor(path, weights.shape());
  CHECK(file.input == PredictorInput::normed);
  CHECK(file.activation == PredictorActivation::identity);
  const auto rows_of = [](const TensorView& tensor) {
    std::vector<float> values(tensor.rows * tensor.cols);
    dequantize(tensor.dtype, tensor.bytes.data(), values.size(), values.data());
    return values;
  };
  const auto fc1 = rows_of(file.layers[1].fc1), fc2 = rows_of(file.layers[1].fc2);
  const auto x = inputs(71, 4, 64);
  const std::string text = "lowrank:threshold=0.125,file=" + path;
  const auto found = predicted(text, weights, 1, 1, {}, x);
  uint64_t wrong = 0, candidates = 0;
  for (size_t t = 0; t < 4; ++t)
    for (size_t n = 0; n < 160; ++n) {
      double score = 0;
      for (size_t k = 0; k < 7; ++k) {
        double projected = 0;
        for (size_t c = 0; c < 64; ++c) projected += double{fc1[k * 64 + c]} * x[t * 64 + c];
        score += fc2[n * 7 + k] * projected;
      }
      candidates += found[t * 160 + n];
      if (std::fabs(score - 0.125) < 1e-5) continue;  // either is right
      wrong += (score >= 0.125) != (found[t * 160 + n] == 1);
    }
  CHECK(wrong == 0);
  CHECK(candidates > 100);
  CHECK(candidates < 500);
  CHECK(predicted(text, weights, 2, 1, {}, x) == found);
  CHECK(predicted(text, weights, 1, 3, {}, x) == found);
}

TEST_CASE("PowerInfer's predictors take the residual stream, and relu between") {
  const TempDir folder;
  ModelShape shape = shape_of(FfnActivation::relu);
  const RandomWeights weights(shape);
  GgufFile file;
  file.set_text("general.architecture", "thermocline.predictor");
  file.set_text("thermocline.predictor.input", "residual");
  file.set_text("thermocline.predictor.activation", "relu");
  file.set_f32("powerinfer.sparse_threshold", 0.5f);
  for (const char* layer : {"blk.0.", "blk.1."}) {
    add_made_tensor(file, std::string(layer) + "fc1.weight", 32, 64, DType::q4_0);
    add_made_tensor(file, std::string(layer) + "fc2.weight", 160, 32, DType::q4_0);
  }
  const std::string path = folder / "p.gguf";
  write_file(path, file.bytes());
  const auto x = inputs(72, 2, 64), other = inputs(73, 2, 64);
  const auto found = predicted("lowrank:file=" + path, weights, 1, 1, x, other);
  CHECK(predicted("lowrank:file=" + path, weights, 2, 2, x, x) ==
        found);  // normed is not looked at
  CHECK(predicted("lowrank:threshold=0.5,file=" + path, weights, 1, 1, x, other) == found);
  CHECK(predicted("lowrank:threshold=1e30,file=" + path, weights, 1, 1, x, other) ==
        std::vector<uint8_t>(found.size()));
}

TEST_CASE("where everything is a candidate, a run is that of exact, to the bit") {
  const FfnActivation activation = GENERATE(FfnActivation::relu, FfnActivation::silu);
  const RandomWeights weights(shape_of(activation), GENERATE(DType::f32, DType::q8_0));
  const TempDir folder;
  const std::string file = predictor_file(folder, weights, 4);
  for (const std::string layout : {"pp1,tp1", "pp2,tp2"}) {
    const auto exact = run_locally(weights, options_of("exact", layout));
    CHECK(std::count(exact.candidates.begin(), exact.candidates.end(), 1) == 0);
    for (const std::string& all :
         {std::string("sign:threshold=0"), "lowrank:threshold=-1e30,file=" + file}) {
      INFO(layout << " " << all);
      const auto run = run_locally(weights, options_of(all, layout));
      CHECK(run.logits == exact.logits);
      CHECK(run.active == exact.active);
      CHECK(std::count(run.candidates.begin(), run.candidates.end(), 0) == 0);
    }
  }
}

TEST_CASE("candidates, active sets and logits depend on neither threads, chunks nor batch") {
  const RandomWeights weights(shape_of(GENERATE(FfnActivation::relu, FfnActivation::silu)));
  const TempDir folder;
  const std::string file = predictor_file(folder, weights, 9);
  for (const std::string& predictor : {std::string("sign"), "lowrank:file=" + file}) {
    INFO(predictor);
    LocalRunOptions options = options_of(predictor);
    const auto one = run_locally(weights, options);
    CHECK(std::count(one.candidates.begin(), one.candidates.end(), 0) > 0);
    CHECK(one.logits != run_locally(weights, options_of("exact")).logits);
    uint64_t outside = 0;
    for (size_t i = 0; i < one.active.size(); ++i) outside += one.active[i] > one.candidates[i];
    CHECK(outside == 0);
    options.threads = 2;
    options.chunk_max = 32;
    const auto other = run_locally(weights, options);
    CHECK(other.candidates == one.candidates);
    CHECK(other.active == one.active);
    CHECK(other.logits == one.logits);
    // The same task twice at once: each decode pass has two rows of it.
    options.tasks = {{0, 0, options.prompt, options.forced, 0},
                     {1, 1, options.prompt, options.forced, 0}};
    options.batch = 2;
    const auto two = run_locally(weights, options);
    const uint64_t width = weights.shape().neuron_count();
    std::vector<uint8_t> first;
    for (size_t step = 0; step < two.steps.size(); ++step) {
      if (two.steps[step].task != 0) continue;
      const auto* begin = two.candidates.data() + step * width;
      first.insert(first.end(), begin, begin + width);
    }
    CHECK(first == one.candidates);
  }
}

TEST_CASE("a rank's own neurons are predicted alike by one and by two ranks") {
  const RandomWeights weights(shape_of(FfnActivation::relu));
  const auto one = run_locally(weights, options_of("sign"));
  const auto two = run_locally(weights, options_of("sign", "pp1,tp2"));
  CHECK(relative_difference(one.logits, two.logits) < 1e-5);
  CHECK(one.candidates == two.candidates);
}

TEST_CASE("the emulated CUDA backend has the candidates and logits of the CPU") {
  if (!kEmulatesCuda) return;
  const RandomWeights weights(shape_of(GENERATE(FfnActivation::relu, FfnActivation::silu)));
  const TempDir folder;
  const std::string file = predictor_file(folder, weights, 8);
  for (const std::string& predictor : {std::string("sign"), "lowrank:file=" + file}) {
    INFO(predictor);
    LocalRunOptions options = options_of(predictor);
    options.prompt.resize(3);
    options.forced.resize(3);
    const auto cpu = run_locally(weights, options);
    options.backend = make_emulated_cuda_backend;
    const auto cuda = run_locally(weights, options);
    CHECK(cuda.candidates == cpu.candidates);
    CHECK(relative_difference(cuda.logits, cpu.logits) < 1e-4);
  }
}

// The audit's counts and logit errors, from what the run and an exact run say of themselves.
void check_audit(const LocalRunResult& run, const LocalRunResult& exact, const ModelShape& shape) {
  REQUIRE(run.audit.layers.size() == shape.layer_count);
  for (size_t layer = 0; layer < shape.layer_count; ++layer) {
    PredictorCounts expected;
    for (size_t i = 0; i < run.candidates.size(); ++i) {
      if (i / shape.ffn_dim % shape.layer_count != layer) continue;
      ++expected.neurons;
      expected.candidates += run.candidates[i];
      expected.active += run.exact[i];
      expected.both += run.candidates[i] & run.exact[i];
    }
    const PredictorCounts& found = run.audit.layers[layer];
    CHECK(found.neurons == expected.neurons);
    CHECK(found.candidates == expected.candidates);
    CHECK(found.active == expected.active);
    CHECK(found.both == expected.both);
    CHECK(found.recall() == double(expected.both) / double(expected.active));
    CHECK(found.precision() == double(expected.both) / double(expected.candidates));
  }
  double largest = 0, divergence = 0;
  uint64_t agreed = 0;
  const size_t width = shape.vocab_size, steps = run.logits.size() / width;
  REQUIRE(exact.logits.size() == run.logits.size());
  for (size_t step = 0; step < steps; ++step) {
    const float *q = run.logits.data() + step * width, *p = exact.logits.data() + step * width;
    double q_sum = 0, p_sum = 0;
    for (size_t i = 0; i < width; ++i) {
      largest = std::max(largest, std::fabs(double{p[i]} - double{q[i]}));
      q_sum += std::exp(double{q[i]});
      p_sum += std::exp(double{p[i]});
    }
    for (size_t i = 0; i < width; ++i) {
      const double chance = std::exp(double{p[i]}) / p_sum;
      divergence += chance * std::log(chance / (std::exp(double{q[i]}) / q_sum));
    }
    agreed += std::max_element(q, q + width) - q == std::max_element(p, p + width) - p;
  }
  CHECK(run.audit.logits.step_count == steps);
  CHECK(run.audit.logits.largest == largest);
  CHECK(run.audit.logits.mean_divergence() == Approx(divergence / double(steps)).epsilon(1e-9));
  CHECK(run.audit.logits.top1_agreement() == double(agreed) / double(steps));
}

TEST_CASE("the audit says what the run's and an exact run's bits and logits say") {
  const RandomWeights weights(shape_of(GENERATE(FfnActivation::relu, FfnActivation::silu)));
  for (const std::string layout : {"pp1,tp1", "pp2,tp1", "pp1,tp2", "pp2,tp2"}) {
    INFO(layout);
    const auto exact = run_locally(weights, options_of("exact", layout));
    LocalRunOptions options = options_of("sign:threshold=0.52", layout);
    const auto plain = run_locally(weights, options);
    options.audit = true;
    const auto run = run_locally(weights, options);
    CHECK(run.logits == plain.logits);  // it changes nothing
    CHECK(run.active == plain.active);
    check_audit(run, exact, weights.shape());
    CHECK(run.audit.whole().recall() < 1);
    CHECK(run.audit.logits.largest > 0);
  }
}

TEST_CASE("without a predictor the audit finds nothing missed and no error") {
  const RandomWeights weights(shape_of(FfnActivation::relu));
  LocalRunOptions options = options_of("exact", "pp1,tp2");
  options.audit = true;
  const auto run = run_locally(weights, options);
  const PredictorCounts whole = run.audit.whole();
  CHECK(whole.recall() == 1);
  CHECK(whole.candidate_share() == 1);
  CHECK(whole.precision() == whole.active_share());
  CHECK(run.exact == run.active);
  CHECK(run.audit.logits.largest == 0);
  CHECK(run.audit.logits.mean_divergence() == 0);
  CHECK(run.audit.logits.top1_agreement() == 1);
}

}  // namespace
}  // namespace thermocline::test
