// `thermocline run --tiers device,host`: the same bits and counters as with the FFN in one tier
// where both parts are the CPU's, and what it says where it cannot be.
#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kModel = "--model preset:tiny --shots 0 --teacher-forced --threads 1 ";
constexpr const char* kPolicy = " --policy ewma --budget 30% --migration 64KiB ";
constexpr const char* kTiers = " --tiers device,host --backend cpu ";

TEST_CASE(
    "with the FFN on device and host a run records the same trace, and the policy counts the "
    "same") {
  const std::string ranks = GENERATE("", " --local-ranks 2 ");
  const TempDir folder;
  const auto run = [&](const std::string& more, const std::string& name) {
    const CommandResult result = thermocline_command(std::string("run ") + kModel + ranks + more +
                                                     " --json " + folder / name + ".json");
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return result.output;
  };
  // Without a policy nothing is hot, and the host computes all.
  run("--split train --limit 1 --record " + folder / "p.h5" + kTiers, "p");
  const std::string live =
      "--split test --limit 2 --batch 2 --profile " + folder / "p.h5" + kPolicy + "--record ";
  run(live + folder / "one.h5", "one");
  const std::string output = run(live + folder / "two.h5" + kTiers, "two");
  CHECK_THAT(output, Contains("computes what is cold") && Contains("(device,host; FFN"));

  const auto row = [&](const char* name, const char* kind, size_t i) {
    return rows_of(folder / name, kind).at(i);
  };
  CHECK(row("one.json", "run", 0)["trace_hash"] == row("two.json", "run", 0)["trace_hash"]);
  CHECK(row("one.json", "policy", 0)["counters"] == row("two.json", "policy", 0)["counters"]);
  CHECK(rows_of(folder / "one.json", "tier").empty());
  for (size_t rank = 0; rank < (ranks.empty() ? 1u : 2u); ++rank) {
    CHECK(row("p.json", "tier", rank)["hot_bytes"] == 0);
    CHECK(row("p.json", "tier", rank)["on_device"] == 0);
    const auto tier = row("two.json", "tier", rank);
    CHECK(tier["rank"] == rank);
    CHECK(tier["tiers"] == "device,host");
    CHECK(tier["on_device"] > 0);
    CHECK(tier["on_device"] < tier["needed"]);
    CHECK(tier["moved_bytes"] > 0);
    CHECK(tier["hot_bytes"] <= tier["budget_bytes"]);
    CHECK(tier["device_bytes"] > tier["hot_bytes"]);
    CHECK(tier["device_ms"] > 0);
    CHECK(tier["host_ms"] > 0);
    CHECK(tier["both_over_larger"] > 0);
  }
}

TEST_CASE("tiers that cannot be say why") {
  const TempDir folder;
  const std::string common = std::string("run ") + kModel + "--limit 1 ";
  const auto fails = [&](const std::string& arguments, const std::string& text) {
    const CommandResult result = thermocline_command(common + arguments);
    INFO(result.output);
    CHECK(result.exit_code == 2);
    CHECK_THAT(result.output, Contains(text));
  };
  fails("--tiers host,device", "device,host (all bundles in host memory");
  fails("--tiers device,host,disk", "host,disk (with --disk-tier FOLDER)");
  fails("--tiers host,disk", "needs --disk-tier FOLDER");
  fails("--tiers device,host --disk-tier " + folder / "", "expected no --disk-tier");
  fails(std::string(kTiers) + "--audit-predictor --predictor sign", "second decoder");
  REQUIRE(thermocline_command(common + "--record " + folder / "p.h5").exit_code == 0);
  fails(kTiers + ("--profile " + folder / "p.h5") + " --policy fixed,ewma --budget 30%",
        "one --policy at one --budget");
}

}  // namespace
}  // namespace thermocline::test
