// thermocline replay, from a trace on disk to rows, as a user calls it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <cstdio>

#include "models/cli.h"
#include "models/error.h"
#include "sim/commands.h"
#include "sim/policy.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"

using namespace thermocline;
using namespace thermocline::test;
using Json = nlohmann::ordered_json;

namespace {

// Sends standard output to a file for its lifetime.
class CapturedOutput {
 public:
  explicit CapturedOutput(const std::string& path) : path_(path) {
    std::fflush(stdout);
    kept_ = ::dup(1);
    REQUIRE(std::freopen(path.c_str(), "w", stdout) != nullptr);
  }
  ~CapturedOutput() { stop(); }
  std::string stop() {
    if (kept_ < 0) return "";
    std::fflush(stdout);
    ::dup2(kept_, 1);
    ::close(kept_);
    kept_ = -1;
    return read_file(path_);
  }

 private:
  std::string path_;
  int kept_;
};

class Fixture {
 public:
  Fixture() {
    write("test.h5", 60, "fedcba9876543210");
    write("profile.h5", 40, "1111111111111111");
  }
  void write(const std::string& name, uint64_t step_count, const std::string& prompts_hash) {
    TraceHeader header = three_ranks();
    header.prompts_hash = prompts_hash;
    write_fixture(folder / name, header, step_count);
  }
  // Standard output of `thermocline replay test.h5 ...`.
  std::string run(const std::string& more) {
    CLI::App app;
    add_replay_command(app);
    CapturedOutput output(folder / "stdout.txt");
    app.parse("replay " + (folder / "test.h5") + " " + more);
    return output.stop();
  }
  std::string profile() const { return "--profile " + (folder / "profile.h5") + " "; }

