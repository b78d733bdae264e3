// `thermocline study`: the demo's whole loop on the tiny model, and its resumption.
#include <fstream>

#include "tests/end_to_end/program.h"
#include "tests/short_tasks.h"

namespace thermocline::test {
namespace {

constexpr const char* kStudy = R"(name = "small"
ranks = 2
threads = 1
policies = ["fixed", "ewma", "oracle-static"]
budgets = "10%..50%/20%"
migration = "64KiB"
teacher_forced = true

[prompts]
profile_split = "train"
test_split = "test"
profile_limit = 1
test_limit = 2

[execute]
tiers = ["host,disk"]
budgets = "20%,40%"

[[model]]
label = "tiny"
model = "preset:tiny"
)";

TEST_CASE("a study executes three tiers, each hot set beside the replay's", "[long]") {
  const TempDir folder;
  std::ofstream(folder / "machine.toml") << R"([cluster]
name = "machine"
[[node]]
name = "n"
device = {memory = "8GB", bandwidth = "10GB/s"}
host = {memory = "8GB", bandwidth = "10GB/s"}
disk = {memory = "100GB", bandwidth = "1GB/s"}
migration = {bandwidth = "5GB/s"}
)";
  std::string text = kStudy;
  text.replace(text.find("tiers = [\"host,disk\"]"), sizeof("tiers = [\"host,disk\"]") - 1,
               "tiers = [\"host,disk\", \"device,host\", \"device,host,disk\"]\n"
               "host_budgets = \"30%,70%\"\nbackend = \"cpu\"\ncluster = \"" +
                   folder / "machine.toml" + "\"");
  text.replace(text.find("ranks = 2"), sizeof("ranks = 2") - 1, "ranks = 1");
  text.replace(text.find("test_limit = 2"), sizeof("test_limit = 2") - 1,
               std::string("test_limit = 1\npath = \"") + kShortTasks + "\"");
  std::ofstream(folder / "three.toml") << text;
  const CommandResult result =
      thermocline_command("study " + folder / "three.toml" + " --out " + folder / "out");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  // Three policies at two budgets: 6 in each layout of two tiers, and of three one for each set.
  CHECK(result.output.find("executed in tiers = replay: 24 of 24") != std::string::npos);
  size_t executed = 0;
  for (const auto& row : rows_of(folder / "out/results.json", "execution")) {
    if (row["tiers"] != "device,host,disk") continue;
    ++executed;
    CHECK(row["counters"] == row["predicted_counters"]);
    CHECK(row["host_counters"] == row["predicted_host_counters"]);
    CHECK(row["host_budget_bytes"] > row["budget_bytes"]);
    CHECK(row["predicted_over_executed"] > 0);
    CHECK(row["predicted_on"] == "machine");
  }
  CHECK(executed == 6);
}

TEST_CASE("a study records, replays, compares and reports, and resumes for nothing", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  std::ofstream(folder / "small.toml") << kStudy;
  const std::string study = "study " + folder / "small.toml" + " --out " + folder / "out";
  const CommandResult first = thermocline_command(study);
  INFO(first.output);
  REQUIRE(first.exit_code == 0);
  CHECK(first.output.find("live = replay: 6 of 6 equal; executed in tiers = replay: 6 of 6") !=
        std::string::npos);
  for (const char* name : {"report.html", "results.csv", "results.json"}) {
    CHECK(exists(folder / "out/" + name));
  }
  std::ifstream in(folder / "out/report.html");
  const std::string html((std::istreambuf_iterator<char>(in)), {});
  CHECK(html.find("synthetic") != std::string::npos);
  CHECK(html.find("<svg") != std::string::npos);
  CHECK(html.find("Executed in tiers") != std::string::npos);
  CHECK(html.find("src=\"http") == std::string::npos);

  const auto before = std::filesystem::last_write_time(folder / "out/tiny/test.h5");
  const CommandResult second = thermocline_command(study + " --resume");
  INFO(second.output);
  CHECK(second.exit_code == 0);
  CHECK(std::filesystem::last_write_time(folder / "out/tiny/test.h5") == before);
}

}  // namespace
}  // namespace thermocline::test
