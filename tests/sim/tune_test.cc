// Tuning looks at the validation trace alone, and finds what is better there.
#include "sim/tune.h"

#include <catch2/catch.hpp>

#include "tests/sim/memory_trace.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// A set of 40 that moves on every 8 steps: a short half-life follows it.
MemoryTrace moving_trace() {
  MemoryTrace trace = random_trace(41, memory_header(1, 400, {{0, 1, 0, 400}}), 0, 0);
  PoolSteps steps{trace.header().pools[0], 160, std::vector<uint64_t>(160 * 7)};
  for (uint32_t step = 0; step < 160; ++step) {
    for (uint32_t i = 0; i < 40; ++i) steps.set(step, (step / 8 * 40 + i) % 400);
  }
  return {memory_header(1, 400, {{0, 1, 0, 400}}), steps};
}

}  // namespace

TEST_CASE("tuning finds better parameters, and leaves what was set by hand") {
  const MemoryTrace validation = moving_trace();
  ReplayOptions options{parse_policies("ewma,ewma:halflife=128,fixed"), {384 * 40}};
  options.migration_bytes = 384 * 400;
  std::vector<std::string> said;
  const auto tuned = tune_policies(validation, &validation, options,
                                   [&](const std::string& policy) { said.push_back(policy); });
  REQUIRE(tuned.size() == 3);
  CHECK(said == std::vector<std::string>{"ewma", "ewma:halflife=128", "fixed-topk"});
  CHECK(tuned[0].score < tuned[0].score_given);
  CHECK(tuned[0].policy.values.at("halflife") < 32);
  CHECK(tuned[0].tried > 3);
  CHECK(tuned[1].policy.values.at("halflife") == 128);
  CHECK(tuned[1].score <= tuned[1].score_given);
  CHECK(tuned[2].score <= tuned[2].score_given);
  const auto again = tune_policies(validation, &validation, options, nullptr);
  CHECK(again[0].policy.values == tuned[0].policy.values);
}
