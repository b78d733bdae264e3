// Golden integers: the counters of every policy on one seeded trace, compared with ==.
// TC_UPDATE_GOLDENS=1 rewrites tests/goldens/replay.txt; read the difference before you commit it.
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "models/cli.h"
#include "sim/replay.h"
#include "tests/sim/memory_trace.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

std::string golden_rows() {
  const MemoryTrace trace = random_trace(2026, three_rank_header(), 300, 60);
  const MemoryTrace profile = random_trace(1984, three_rank_header(), 120, 0);
  ReplayOptions options;
  std::string names = "ewma:halflife=8,cap=3,residency=4,gamma=0.8,fixed-topk:scope=layer";
  for (const std::string& name : policies().names()) names += "," + name;
  options.policies = parse_policies(names);
  options.budgets = {384 * 41, 384 * 204, 384 * 367};  // a tenth, a half, nine tenths
  options.migration_bytes = 384 * 25;
  std::string text =
      "# policy budget_bytes needed hits admitted evicted refused loaded wasted peak\n";
  for (const ReplayStats& row : replay(trace, &profile, options).rows) {
    const HotSetStats& s = row.total;
    text += fmt::format("{} {} {} {} {} {} {} {} {} {}\n", row.policy.label(), row.budget_bytes,
                        s.needed, s.hits, s.admitted, s.evicted, s.refused, s.loaded, s.wasted,
                        s.hot_count_peak);
  }
  return text;
}

}  // namespace

TEST_CASE("replay gives the golden integers") {
  const std::string path = THERMOCLINE_SOURCE_DIR "/tests/goldens/replay.txt";
  const std::string rows = golden_rows();
  if (std::getenv("TC_UPDATE_GOLDENS") != nullptr) write_file(path, rows);
  CHECK(rows == read_file(path));
}
