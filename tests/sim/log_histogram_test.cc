#include "sim/log_histogram.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <random>

namespace thermocline {
namespace {

constexpr double kRelative = 0.0005;  // half a bucket

void check_near(const LogHistogram& histogram, const std::vector<double>& values) {
  const auto exact = distribution_of(values), ours = histogram.distribution();
  REQUIRE(exact);
  REQUIRE(ours);
  CHECK(ours->mean == Approx(exact->mean).epsilon(1e-12));
  for (const auto field : {&Distribution::p50, &Distribution::p95, &Distribution::p99}) {
    CHECK(std::abs((*ours).*field - (*exact).*field) <= kRelative * (*exact).*field);
  }
}

LogHistogram histogram_of(const std::vector<double>& values) {
  LogHistogram histogram;
  for (const double value : values) histogram.add(value);
  return histogram;
}

// Values whose logarithm is even between those of `low` and `high`.
std::vector<double> spread(uint32_t seed, size_t count, double low, double high) {
  std::mt19937_64 random(seed);
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) {
    const double share = static_cast<double>(random() >> 11) * 0x1p-53;
    values.push_back(std::exp(std::lerp(std::log(low), std::log(high), share)));
  }
  return values;
}

TEST_CASE("percentiles are the exact ones within half a bucket") {
  for (const size_t count : {1, 2, 3, 19, 20, 21, 99, 100, 101, 5000}) {
    for (const double high : {1.01, 2.0, 1000.0, 1e15}) {
      const auto values = spread(static_cast<uint32_t>(count), count, 0.9, high);
      check_near(histogram_of(values), values);
    }
  }
  const auto tiny = spread(7, 1000, 1e-300, 1e300);
  check_near(histogram_of(tiny), tiny);
}

TEST_CASE("values that repeat come back as they are") {
  const LogHistogram histogram = histogram_of(std::vector<double>(1000, 41.3));
  const auto distribution = histogram.distribution();
  CHECK(distribution->p50 == 41.3);
  CHECK(distribution->p99 == 41.3);
  CHECK(distribution->mean == Approx(41.3).epsilon(1e-12));
  CHECK(histogram.count() == 1000);
}

TEST_CASE("zeros are values, and both of them are one") {
  std::vector<double> values(60, 0.0);
  values.resize(100, 2.0);
  values[3] = -0.0;
  const auto distribution = histogram_of(values).distribution();
  CHECK(distribution->p50 == 0.0);
  CHECK(distribution->p95 == Approx(2.0).epsilon(kRelative));
  CHECK(distribution->mean == Approx(0.8));
}

TEST_CASE("merged parts are the whole, in whichever order their ranges come") {
  const auto low = spread(1, 700, 0.01, 0.1), high = spread(2, 900, 50, 5000);
  std::vector<double> all = low;
  all.insert(all.end(), high.begin(), high.end());
  const LogHistogram whole = histogram_of(all);
  for (const bool low_first : {true, false}) {
    LogHistogram merged = histogram_of(low_first ? low : high);
    merged.merge(histogram_of(low_first ? high : low));
    merged.merge(LogHistogram());
    check_near(merged, all);
    CHECK(merged.count() == 1600);
    CHECK(merged.distribution()->p50 == whole.distribution()->p50);
    CHECK(merged.distribution()->p99 == whole.distribution()->p99);
  }
  LogHistogram empty;
  empty.merge(whole);
  CHECK(empty.distribution()->p95 == whole.distribution()->p95);
}

TEST_CASE("a histogram without values has no distribution") {
  CHECK_FALSE(LogHistogram().distribution());
  LogHistogram merged;
  merged.merge(LogHistogram());
  CHECK_FALSE(merged.distribution());
}

}  // namespace
}  // namespace thermocline
