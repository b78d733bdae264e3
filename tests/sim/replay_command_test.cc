// thermocline replay, from a trace on disk to rows, as a user calls it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <cstdio>

#include "models/cli.h"
#include "models/error.h"
#include "sim/commands.h"
#include "sim/policy.h"
#include "tests/sim/three_tiers.h"
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
  size_t policy_rows = 0;
  for (const Json& row : rows) {
    CHECK((row["kind"] == "policy" || row["kind"] == "comparison"));  // no bandwidth: no "executed"
    if (row["kind"] == "comparison") {
      CHECK(row["versus"] == "fixed-topk");
      CHECK(row["tasks"].get<uint64_t>() > 0);
      continue;
    }
    ++policy_rows;
    CHECK(row["weights"] == "synthetic");
    CHECK(row["source"] == "modelled");
    CHECK(row["ttft_ms"]["mean"].get<double>() > 0);
    CHECK(row["tpot_ms"]["mean"].get<double>() > 0);
    CHECK(row["profile_hash"] != row["trace_hash"]);
    CHECK(row["oracle"] == policies().by_name(row["policy"].get<std::string>()).needs_future);
    CHECK(row["regret_static"].is_number());
    CHECK(row["hot_by_layer"].size() > 0);
    const uint64_t needed = row["counters"]["needed"], hits = row["counters"]["hits"];
    CHECK(row["hit_ratio"].get<double>() ==
          static_cast<double>(hits) / static_cast<double>(needed));
    CHECK(row["hot_bytes_peak"].get<uint64_t>() <= row["budget_bytes"].get<uint64_t>());
  }
  CHECK(policy_rows == 2 * policies().names().size());
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
  CHECK(Json::parse(output)["rows"].size() == 1);  // nothing to compare with
}

TEST_CASE("every way to share out memory is replayed, and said in the rows") {
  Fixture fixture;
  const auto rows_of = [&](const std::string& more) {
    return Json::parse(fixture.run(fixture.profile() + "--json - " + more))["rows"];
  };
  const Json layers = rows_of("--policy ewma --budget 30% --pools layer --group 2 --warmup 5");
  CHECK(layers[0]["pools"] == "layer");
  CHECK(layers[0]["group"] == 2);
  CHECK(layers[0]["warmup_steps"] == 5);
  CHECK(layers[0]["counters"]["step_count"] == 55);
  const Json demand = rows_of("--policy lru,belady --budget 30% --fill demand");
  const std::string cold = fixture.run("--policy lru,belady --budget 30% --fill demand --json -");
  CHECK(Json::parse(cold)["rows"][0]["counters"] == demand[0]["counters"]);  // without a profile
  CHECK(demand[0]["fill"] == "demand");
  CHECK(demand[0]["pools"] == "model");
  CHECK(demand[0]["counters"]["hits"] <= demand[1]["counters"]["hits"]);
  CHECK(rows_of("--budget 30% --fill demand").size() >= 6);  // all that have the classical form
  const Json batches = rows_of("--policy fixed --budget 30% --batch 1,2");
  REQUIRE(batches.size() == 2);
  CHECK(batches[1]["batch"] == 2);
  CHECK(batches[1]["counters"]["needed"] <= batches[0]["counters"]["needed"]);
  const Json ranks = rows_of("--policy fixed --budget 4KiB+0B+2KiB");
  CHECK(ranks[0]["budget_bytes"] == 6144);
  const Json few = rows_of("--policy ewma --budget 30% --migrations 1");
  CHECK(few[0]["migrations_per_token"].get<double>() <= 1);
  CHECK(rows_of("--policy ewma --budget 30% --migration none")[0]["counters"]["refused"] == 0);
}

TEST_CASE("conditions that cannot be are usage errors") {
  Fixture fixture;
  const auto error_of = [&](const std::string& more) {
    return usage_error_of(fixture, fixture.profile() + "--policy fixed --budget 30% " + more);
  };
  CHECK_THAT(error_of("--pools layers"), Catch::Contains("did you mean 'layer'"));
  CHECK_THAT(error_of("--fill demnd"), Catch::Contains("did you mean 'demand'"));
  CHECK_THAT(error_of("--fill demand"), Catch::Contains("no form for --fill demand"));
  CHECK_THAT(error_of("--group 3"), Catch::Contains("a power of two"));
  CHECK_THAT(error_of("--warmup 60"), Catch::Contains("fewer than the 60 steps"));
  CHECK_THAT(error_of("--batch 0"), Catch::Contains("from 1 to 4096"));
  CHECK_THAT(error_of("--batch 2,2"), Catch::Contains("twice"));
  CHECK_THAT(error_of("--versus lru"), Catch::Contains("--versus"));
  CHECK_THAT(error_of("--tier host"), Catch::Contains("--tier host"));
  CHECK_THAT(error_of("--tune " + (fixture.folder / "test.h5")), Catch::Contains("other prompts"));
  CHECK_THAT(usage_error_of(fixture, fixture.profile() + "--budget 1KiB+1KiB"),
             Catch::Contains("each of the 3 ranks"));
}