  TempDir folder;
};

std::string usage_error_of(Fixture& fixture, const std::string& more) {
  try {
    fixture.run(more);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("replay prints a table and writes rows with their origin") {
  Fixture fixture;
  const std::string json = fixture.folder / "rows.json", csv = fixture.folder / "rows.csv";
  const std::string output = fixture.run(fixture.profile() + "--budget 10%,50% --json " + json +
                                         " --csv " + csv + " --threads 2");
  CHECK_THAT(output, Catch::Contains("oracle-static (oracle)") && Catch::Contains("ewma") &&
                         Catch::Contains("modelled on pc-high (not measured)"));
  const Json document = Json::parse(read_file(json));
  CHECK(document["command"] == "replay");
  const Json& rows = document["rows"];
  REQUIRE(rows.size() == 2 * policies().names().size());  // no bandwidth: no row "executed"
  for (const Json& row : rows) {
    CHECK(row["kind"] == "policy");
    CHECK(row["weights"] == "synthetic");
    CHECK(row["source"] == "modelled");
    CHECK(row["ttft_ms"].is_null());
    CHECK(row["tpot_ms"]["mean"].get<double>() > 0);
    CHECK(row["profile_hash"] != row["trace_hash"]);
    CHECK(row["oracle"] == (row["policy"] == "oracle-static"));
    const uint64_t needed = row["counters"]["needed"], hits = row["counters"]["hits"];
    CHECK(row["hit_ratio"].get<double>() ==
          static_cast<double>(hits) / static_cast<double>(needed));
    CHECK(row["hot_bytes_peak"].get<uint64_t>() <= row["budget_bytes"].get<uint64_t>());
  }
  CHECK(rows[0]["budget_percent"].get<double>() == Approx(10).epsilon(0.01));
  CHECK_THAT(read_file(csv), Catch::Contains("counters_hits") && Catch::Contains("tpot_ms_p95"));
  // Byte for byte the same again, with another number of threads.
  const std::string again = fixture.folder / "again.json";
  fixture.run(fixture.profile() + "--budget 10%,50% --json " + again + " --threads 1");
  CHECK(read_file(again) == read_file(json));
}

TEST_CASE("JSON on standard output comes alone") {
  Fixture fixture;
  const std::string output =
      fixture.run(fixture.profile() + "--policy fixed --budget 50% --json -");
  CHECK(Json::parse(output)["rows"].size() == 1);
}

TEST_CASE("a profile is asked for, and self is said in every row") {
  Fixture fixture;
  CHECK_THAT(usage_error_of(fixture, "--policy fixed"), Catch::Contains("--profile self"));
  CHECK_THAT(fixture.run("--policy oracle-static --budget 20%"), Catch::Contains("oracle-static"));
  for (const std::string& profile : {std::string("self"), fixture.folder / "test.h5"}) {
    const std::string output =
        fixture.run("--policy fixed --budget 20% --json - --profile " + profile);
    CHECK(Json::parse(output)["rows"][0]["profile_hash"] == "self");
  }
}

TEST_CASE("a cluster file replaces the default") {
  Fixture fixture;
  const std::string path = fixture.folder / "c.toml";
  write_file(path,
             "[cluster]\nname = \"small\"\nmeasured = true\n[[node]]\nname = \"n\"\n"
             "host = {memory = \"1MiB\", bandwidth = \"1GB/s\"}\n");
  const Json rows = Json::parse(fixture.run(fixture.profile() + "--policy fixed --budget 20% " +
                                            "--json - --cluster " + path))["rows"];
  CHECK(rows[0]["cluster"] == "small");
  CHECK(rows[0]["cluster_measured"] == true);
  write_file(path, "[cluster]\nnme = \"small\"\n");
  CHECK_THROWS_WITH(fixture.run(fixture.profile() + "--cluster " + path),
                    Catch::Contains("c.toml:2"));
}

TEST_CASE("wrong options of replay are errors that say what is valid") {
  Fixture fixture;
  const std::string profile = fixture.profile();
  CHECK_THAT(usage_error_of(fixture, profile + "--policy emwa"), Catch::Contains("'ewma'"));
  CHECK(usage_error_of(fixture, profile + "--budget 1B") != "");
  CHECK(usage_error_of(fixture, profile + "--budget 101%") != "");
  CHECK(usage_error_of(fixture, profile + "--migration fast") != "");
  CHECK_THROWS_AS(fixture.run(profile + "--threads 0"), CLI::ParseError);
  CLI::App app;
  add_replay_command(app);
  CHECK_THROWS_WITH(app.parse("replay"), Catch::Contains("expected TRACE"));
  CHECK_THROWS_AS(app.parse("replay " + (fixture.folder / "none.h5")), Error);
}

TEST_CASE("replay moves the activation threshold of traces with magnitudes, and says so") {
  const TempDir folder;
  write_fixture(folder / "t.h5", with_everything(three_ranks(), MagnitudeFormat::log8), 90);
  CLI::App app;
  add_replay_command(app);
  CapturedOutput output(folder / "stdout.txt");
  app.parse("replay " + (folder / "t.h5") + " --profile self --policy fixed --budget 50% " +
            "--activation-threshold p75 --json " + (folder / "rows.json"));
  const std::string text = output.stop();
  CHECK(text.find("the activation threshold was moved after the run") != std::string::npos);
  const auto rows = Json::parse(read_file(folder / "rows.json")).at("rows");
  const auto moved = open_trace(folder / "t.h5", {.activation_threshold = "p75"});
  uint64_t needed = 0;
  for (const uint32_t count : moved->popcounts(0, moved->step_count())) needed += count;
  CHECK(rows.at(0).at("counters").at("needed") == needed);
  CHECK(rows.at(0).at("trace_hash") == moved->hash());
}

TEST_CASE("replay lists the policies with their parameters") {
  Fixture fixture;
  const std::string output = fixture.run("--list");
  for (const PolicyEntry* entry : policies().entries()) {
    CHECK_THAT(output, Catch::Contains(entry->name) && Catch::Contains(entry->summary));
  }
  CHECK_THAT(output, Catch::Contains("halflife") && Catch::Contains("(oracle)"));
}
