// The small parts: the activation rule, the histogram, activation thresholds.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <fstream>

#include "models/error.h"
#include "runtime/activation_rule.h"
#include "runtime/run_plan.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

TEST_CASE("the rule says act(g) and which neurons are active, up to odd values") {
  const float nan = std::nanf(""), inf = INFINITY;
  const std::vector<float> g = {1.5f, -1.5f, 0.0f, -0.0f, 0.25f, 0.2f, 1e-30f, -inf, inf, nan};
  const auto bits = [&](FfnActivation activation, float threshold, std::vector<float>& values) {
    uint64_t words[2] = {~uint64_t{0}, 7};
    values = g;
    activate(activation, threshold, values.data(), 0, static_cast<int>(g.size()), nullptr, words);
    CHECK(words[1] == 7);  // not its word
    return words[0];
  };
  std::vector<float> relu, fatrelu, silu;
  CHECK(bits(FfnActivation::relu, 0, relu) == 0b0101110001);
  CHECK(relu[0] == 1.5f);
  CHECK(relu[1] == 0.0f);
  CHECK(bits(FfnActivation::fatrelu, 0.25f, fatrelu) == 0b0100010001);
  CHECK(fatrelu[4] == 0.25f);
  CHECK(fatrelu[5] == 0.0f);
  // |silu|: 1.226, 0.274, 0, 0, 0.14, 0.11, 5e-31, nan (-inf * 0), inf, nan
  CHECK(bits(FfnActivation::silu, 0.2f, silu) == 0b0100000011);
  CHECK(silu[1] == Approx(-0.27364).epsilon(1e-4));
}

TEST_CASE("only candidates are activated, and are active") {
  const std::vector<float> g(70, 2.0f);
  std::vector<float> values = g;
  const uint64_t candidates[2] = {0b101, ~uint64_t{0}};
  uint64_t words[2] = {~uint64_t{0}, ~uint64_t{0}};
  activate(FfnActivation::silu, 0.5f, values.data(), 0, 70, candidates, words);
  CHECK(words[0] == 0b101);
  CHECK(words[1] == 0b111111);  // those below 70
  CHECK(values[0] == Approx(1.7616).epsilon(1e-4));
  CHECK(values[1] == 2.0f);
  CHECK(values[69] == values[0]);
}

TEST_CASE("a percentile of magnitudes is right to a bin of 2 %") {
  MagnitudeHistogram histogram(2);
  std::vector<float> values;
  for (int i = 1; i <= 10000; ++i) values.push_back((i % 2 == 0 ? 1e-3f : -1e-3f) * i);
  histogram.add(1, values.data(), static_cast<int>(values.size()));
  for (const double percent : {0.0, 10.0, 50.0, 90.0, 99.9}) {
    CHECK(histogram.percentile(1, percent) == Approx(0.1 * percent).epsilon(0.02).margin(2e-3));
  }
  CHECK(histogram.percentile(0, 50) == 0.0f);
}

TEST_CASE("activation thresholds are numbers or percentiles") {
  CHECK(parse_activation_threshold("0.25").value == 0.25f);
  CHECK(parse_activation_threshold("p90").percent == 90.0);
  for (const char* bad : {"", "p", "p100", "p-1", "-0.1", "x", "90p", "nan", "inf"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_activation_threshold(bad), Error);
  }
}

}  // namespace
}  // namespace thermocline::test
