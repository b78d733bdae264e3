// Sampling: distributions, cut sets and counters, held against a plain reference.
#include "runtime/sampler.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>

#include "models/error.h"

namespace thermocline::test {
namespace {

std::vector<float> random_logits(std::mt19937& random, size_t count, float width) {
  std::normal_distribution<float> normal(0.0f, width);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Probabilities after the cut, as the paper writes them; all tokens are sorted, in long double.
std::vector<long double> reference(const std::vector<float>& logits, double temperature,
                                   double top_p) {
  std::vector<long double> p(logits.size());
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < p.size(); ++i) {
    p[i] = std::exp((static_cast<long double>(logits[i]) - largest) / temperature);
  }
  const long double total = std::accumulate(p.begin(), p.end(), 0.0L);
  for (long double& value : p) value /= total;
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&p](size_t a, size_t b) { return p[a] > p[b]; });
  long double sum = 0, kept = 0;
  for (const size_t i : order) {
    const bool in_nucleus = top_p == 1 || sum < top_p;
    sum += p[i];
    kept += in_nucleus ? p[i] : 0;
    if (!in_nucleus) p[i] = 0;
  }
  for (long double& value : p) value /= kept;
  return p;
}

// The tokens that can be drawn, found by asking everywhere.
std::set<int32_t> drawable(const std::vector<float>& logits, double temperature, double top_p) {
  Sampler sampler({temperature, top_p, 1});
  std::set<int32_t> tokens;
  for (int i = 0; i < 4096; ++i) tokens.insert(sampler.token_at(logits, i / 4096.0));
  return tokens;
}

double chi_square(const std::vector<int>& counts, const std::vector<long double>& p, int draws) {
  double sum = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (p[i] == 0) {
      CHECK(counts[i] == 0);
      continue;
    }
    const double expected = static_cast<double>(p[i]) * draws;
    sum += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return sum;
}

TEST_CASE("each part of 0 to 1 belongs to the token that the reference gives it") {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int round = 0; round < 60; ++round) {
    const auto logits = random_logits(random, 1 + random() % 400, 3.0f);
    const double temperature = 0.1 + 2 * uniform(random);
    const double top_p = round % 3 == 0 ? 1.0 : uniform(random);
    const auto p = reference(logits, temperature, top_p);
    Sampler sampler({temperature, top_p, 1});
    for (int i = 0; i < 50; ++i) {
      const double at = uniform(random);
      size_t token = 0;
      for (long double sum = p[0]; sum <= at && token + 1 < p.size();) sum += p[++token];
      INFO("round " << round << " at " << at);
      CHECK(sampler.token_at(logits, at) == static_cast<int32_t>(token));
    }
  }
}

TEST_CASE("a nucleus has the fewest tokens that reach top-p, of equal ones the lower") {
  using Tokens = std::set<int32_t>;
  const std::vector<float> equal(4, 1.5f);
  CHECK(drawable(equal, 1.0, 0.25) == Tokens{0});
  CHECK(drawable(equal, 1.0, 0.5) == Tokens{0, 1});
  CHECK(drawable(equal, 1.0, 0.51) == Tokens{0, 1, 2});
  CHECK(drawable(equal, 1.0, 1.0) == Tokens{0, 1, 2, 3});
  // Probabilities 0.072, 0.197, 0.197, 0.534.
  const std::vector<float> logits = {0, 1, 1, 2};
  CHECK(drawable(logits, 1.0, 1e-9) == Tokens{3});
  CHECK(drawable(logits, 1.0, 0.53) == Tokens{3});
  CHECK(drawable(logits, 1.0, 0.54) == Tokens{1, 3});
  CHECK(drawable(logits, 1.0, 0.73) == Tokens{1, 3});
  CHECK(drawable(logits, 1.0, 0.74) == Tokens{1, 2, 3});
  CHECK(drawable(logits, 1.0, 0.93) == Tokens{0, 1, 2, 3});
  CHECK(drawable({5}, 1.0, 0.5) == Tokens{0});
}

