// Synthetic weights held to published statistics, in executed layers of 70B dimensions.
#include "runtime/synth_command.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/error.h"
#include "models/synthetic.h"
#include "models/weights.h"
#include "tests/models/failures.h"
#include "tests/published_profile.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

const SynthStatistic& row_of(const SynthResult& result, const std::string& name,
                             std::optional<uint32_t> layer = std::nullopt) {
  const auto found =
      std::find_if(result.statistics.begin(), result.statistics.end(),
                   [&](const auto& row) { return row.name == name && row.layer == layer; });
  REQUIRE(found != result.statistics.end());
  return *found;
}

// Every statistic that has a bound is within it.
SynthResult check_promises(const std::string& preset, const SynthRunOptions& options = {}) {
  const SynthResult result = run_synthetic(parse_model_spec("preset:" + preset), options);
  int promised = 0;
  for (const SynthStatistic& row : result.statistics) {
    if (!row.bound.has_value()) continue;
    ++promised;
    INFO(preset << ": " << row.name << " of layer " << row.layer.value_or(999) << ": target "
                << row.target << ", measured " << row.measured.value_or(-1));
    CHECK(row.within());
  }
  CHECK(promised >= 8);
  return result;
}

// Published, not computed by the generator.
void check_published(const SynthStatistic& row, double published, double bound) {
  INFO(row.name);
  CHECK(row.measured.value() == Approx(published).margin(bound));
}

CommandResult synth(const std::string& arguments) {
  return run_command(std::string(std::getenv("THERMOCLINE_PROGRAM")) + " model synth " + arguments);
}

TEST_CASE("relullama-70b: TEAL's density by layer, 43 % of a layer", "[slow]") {
  const SynthResult result = check_promises("relullama-70b,layers=3,take=even");
  const std::vector<double> profile = published_profile();
  for (uint32_t i = 0; i < 3 && profile.size() == 80; ++i) {
    const uint32_t entries[] = {13, 40, 66};  // of 80, at the middle of each third
    check_published(row_of(result, "mean activity", i), profile[entries[i]], 0.01);
  }
  check_published(row_of(result, "neurons that give 80 %", 1), 0.43, 0.02);
}

TEST_CASE("relullama-70b by PowerInfer: 43 % of a layer, 26 % of the model", "[slow]") {
  const SynthResult result = check_promises("relullama-70b,regime=powerinfer,layers=4,take=even");
  check_published(row_of(result, "neurons that give 80 %", 0), 0.43, 0.02);
  check_published(row_of(result, "neurons that give 80 %"), 0.26, 0.02);
}

TEST_CASE("relullama-70b by Hermes: adjacent tokens share 90 %, distant ones 70 %", "[slow]") {
  const SynthResult result = check_promises("relullama-70b,regime=hermes,layers=2");
  check_published(row_of(result, "overlap, 1 step apart"), 0.90, 0.02);
  check_published(row_of(result, "overlap, 10 steps apart"), 0.70, 0.02);
}

TEST_CASE("relullama-70b by DynamicInfer: adjacent tokens share 40 to 46 %", "[slow]") {
  const SynthResult result =
      check_promises("relullama-70b,regime=relullama-dynamicinfer,drift=0.4,layers=2");
  check_published(row_of(result, "overlap, 1 step apart"), 0.43, 0.03);
  // Half of the layers drift: DynamicInfer's hot sets share 60 % from sentence to sentence.
  CHECK(row_of(result, "top fifth kept by the next text").measured.value() < 0.80);
}

TEST_CASE("opt-like: five tokens use 24 % of the neurons, the next 2.4 % more", "[slow]") {
  const SynthResult result = check_promises("opt-like,layers=2");
  check_published(row_of(result, "union of 5 steps"), 0.24, 0.02);
  check_published(row_of(result, "new after 5 steps"), 0.024, 0.005);
  check_published(row_of(result, "neurons that give 80 %", 0), 0.26, 0.02);
}

TEST_CASE("prosparse and swiglu-70b: their sparsity, and 69 % of a layer", "[slow]") {
  SynthRunOptions options;
  options.steps = 112;
  const SynthResult sparse = check_promises("prosparse,layers=1,take=even", options);
  check_published(row_of(sparse, "mean activity", 0), 0.1120, 0.01);
  const SynthResult dense = check_promises("swiglu-70b,layers=1", options);
  check_published(row_of(dense, "mean activity", 0), 0.50, 0.01);
  check_published(row_of(dense, "neurons that give 80 %", 0), 0.69, 0.02);
}

