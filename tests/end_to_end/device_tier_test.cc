// `thermocline run --tiers device,host` and `device,host,disk`: the same bits and counters as with
// the FFN in one tier where both parts are the CPU's, and what they say where they cannot be.
#include <fstream>

#include "tests/end_to_end/program.h"
#include "tests/short_tasks.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

const std::string kModel = "--model preset:tiny --shots 0 --teacher-forced --threads 1 --prompts " +
                           std::string(kShortTasks) + " ";
constexpr const char* kPolicy = " --policy ewma --budget 30% --migration 64KiB ";
constexpr const char* kTiers = " --tiers device,host --backend cpu ";

TEST_CASE(
    "with the FFN on device and host a run records the same trace, and the policy counts the "
    "same",
    "[long]") {
  const std::string ranks = GENERATE("", " --local-ranks 2 ");
  const TempDir folder;
  const auto run = [&](const std::string& more, const std::string& name) {
    const CommandResult result =
        thermocline_command("run " + kModel + ranks + more + " --json " + folder / name + ".json");
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

// The rows of a rank's two tiers that have a hot set.
void check_rank(const nlohmann::json& device, const nlohmann::json& host) {
  CHECK(device["tier"] == "device");
  CHECK(host["tier"] == "host");
  CHECK(device["rank"] == host["rank"]);
  CHECK(device["tiers"] == "device,host,disk");
  for (const auto& tier : {device, host}) {
    CHECK(tier["hot_bytes"] > 0);
    CHECK(tier["hot_bytes"] <= tier["budget_bytes"]);
    CHECK(tier["moved_bytes"] > 0);
  }
  CHECK(device["on_device"] > 0);
  CHECK(device["on_device"] < device["needed"]);
  CHECK(host["needed"].get<uint64_t>() ==
        device["needed"].get<uint64_t>() - device["on_device"].get<uint64_t>());
  CHECK(host["in_memory"] > 0);
  CHECK(host["in_memory"] < host["needed"]);
  CHECK(host["read_bytes"] > 0);
  CHECK(host["passage_bytes"] > 0);
}

TEST_CASE(
    "on device, host and disk a run records the same trace, and each tier's policy counts as "
    "a replay does",
    "[long]") {
  const std::string ranks =
      GENERATE(" ", " --local-ranks 2 ", " --local-ranks 2 --layout pp2,tp1 ");
  const TempDir folder;
  const auto runs = [&](const std::string& command) {
    const CommandResult result = thermocline_command(command);
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return result.output;
  };
  const auto rows = [&](const char* name, const char* kind) {
    return rows_of(folder / name, kind);
  };
  const std::string three = " --tiers device,host,disk --backend cpu --disk-tier " + folder / "";
  const std::string run = "run " + kModel + ranks;
  // Without a policy nothing is hot, and all is read from the disk.
  runs(run + "--split train --limit 1 --record " + folder / "p.h5" + three + " --json " +
       folder / "p.json");
  for (const auto& tier : rows("p.json", "tier")) {
    CHECK(tier["hot_bytes"] == 0);
    if (tier["tier"] == "host") CHECK(tier["read_bytes"] > 0);
  }
  const std::string live =
      run + "--split test --limit 2 --batch 2 --profile " + folder / "p.h5" + kPolicy;
  runs(live + "--record " + folder / "one.h5" + " --json " + folder / "one.json");
  const std::string output = runs(live + "--host-budget 55% --record " + folder / "three.h5" +
                                  three + " --json " + folder / "three.json");
  CHECK_THAT(output, Contains("(device,host,disk; FFN") && Contains("(disk tier, ") &&
                         Contains("(device)") && Contains("(host)"));
  CHECK(rows("one.json", "run")[0]["trace_hash"] == rows("three.json", "run")[0]["trace_hash"]);

  const std::string replayed = runs("replay " + folder / "three.h5" + " --profile " +
                                    folder / "p.h5" + " --policy ewma --migration 64KiB" +
                                    " --budget 30%,55% --json " + folder / "replay.json");
  CHECK_THAT(replayed, Contains("the FFN was in three tiers"));
  const auto policies = rows("three.json", "policy"), expected = rows("replay.json", "policy");
  REQUIRE(policies.size() == 2);
  REQUIRE(expected.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(policies[i]["tier"] == (i == 0 ? "device" : "host"));
    CHECK(policies[i]["budget_bytes"] == expected[i]["budget_bytes"]);
    CHECK(policies[i]["counters"] == expected[i]["counters"]);
  }
  CHECK(policies[0]["counters"] != policies[1]["counters"]);
  CHECK(policies[0]["counters"] == rows("one.json", "policy")[0]["counters"]);
  const auto tiers = rows("three.json", "tier");
  REQUIRE(tiers.size() == (ranks == " " ? 2 : 4));
  for (size_t i = 0; i < tiers.size(); i += 2) {
    CHECK(tiers[i]["budget_bytes"] == policies[0]["budget_bytes"]);
    CHECK(tiers[i + 1]["budget_bytes"] == policies[1]["budget_bytes"]);
    check_rank(tiers[i], tiers[i + 1]);
  }
}

TEST_CASE("a step in three tiers is predicted by the run, and by a replay of its trace", "[long]") {
  const TempDir folder;
  const std::string cluster = folder / "one.toml";
  std::ofstream(cluster) << R"([cluster]
name = "one"
[network]
bandwidth = "1GB/s"
[[node]]
name = "node"
device = {memory = "1GB", bandwidth = "10GB/s"}
host = {memory = "1GB", bandwidth = "10GB/s"}
disk = {memory = "1TB", bandwidth = "1GB/s"}
migration = {bandwidth = "1GB/s"}
)";
  const std::string common = "run " + kModel + "--limit 1 --backend cpu --cluster " + cluster +
                             " --disk-tier " + folder / "";
  const std::string three = common + " --tiers device,host,disk";
  const auto prints = [](const std::string& command, int exit_code, const std::string& text) {
    const CommandResult result = thermocline_command(command);
    INFO(result.output);
    CHECK(result.exit_code == exit_code);
    CHECK_THAT(result.output, Contains(text));
  };
  const auto predicted_ms = [&](const std::string& more) {
    prints(three + more + " --json " + folder / "run.json", 0, "ms predicted");
    return rows_of(folder / "run.json", "run")[0]["predicted_step_ms"].get<double>();
  };
  const double from_disk = predicted_ms(" --record " + folder / "p.h5");
  const std::string profile = " --policy fixed --profile " + folder / "p.h5";
  const std::string hot = profile + " --budget 30% --host-budget 60%";
  CHECK(predicted_ms(hot + " --record " + folder / "three.h5") < from_disk);
  CHECK(rows_of(folder / "run.json", "run")[0]["predicted_over_executed"] > 0);

  const std::string replay = "replay " + folder / "three.h5" + " --cluster " + cluster +
                             " --gate exact --tiers device,host,disk --json " +
                             folder / "replay.json";
  prints(replay + hot, 0, "on device, host and disk: ");
  const auto replayed = rows_of(folder / "replay.json", "policy").at(0);
  const auto executed = rows_of(folder / "run.json", "policy");
  CHECK(replayed["counters"] == executed.at(0)["counters"]);
  CHECK(replayed["host_counters"] == executed.at(1)["counters"]);
  CHECK(replayed["source"] == "modelled");
  CHECK(replayed["predicted_over_executed"] > 0);
  CHECK(replayed["executed_tpot_ms"]["mean"] > 0);
  prints(replay + profile + " --budget 30% --host-budget 70%", 0, "the FFN was in three tiers");
  CHECK(rows_of(folder / "replay.json", "policy")[0]["predicted_over_executed"].is_null());

  // What host memory has left: all of a model this small, and then nothing is read but once.
  const double in_memory = predicted_ms(profile + " --budget 30% --host-budget 100%");
  CHECK(in_memory < predicted_ms(hot));
  CHECK(predicted_ms(profile + " --budget 30% --host-budget cluster") == Approx(in_memory));
  const auto host = rows_of(folder / "run.json", "policy").at(1);
  CHECK(host["budget_percent"] == 100);
  CHECK(host["hit_ratio"] == 1);
  prints(three + " --local-ranks 2", 0, "partition pp1,tp2 of cluster 'one'");
  prints(three + " --local-ranks 2 --layout pp1,tp2", 0, "(device,host,disk; FFN");
  prints(three + profile + " --budget 30% --host-budget 20%", 0, "is not above --budget");
}

TEST_CASE("a cluster's forecast takes the tiers that a run has") {
  const TempDir folder;
  const std::string cluster = folder / "two.toml";
  std::ofstream(cluster) << R"([cluster]
name = "two"
[[node]]
name = "node"
device = {memory = "1GB", bandwidth = "100GB/s"}
host = {memory = "1GB", bandwidth = "1GB/s"}
migration = {bandwidth = "10GB/s"}
)";
  REQUIRE(
      thermocline_command(std::string("run ") + kModel + "--limit 1 --record " + folder / "p.h5")
          .exit_code == 0);
  const auto predicted_ms = [&](const std::string& more) {
    const CommandResult result = thermocline_command(
        std::string("run ") + kModel + "--limit 1 --print-partition --cluster " + cluster +
        " --policy fixed --profile " + folder / "p.h5" + more + " --json " + folder / "p.json");
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    return rows_of(folder / "p.json", "partition")[0]["predicted_step_ms"].get<double>();
  };
  const double on_device = predicted_ms(" --budget 20%");
  const double little = predicted_ms(" --tiers device,host --budget 20%");
  const double much = predicted_ms(" --tiers device,host --budget 80%");
  const double all = predicted_ms(" --tiers device,host --budget 100%");
  CHECK(little > much);
  CHECK(much > all);
  CHECK(all == Approx(on_device));
}

