// `thermocline run --disk-tier`: the same bits and counters as with the FFN in memory, and what it
// says where it cannot be.
#include <fstream>

#include "tests/end_to_end/program.h"
#include "tests/short_tasks.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

const std::string kModel = "--model preset:tiny --shots 0 --teacher-forced --threads 1 --prompts " +
                           std::string(kShortTasks) + " ";
constexpr const char* kPolicy = " --policy ewma --budget 30% --migration 64KiB ";

std::string bundle_file(const TempDir& folder, int rank) {
  for (const auto& entry : std::filesystem::directory_iterator(folder / "")) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with("-rank" + std::to_string(rank) + ".bundles")) return entry.path().string();
  }
  return "";
}

TEST_CASE("with the FFN on disk a run records the same trace, and the policy counts the same",
          "[mpi]") {
  if (!have_mpirun()) return;
  const int ranks = GENERATE(1, 2);
  const TempDir folder;
  const auto run = [&](const std::string& more, const std::string& name) {
    const CommandResult result =
        mpirun(ranks, "run " + kModel + more + " --json " + folder / name + ".json");
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return result.output;
  };
  // Without a policy nothing is hot: so a model that does not fit gets its first profile.
  run("--split train --limit 1 --disk-tier " + folder / "" + " --record " + folder / "p.h5", "p");
  const std::string live =
      "--split test --limit 2 --profile " + folder / "p.h5" + kPolicy + "--record ";
  run(live + folder / "memory.h5", "memory");
  const auto made = std::filesystem::last_write_time(bundle_file(folder, ranks - 1));
  const std::string output = run(live + folder / "disk.h5" + " --disk-tier " + folder / "", "disk");
  CHECK_THAT(output, Contains("disk tier, "));
  CHECK(std::filesystem::last_write_time(bundle_file(folder, ranks - 1)) == made);

  const auto row = [&](const char* name, const char* kind, size_t i) {
    return rows_of(folder / name, kind).at(i);
  };
  CHECK(row("memory.json", "run", 0)["trace_hash"] == row("disk.json", "run", 0)["trace_hash"]);
  CHECK(row("memory.json", "policy", 0)["counters"] == row("disk.json", "policy", 0)["counters"]);
  CHECK(rows_of(folder / "memory.json", "tier").empty());
  for (int rank = 0; rank < ranks; ++rank) {
    const auto cold = row("p.json", "tier", static_cast<size_t>(rank));
    CHECK(cold["hot_bytes"] == 0);
    CHECK(cold["in_memory"] == 0);
    const auto tier = row("disk.json", "tier", static_cast<size_t>(rank));
    CHECK(tier["rank"] == rank);
    CHECK(tier["in_memory"] > 0);
    CHECK(tier["in_memory"] < tier["needed"]);
    CHECK(tier["read_bytes"] > 0);
    CHECK(tier["moved_bytes"] > 0);
    CHECK(tier["hot_bytes"] <= tier["budget_bytes"]);
  }
}

TEST_CASE("an oracle runs live on an earlier recording of the same run, and on no other", "[mpi]") {
  if (!have_mpirun()) return;
  const int ranks = GENERATE(1, 2);
  const TempDir folder;
  const auto run = [&](const std::string& more, const std::string& name) {
    return mpirun(ranks, "run " + kModel + more + " --overwrite --record " + folder / name +
                             ".h5 --json " + folder / name + ".json");
  };
  REQUIRE(run("--split train --limit 1", "p").exit_code == 0);
  REQUIRE(run("--split test --limit 2", "future").exit_code == 0);
  const std::string oracle = " --policy oracle-static --budget 30% --migration 64KiB --profile " +
                             folder / "p.h5" + " --disk-tier " + folder / "" + " --future ";
  const CommandResult result = run("--split test --limit 2" + oracle + folder / "future.h5", "o");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  const auto live = rows_of(folder / "o.json", "policy").at(0);
  CHECK(live["oracle"] == true);
  const CommandResult replay = thermocline_command(
      "replay " + folder / "future.h5" + " --profile " + folder / "p.h5" +
      " --policy oracle-static --budget 30% --migration 64KiB --json " + folder / "r.json");
  REQUIRE(replay.exit_code == 0);
  const auto replayed = rows_of(folder / "r.json", "policy").at(0);
  CHECK(live["counters"] == replayed["counters"]);
  CHECK(live["trace_hash"] == replayed["trace_hash"]);

  const CommandResult other = run("--split test --limit 2" + oracle + folder / "p.h5", "w");
  INFO(other.output);
  CHECK(other.exit_code == 1);
  CHECK_THAT(other.output, Contains("expected a recording of this very run"));
}

TEST_CASE("a node's disk is measured into a cluster file that replay reads", "[long]") {
  const TempDir folder;
  const CommandResult result =
      thermocline_command("calibrate --threads 1 --disk " + folder / "" + " --read-bytes 2KiB" +
                          " --out " + folder / "node.toml" + " --json " + folder / "c.json");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.output, Contains("disk = {memory = "));
  const auto disk = rows_of(folder / "c.json", "calibration").back();
  CHECK(disk["piece_bytes"] == 2048);
  CHECK(disk["read_bytes_per_second"] > 0);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "")) {
    CHECK(entry.path().extension() != ".pieces");  // nothing is left there
  }
  const std::string model = "run " + kModel + "--limit 1 --record " + folder / "t.h5";
  REQUIRE(thermocline_command(model).exit_code == 0);
  const CommandResult replay = thermocline_command(
      "replay " + folder / "t.h5" + " --profile self --policy fixed --budget 30% --gate exact" +
      " --tier host --cluster " + folder / "node.toml");
  INFO(replay.output);
  CHECK(replay.exit_code == 0);
  CHECK_THAT(replay.output, Contains("every gate row"));
  const CommandResult none = thermocline_command("calibrate --threads 1 --disk " + folder / "no");
  CHECK(none.exit_code == 1);
  CHECK_THAT(none.output, Contains("no"));
}

TEST_CASE("a disk tier that cannot be says why") {
  const TempDir folder;
  const std::string common = "run " + kModel + "--limit 1 ";
  const auto fails = [&](const std::string& arguments, int exit_code, const std::string& text) {
    const CommandResult result = thermocline_command(common + arguments);
    INFO(result.output);
    CHECK(result.exit_code == exit_code);
    CHECK_THAT(result.output, Contains(text));
  };
  fails("--disk-tier " + folder / "none", 1, "no file can be made there");
  fails("--disk-tier " + folder / "" + " --disk-reads telepathy", 2, "io_uring or threads");
  fails("--read-ahead sign", 2, "needs --disk-tier");
  fails("--disk-tier " + folder / "" + " --read-ahead exact", 2, "fewer than all neurons");
  fails("--disk-tier " + folder / "" + " --read-ahead sgn", 2, "did you mean 'sign'");
  fails("--disk-tier " + folder / "" + " --audit-predictor --predictor sign", 2, "second decoder");
  REQUIRE(thermocline_command(common + "--record " + folder / "p.h5").exit_code == 0);
  fails("--disk-tier " + folder / "" + " --profile " + folder / "p.h5" +
            " --policy fixed,ewma --budget 30%",
        2, "one --policy at one --budget");
}

}  // namespace
}  // namespace thermocline::test
