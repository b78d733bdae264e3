// trace info and trace check as the command line calls them.
#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/commands.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

// Runs "thermocline trace ..." and returns the rows of its --json.
nlohmann::json rows_of(const std::string& json, std::vector<std::string> arguments) {
  CLI::App app;
  add_trace_commands(app);
  arguments.insert(arguments.begin(), "trace");
  arguments.insert(arguments.end(), {"--json", json});
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  return nlohmann::json::parse(read_file(json)).at("rows");
}

TEST_CASE("trace info says what a trace holds") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 60);
  const auto rows = rows_of(folder / "info.json", {"info", path});
  REQUIRE(rows.size() == 1 + 5 + 3);
  CHECK(rows[0].at("pass_count") == 30);
  CHECK(rows[0].at("generated_tokens") == 42);
  CHECK(rows[6].at("kind") == "times");
  CHECK(rows[8].at("comm_ms").get<double>() == Approx(0.000235).epsilon(0.5));
  CHECK(rows[0].at("model") == "preset:tiny,seed=1");
  CHECK(rows[0].at("weights") == "synthetic");
  CHECK(rows[0].at("ranks") == 3);
  CHECK(rows[0].at("step_count") == 60);
  CHECK(rows[0].at("prefill_steps") == 24);
  CHECK(rows[0].at("task_count") == 6);
  CHECK(rows[0].at("finished") == true);
  CHECK(rows[0].at("trace_hash") == open_trace(path)->hash());
  uint64_t active = 0;
  for (size_t layer = 0; layer < 5; ++layer) {
    uint64_t expected = 0;
    for (uint64_t step = 0; step < 60; ++step) {
      for (uint32_t i = 0; i < 172; ++i) expected += fixture_bit(step, layer, i);
    }
    CHECK(rows[1 + layer].at("active") == expected);
    active += expected;
  }
  CHECK(rows[0].at("active_share").get<double>() ==
        Approx(static_cast<double>(active) / (60.0 * 5 * 172)));
}

TEST_CASE("trace info wants --allow-partial for what is not whole") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 20);
  std::filesystem::remove(shard_path(path, 1));
  CHECK_THROWS_AS(rows_of(folder / "info.json", {"info", path}), Error);
  const auto rows = rows_of(folder / "info.json", {"info", path, "--allow-partial"});
  CHECK(rows[0].at("finished") == false);
  CHECK(rows[0].at("missing").size() == 1);
  // Of the neurons that are there; counting the lost ones as cold would make it two thirds.
  CHECK(rows[0].at("active_share").get<double>() == Approx(0.248).margin(0.02));
}

TEST_CASE("trace check ends with exit code 3 where a file is bad, after saying which") {
  const TempDir folder;
  const std::string path = folder / "t.h5", json = folder / "check.json";
  write_fixture(path, three_ranks(), 20);
  auto rows = rows_of(json, {"check", path});
  REQUIRE(rows.size() == 4);
  for (const auto& row : rows) CHECK(row.at("good") == true);
  std::filesystem::resize_file(shard_path(path, 2), 5000);
  try {
    rows_of(json, {"check", path});
    FAIL("an Error was expected");
  } catch (const Error& error) {
    CHECK(error.exit_code() == 3);
    CHECK_THAT(error.what(), Catch::Matchers::Contains("2 of 4"));
  }
  rows = nlohmann::json::parse(read_file(json)).at("rows");
  CHECK(rows[1].at("good") == true);
  CHECK(rows[2].at("good") == false);
  CHECK_THAT(rows[2].at("message").get<std::string>(), Catch::Matchers::Contains("rank0002"));
}

}  // namespace
}  // namespace thermocline::test
