// Blocks that end where passes do, for passes of any length.
#include "sim/pass_blocks.h"

#include <catch2/catch.hpp>

#include "tests/sim/memory_trace.h"

using namespace thermocline;
using namespace thermocline::test;

TEST_CASE("passes are steps of one number, and never two decoded tokens of one task") {
  const auto step = [](uint32_t task, Phase phase, uint32_t pass) {
    return StepInfo{0, 0, task, phase, pass};
  };
  const std::vector<StepInfo> infos = {step(0, Phase::prefill, 1), step(0, Phase::prefill, 1),
                                       step(0, Phase::prefill, 2), step(0, Phase::decode, 3),
                                       step(1, Phase::decode, 3),  step(0, Phase::decode, 4),
                                       step(0, Phase::decode, 4)};
  const auto passes = passes_of(infos);
  std::vector<std::pair<uint64_t, uint32_t>> found;
  for (const PassRange& pass : passes) found.emplace_back(pass.begin, pass.count);
  CHECK(found ==
        std::vector<std::pair<uint64_t, uint32_t>>{{0, 2}, {2, 1}, {3, 2}, {5, 1}, {6, 1}});
}

TEST_CASE("blocks hold every step once, whatever the passes") {
  const TraceHeader header = memory_header(1, 24, {{0, 1, 0, 16}, {0, 1, 16, 8}});
  for (const uint32_t prompt : {1u, 31u, 500u, 1000u}) {
    MemoryTrace trace = random_trace(51, header, 9001, 0);  // more than two blocks
    trace.cut_into_tasks(1009, prompt);
    const auto infos = trace.steps();
    PassBlocks blocks(trace, header.pools, infos);
    uint64_t next = 0;
    while (blocks.next()) {
      CHECK(blocks.begin() == next);
      for (size_t pass = 0; pass < blocks.passes().size(); ++pass) {
        const PassRange& range = blocks.passes()[pass];
        REQUIRE(range.begin == next);
        next += range.count;
        std::vector<uint64_t> joined(1);
        for (uint64_t i = range.begin; i < next; ++i) {
          const uint64_t word = trace.cut_of(header.pools[0], i, 1).words[0];
          REQUIRE(blocks.step(0, i).words[0] == word);
          joined[0] |= word;
        }
        if (range.count == 1) continue;
        REQUIRE(blocks.union_of(0, pass).words == joined);
        REQUIRE(blocks.union_of(0, pass).needed == static_cast<uint32_t>(std::popcount(joined[0])));
      }
    }
    CHECK(next == 9001);
  }
}