TEST_CASE("tiers that cannot be say why") {
  const TempDir folder;
  const std::string common = "run " + kModel + "--limit 1 ";
  const auto fails = [&](const std::string& arguments, const std::string& text) {
    const CommandResult result = thermocline_command(common + arguments);
    INFO(result.output);
    CHECK(result.exit_code == 2);
    CHECK_THAT(result.output, Contains(text));
  };
  fails("--tiers host,device", "device,host (all bundles in host memory");
  fails("--tiers host,disk", "needs --disk-tier FOLDER");
  fails("--tiers device,host,disk", "needs --disk-tier FOLDER");
  fails("--tiers device,host --disk-tier " + folder / "", "expected no --disk-tier");
  fails(std::string(kTiers) + "--audit-predictor --predictor sign", "second decoder");
  REQUIRE(thermocline_command(common + "--record " + folder / "p.h5").exit_code == 0);
  fails(kTiers + ("--profile " + folder / "p.h5") + " --policy fixed,ewma --budget 30%",
        "one --policy at one --budget");
  const std::string policy = " --policy fixed --budget 30% --profile " + folder / "p.h5";
  const std::string three =
      " --tiers device,host,disk --backend cpu --disk-tier " + folder / "" + policy;
  fails(three, "needs --host-budget BYTES");
  fails(three + " --host-budget 10%..90%/20%", "expected one budget, found 5");
  fails(three + " --host-budget 101%", "expected");
  fails(kTiers + policy + " --host-budget 60%", "of two tiers the faster has --budget");
  fails("--host-budget 60%", "expected --tiers device,host,disk");
  fails("--tiers device,host,disk --backend cpu --host-budget 60% --disk-tier " + folder / "",
        "needs --policy");
}

}  // namespace
}  // namespace thermocline::test