TEST_CASE("a replay in three tiers has both hot sets in each row, as replays in two have them") {
  Fixture fixture;
  const std::string cluster = fixture.folder / "three.toml";
  write_file(cluster, kThreeTiers);
  const std::string common =
      fixture.profile() + "--policy lru,fixed --cluster " + cluster + " --json - ";
  const auto rows_of = [&](const std::string& more) {
    const Json document = Json::parse(fixture.run(common + more));
    Json rows;
    for (const Json& row : document["rows"]) {
      if (row["kind"] == "policy") rows.push_back(row);
    }
    return rows;
  };
  const Json two = rows_of("--budget 10%,30%,60%");
  const std::string three_tiers = "--tiers device,host,disk --budget 10%,30% ";
  const Json three = rows_of(three_tiers + "--host-budget 30%,60%");
  REQUIRE(three.size() == 4);
  for (size_t i = 0; i < 4; ++i) {
    const Json &row = three[i], &device = two[i / 2 * 3 + i % 2];
    const Json& host = two[i / 2 * 3 + i % 2 + 1];
    CHECK(row["tiers"] == "device,host,disk");
    CHECK(row["budget_bytes"] == device["budget_bytes"]);
    CHECK(row["counters"] == device["counters"]);
    CHECK(row["host_budget_bytes"] == host["budget_bytes"]);
    CHECK(row["host_counters"] == host["counters"]);
    CHECK(row["needed_from"]["device"] == row["counters"]["hits"]);
    CHECK(row["tpot_ms"]["mean"] > device["tpot_ms"]["mean"]);  // some comes from the disk
    CHECK(row["predicted_over_executed"].is_null());            // nobody executed this trace so
    CHECK(row["host_passed"] <= row["counters"]["admitted"]);
    CHECK(row["source"] == "modelled");
    CHECK_FALSE(device.contains("tiers"));
  }
  CHECK(rows_of(three_tiers + "--host-budget 60%").size() == 4);
  CHECK(rows_of("--tiers device,host --budget 10%,30%,60%") == two);
  CHECK(rows_of("--tiers host,disk --budget 30%") == rows_of("--tier host --budget 30%"));
  CHECK(rows_of(three_tiers + "--host-budget cluster")[0]["host_budget_percent"] == 100);
  const auto fails = [&](const std::string& more, const std::string& text) {
    CHECK_THAT(usage_error_of(fixture, common + more), Catch::Contains(text));
  };
  fails(three_tiers, "needs --host-budget");
  fails("--tiers device,hst", "did you mean 'device,host'");
  fails("--tiers device,host --tier host", "expected no --tier host");
  fails("--host-budget 30%", "expected --tiers device,host,disk");
  fails(three_tiers + "--host-budget 20%,30%,40%", "one for each of the 2 of --budget, found 3");
  fails("--fill demand " + three_tiers + "--host-budget 30%", "expected --fill step");
  CHECK_THAT(usage_error_of(fixture, fixture.profile() + three_tiers + "--host-budget 30%"),
             Catch::Contains("expected all three on every node of cluster 'pc-high'"));
}

TEST_CASE("a curve has the replay's hits, and tuned policies stand beside the given ones") {
  Fixture fixture;
  fixture.write("tune.h5", 50, "2222222222222222");
  const std::string curve = fixture.folder / "curve.csv";
  const Json rows = Json::parse(
      fixture.run(fixture.profile() + "--policy fixed,ewma --budget 30% --json - --curve " + curve +
                  " --tune " + (fixture.folder / "tune.h5")))["rows"];
  const std::string text = read_file(curve);
  const auto at = text.find(",30.0,");
  REQUIRE(at != std::string::npos);
  const std::string hits = rows[0]["counters"]["hits"].dump();
  CHECK(text.substr(at, 60).find("," + hits + ",") != std::string::npos);
  CHECK(rows[0]["tuned_on"].is_null());
  for (const Json& row : rows) {
    if (row["kind"] != "policy" || row["tuned_on"].is_null()) continue;
    CHECK(row["tuned_on"].get<std::string>().size() == 16);
  }
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