TEST_CASE("a top-p that rounding keeps out of reach keeps every token") {
  std::mt19937 random(3);
#ifdef THERMOCLINE_SANITIZED
  constexpr int kRounds = 5;  // each takes more than a second
#else
  constexpr int kRounds = 50;
#endif
  for (int round = 0; round < kRounds; ++round) {
    const auto logits = random_logits(random, 300, 0.01f);
    CHECK(drawable(logits, 1.0, std::nextafter(1.0, 0.0)).size() >= 299);
  }
}

TEST_CASE("frequencies over positions, samples and tasks are those of the distribution") {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, 1.5f, -3.0f, 1.0f};
  constexpr int kDraws = 20000;
  const double temperature = GENERATE(0.7, 1.0, 1.8), top_p = GENERATE(0.8, 1.0);
  const int kind = GENERATE(0, 1, 2);
  Sampler sampler({temperature, top_p, 42});
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    const auto at = static_cast<uint32_t>(i);
    const Draw draw = kind == 0 ? Draw{11, 0, at} : kind == 1 ? Draw{11, at, 9} : Draw{i, 0, 9};
    ++counts[static_cast<size_t>(sampler.draw(logits, draw))];
  }
  // At most 7 degrees of freedom: above 24.3 in one case of a thousand.
  CHECK(chi_square(counts, reference(logits, temperature, top_p), kDraws) < 24.3);
}

TEST_CASE("as the temperature falls, the draw becomes the largest logit") {
  std::mt19937 random(5);
  const auto logits = random_logits(random, 500, 2.0f);
  const auto largest = std::max_element(logits.begin(), logits.end()) - logits.begin();
  for (const double temperature : {1e-3, 1e-9, 1e-300, 5e-324}) {
    for (const double top_p : {0.3, 1.0}) {
      CHECK(drawable(logits, temperature, top_p) == std::set<int32_t>{static_cast<int>(largest)});
    }
  }
}

TEST_CASE("logits of any size are drawn from without overflow") {
  CHECK(drawable({3e38f, -3e38f, 3e38f}, 1.0, 1.0) == std::set<int32_t>{0, 2});
  CHECK(drawable({-3e38f, -3e38f}, 1e300, 1.0) == std::set<int32_t>{0, 1});
}

TEST_CASE("the random number is a function of seed, task, sample and position, each of them") {
  std::set<double> seen;
  int count = 0;
  for (const uint64_t seed : {1, 2}) {
    for (const int32_t task : {-1, 0, 11, 12}) {
      for (const uint32_t sample : {0u, 1u, 11u}) {
        for (const uint32_t position : {0u, 1u, 11u, 4096u}) {
          const double value = uniform_of(seed, {task, sample, position});
          CHECK(value >= 0.0);
          CHECK(value < 1.0);
          CHECK(value == uniform_of(seed, {task, sample, position}));
          seen.insert(value);
          ++count;
        }
      }
    }
  }
  CHECK(seen.size() == static_cast<size_t>(count));
}

TEST_CASE("a draw depends on nothing that was drawn before") {
  std::mt19937 random(9);
  const auto logits = random_logits(random, 100, 1.0f), others = random_logits(random, 300, 1.0f);
  Sampler busy({1.0, 0.9, 4});
  for (uint32_t i = 0; i < 50; ++i) {
    busy.draw(others, {3, 1, i});
    CHECK(busy.draw(logits, {2, 0, i}) == Sampler({1.0, 0.9, 4}).draw(logits, {2, 0, i}));
  }
}

TEST_CASE("temperatures and top-p that mean nothing are refused by name") {
  CHECK_NOTHROW(check_sampling({0.0, 1.0, 1}));
  CHECK_NOTHROW(check_sampling({1e-9, 1e-9, 1}));
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  for (const double temperature : {-0.1, nan, infinity, -infinity}) {
    CHECK_THROWS_WITH(check_sampling({temperature, 1.0, 1}), Catch::Contains("--temperature"));
  }
  for (const double top_p : {0.0, -0.5, 1.01, nan, infinity}) {
    CHECK_THROWS_WITH(check_sampling({1.0, top_p, 1}), Catch::Contains("--top-p"));
  }
}

}  // namespace
}  // namespace thermocline::test