TEST_CASE("model synth prints a row for each statistic and writes them as JSON") {
  const TempDir folder;
  const std::string json = folder / "rows.json";
  const auto result = synth(
      "--preset tiny,drift=0.3 --layers 2 --seed 5 "
      "--type q8_0 --threads 2 --json " +
      json);
  INFO(result.output);
  CHECK(result.exit_code == 0);
  for (const char* text : {"preset:tiny,drift=0.3,layers=2,type=q8_0,seed=5", "relullama-teal",
                           "mean activity", "union of 5 steps", "top fifth", "no bound"}) {
    CHECK_THAT(result.output, Catch::Contains(text));
  }
  CHECK_THAT(result.output, Catch::Contains("no bounds: layers of 512 neurons are too narrow"));
  CHECK_THAT(result.output, !Catch::Contains(" NO\n") && !Catch::Contains(" yes\n"));
  const auto rows = nlohmann::json::parse(read_file(json)).at("rows");
  for (const auto& row : rows) CHECK(row.value("bound", nlohmann::json()).is_null());
  CHECK(rows[0].at("kind") == "model");
  CHECK(rows[0].at("weights") == "synthetic");
  CHECK(rows[0].at("drift").get<float>() == 0.3f);
  CHECK(rows.size() == 1 + 2 + 3 + 4 + 2 + 1);
  CHECK(rows[1].at("name") == "mean activity");
  CHECK(rows[1].at("target").get<double>() == Approx(0.28));
  CHECK(rows[1].at("measured").get<double>() == Approx(0.28).margin(0.03));
}

TEST_CASE("model synth writes a file of the weights that it ran") {
  const TempDir folder;
  const std::string path = folder / "x.gguf";
  const auto result =
      synth("--preset tiny,regime=hermes --layers 2 --type q8_0 --steps 40 --out " + path);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.output, Catch::Contains("written") && Catch::Contains("mean activity"));
  const auto made =
      make_synthetic_weights(parse_model_spec("preset:tiny,regime=hermes,layers=2,type=q8_0"));
  const auto written = open_weights(parse_model_spec(path));
  CHECK(written->provenance() == "synthetic");
  CHECK(written->shape().activation == FfnActivation::relu);
  for (const Matrix matrix : {Matrix::token_embedding, Matrix::q, Matrix::o, Matrix::down_t}) {
    const MatrixSize size = size_of(matrix, made->shape());
    const MatrixSlice whole{0, size.rows, 0, size.cols};
    std::vector<std::byte> a(size.rows * bytes_of(DType::q8_0, size.cols)), b(a.size());
    made->read(matrix, 1, whole, a.data());
    written->read(matrix, 1, whole, b.data());
    CHECK(a == b);
  }
  const std::string only = folder / "y.gguf";
  CHECK(synth("--preset tiny --steps 0 --out " + only).exit_code == 0);
  CHECK(std::filesystem::exists(only));
  CHECK(synth("--preset tiny --steps 0").exit_code == 2);
  CHECK(synth("--preset tiny --steps 12 --out " + folder / "z.gguf").exit_code == 2);
  CHECK_FALSE(std::filesystem::exists(folder / "z.gguf"));
}

TEST_CASE("a statistic outside its bound is a failure that names it") {
  SynthResult result;
  result.statistics = {{"mean activity", 0, 0.28, 0.285, 0.01},
                       {"mean activity", 1, 0.28, 0.32, 0.01},
                       {"overlap, 1 step apart", std::nullopt, 0.5, 0.9, std::nullopt},
                       {"union of 5 steps", std::nullopt, 0.5, std::nullopt, 0.02}};
  const Failure failure = failure_of([&] { require_promises(result); });
  CHECK(failure.kind == ErrorKind::failed);
  CHECK_THAT(failure.message,
             Catch::Contains("1 of 2 statistics") && Catch::Contains("'mean activity' of layer 1"));
  result.statistics.pop_back();
  result.statistics[1].measured = 0.29;
  require_promises(result);
}

TEST_CASE("what was measured does not depend on threads") {
  SynthRunOptions options;
  options.steps = 64;
  const ModelSpec spec = parse_model_spec("preset:tiny,layers=2");
  const SynthResult one = run_synthetic(spec, options);
  options.threads = 3;
  const SynthResult three = run_synthetic(spec, options);
  REQUIRE(one.statistics.size() == three.statistics.size());
  for (size_t i = 0; i < one.statistics.size(); ++i) {
    CHECK(one.statistics[i].measured == three.statistics[i].measured);
  }
}

TEST_CASE("what cannot be run is a usage error") {
  const auto kind_of = [](const std::string& model, const SynthRunOptions& options) {
    try {
      run_synthetic(parse_model_spec(model), options);
    } catch (const Error& error) {
      return error.kind();
    }
    FAIL_CHECK("accepted");
    return ErrorKind::failed;
  };
  SynthRunOptions options;
  CHECK(kind_of("x.gguf", options) == ErrorKind::usage);
  options.steps = 35;
  CHECK(kind_of("preset:tiny", options) == ErrorKind::usage);
  options.steps = 4000;
  CHECK(kind_of("preset:tiny", options) == ErrorKind::usage);
  options = {};
  options.sequences = 0;
  CHECK(kind_of("preset:tiny", options) == ErrorKind::usage);
}

}  // namespace
}  // namespace thermocline::test
