// The demo model through the program: what runs when nobody names a model, and what its trace
// replays to.
#include "models/cli.h"
#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

constexpr const char* kPolicies = " --policy fixed,ewma,oracle-static --budget 10%..50%/20%";

// A trace of the demo model, recorded by two ranks that are threads.
void record(const std::string& split, int limit, const std::string& path) {
  const CommandResult result =
      thermocline_command("run --local-ranks 2 --threads 1 --teacher-forced --split " + split +
                          " --limit " + std::to_string(limit) + " --record " + path);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  CHECK(result.output.find("trained-demo") != std::string::npos);
}

std::string counter_lines(const std::string& json) {
  std::string lines = "# policy budget_bytes needed hits admitted evicted\n";
  for (const auto& row : rows_of(json, "policy")) {
    lines += row["policy"].get<std::string>() + " " + row["budget_bytes"].dump();
    for (const char* name : {"needed", "hits", "admitted", "evicted"}) {
      lines += " " + row["counters"][name].dump();
    }
    lines += "\n";
  }
  return lines;
}

TEST_CASE("without a model the demo model runs, and its trace replays to the golden integers") {
  const TempDir folder;
  record("train", 2, folder / "profile.h5");
  record("test", 2, folder / "test.h5");
  const CommandResult counted =
      thermocline_command("trace stat " + folder / "test.h5" + " --json " + folder / "stat.json");
  REQUIRE(counted.exit_code == 0);
  const auto activity = rows_of(folder / "stat.json", "activity");
  REQUIRE(activity.size() == 9);  // the model's and those of its layers
  CHECK(activity[0]["activity"] > 0.08);
  CHECK(activity[0]["activity"] < 0.20);
  CHECK(activity[0]["own_coverage"] > activity[0]["past_coverage"]);
  const CommandResult replayed =
      thermocline_command("replay " + folder / "test.h5" + " --profile " + folder / "profile.h5" +
                          kPolicies + " --migration 64KiB --json " + folder / "replay.json");
  INFO(replayed.output);
  REQUIRE(replayed.exit_code == 0);
  const std::string golden = THERMOCLINE_SOURCE_DIR "/tests/goldens/demo_replay.txt";
  const std::string lines = counter_lines(folder / "replay.json");
  if (std::getenv("TC_UPDATE_GOLDENS") != nullptr) write_file(golden, lines);
  CHECK(lines == read_file(golden));
}

TEST_CASE("the demo model completes tasks in something that looks like Python") {
  const TempDir folder;
  const CommandResult result =
      thermocline_command("run --local-ranks 1 --split test --limit 4 --max-new-tokens 24 --json " +
                          folder / "run.json");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  size_t definitions = 0;
  for (size_t at = 0; (at = result.output.find(":\ndef ", at)) != std::string::npos; ++at) {
    ++definitions;
  }
  CHECK(definitions == 4);
}

TEST_CASE("without a study the one that is built in is planned, on the demo model") {
  const CommandResult result = thermocline_command("study --dry-run");
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(result.output.find("--model preset:demo") != std::string::npos);
  CHECK(result.output.find("results/demo/") != std::string::npos);
}

}  // namespace
}  // namespace thermocline::test
