// Predicted bits and magnitudes: what was appended is what is read; moved activation thresholds.
#include <catch2/catch.hpp>
#include <cmath>

#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/bit_transpose.h"
#include "traces/magnitude_codes.h"
#include "traces/profile.h"
#include "traces/rethreshold.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("predicted neurons are those that were appended, for any rectangle") {
  const TempDir folder;
  const TraceHeader header =
      with_everything(GENERATE(three_ranks(), two_stages()), MagnitudeFormat::none);
  write_fixture(folder / "t.h5", header, 150);
  const auto trace = open_trace(folder / "t.h5");
  StepBlock block;
  for (NeuronPool pool : {whole_model(header), header.pools[1], NeuronPool{1, 2, 16, 40}}) {
    for (const uint64_t begin : {0, 60, 64, 149}) {
      trace->read_predicted(pool, begin, 150 - begin, block);
      for (uint64_t i = 0; i < block.step_count; ++i) {
        const auto words = block.step(i).words;
        REQUIRE(std::vector<uint64_t>(words.begin(), words.end()) ==
                fixture_predicted(pool, begin + i));
      }
    }
  }
  CHECK(check_trace(folder / "t.h5").back().good);
}

TEST_CASE("a trace without predicted neurons says so") {
  const TempDir folder;
  write_fixture(folder / "t.h5", three_ranks(), 10);
  StepBlock block;
  CHECK_THROWS_WITH(open_trace(folder / "t.h5")->read_predicted({0, 1, 0, 8}, 0, 1, block),
                    Contains("no predicted neurons"));
}

TEST_CASE("magnitudes are those of the steps that were sampled") {
  const TempDir folder;
  const MagnitudeFormat format = GENERATE(MagnitudeFormat::log8, MagnitudeFormat::f16);
  const TraceHeader header = with_everything(GENERATE(three_ranks(), two_stages()), format);
  write_fixture(folder / "t.h5", header, 150);
  const auto trace = open_trace(folder / "t.h5");
  CHECK(trace->header().magnitudes == format);
  REQUIRE(trace->magnitude_steps().size() == 50);
  std::vector<float> magnitudes;
  for (NeuronPool pool : {whole_model(header), header.pools[2], NeuronPool{1, 2, 16, 40}}) {
    trace->read_magnitudes(pool, 7, 2, magnitudes);
    std::vector<float> expected = fixture_magnitudes(pool, 21);
    const auto second = fixture_magnitudes(pool, 24);
    expected.insert(expected.end(), second.begin(), second.end());
    CHECK(magnitudes == expected);
  }
  CHECK(check_trace(folder / "t.h5").back().good);
}

TEST_CASE("log8 keeps a magnitude within 3.6 %, and its codes are their own magnitudes' codes") {
  for (float magnitude = 7.7e-6f; magnitude < 340; magnitude *= 1.0137f) {
    const float back = magnitude_of_log8(log8_of(magnitude));
    CHECK(std::fabs(back / magnitude - 1) < 0.036f);
  }
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<uint8_t>(code);
    CHECK(log8_of(magnitude_of_log8(byte)) == byte);
    if (code > 0) CHECK(magnitude_of_log8(byte) > end_of_log8(static_cast<uint8_t>(code - 1)));
    if (code < 255) CHECK(log8_of(end_of_log8(byte)) == byte);
  }
  CHECK(log8_of(0) == 0);
  CHECK(log8_of(1e-9f) == 0);
  CHECK(log8_of(1e9f) == 255);
  CHECK(log8_of(std::nanf("")) == 0);
}

// The share of neurons of a layer that is active, over all steps.
double share_of_layer(const TraceReader& trace, uint32_t layer) {
  const uint32_t layers = trace.header().shape.layer_count;
  const auto counts = trace.popcounts(0, trace.step_count());
  double sum = 0;
  for (size_t i = layer; i < counts.size(); i += layers) sum += counts[i];
  return sum / static_cast<double>(trace.step_count() * trace.header().shape.ffn_dim);
}

std::unique_ptr<TraceReader> moved(const std::string& path, const std::string& threshold) {
  return open_trace(path, {.activation_threshold = threshold});
}

TEST_CASE("a moved activation threshold gives the bits of the magnitudes above it") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header =
      with_everything(three_ranks(), GENERATE(MagnitudeFormat::log8, MagnitudeFormat::f16));
  write_fixture(path, header, 90);
  const auto trace = moved(path, "0.1");
  REQUIRE(trace->step_count() == 30);
  CHECK(trace->header().activation_rule == "abs(act)>0.1");
  CHECK(trace->hash() != open_trace(path)->hash());
  const NeuronPool whole = whole_model(header);
  StepBlock block;
  trace->read(whole, 0, 30, block);
  for (uint64_t row = 0; row < 30; ++row) {
    CHECK(trace->steps()[row] == fixture_step(3 * row));
    for (uint32_t layer = 0; layer < whole.layer_count; ++layer) {
      const ActiveSet active = block.step(row).layer(layer);
      for (uint32_t i = 0; i < whole.neuron_count; ++i) {
        REQUIRE(active.contains(i) == (fixture_magnitude(3 * row, layer, i) > 0.1f));
      }
    }
  }
  CHECK(trace->times(1)[2] == fixture_times(6, 1));
  CHECK(trace->tasks().size() == 9);
  CHECK(trace->tasks()[1].step_count == 3);  // steps 12, 15, 18
}

TEST_CASE("percentiles by layer and by neuron leave that share inactive") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, with_everything(three_ranks(), MagnitudeFormat::log8), 360);
  // Twelve magnitudes, equally frequent: the 75th percentile is the ninth.
  const auto by_layer = moved(path, "p75");
  for (uint32_t layer = 0; layer < 5; ++layer) {
    CHECK(share_of_layer(*by_layer, layer) == Approx(0.25).margin(0.01));
  }
  const auto by_neuron = moved(path, "p75/neuron");
  const ActivationProfile profile =
      profile_of(*by_neuron, whole_model(by_neuron->header()), 0, by_neuron->step_count());
  for (const uint32_t count : profile.counts) {
    CHECK(count / static_cast<double>(profile.step_count) <= 0.26);
    CHECK(count / static_cast<double>(profile.step_count) >= 0.16);
  }
}

TEST_CASE("thresholds that are none, and traces without magnitudes, are refused") {
  const TempDir folder;
  write_fixture(folder / "t.h5", three_ranks(), 10);
  CHECK_THROWS_WITH(moved(folder / "t.h5", "0.1"), Contains("--record-magnitudes"));
  for (const char* text : {"", "x", "p", "p101", "-1", "p90/layer", "nan", "1e999", "0.1/neuron"}) {
    CHECK_THROWS_WITH(parse_activation_cut(text), Contains("expected a magnitude"));
  }
  CHECK(parse_activation_cut("p90/neuron").text() == "p90/neuron");
  CHECK(parse_activation_cut("0.25").text() == "0.25");
}

}  // namespace
}  // namespace thermocline::test
