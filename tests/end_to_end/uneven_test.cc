// Ranks on unlike nodes: what the cluster file says decides who holds what, and changes no result.
#include <bit>
#include <fstream>

#include "models/cli.h"
#include "tests/end_to_end/program.h"
#include "tests/npy_files.h"
#include "tests/short_tasks.h"
#include "traces/profile.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kModel =
    "--model preset:tiny --shots 0 --teacher-forced --threads 1 --batch 4 --backend cpu ";

struct Node {
  std::string name, memory, bandwidth;
};

// A file of these nodes, joined by a network that costs next to nothing.
std::string cluster_file(const TempDir& folder, const std::string& name,
                         const std::vector<Node>& nodes) {
  const std::string path = folder / name;
  std::ofstream out(path);
  out << "[cluster]\nname = \"" << name << "\"\n[network]\nbandwidth = \"100GB/s\"\n";
  for (const Node& node : nodes) {
    out << "[[node]]\nname = \"" << node.name << "\"\nhost = {memory = \"" << node.memory
        << "\", bandwidth = \"" << node.bandwidth << "\"}\n"
        << "disk = {memory = \"1TB\", bandwidth = \"1GB/s\"}\n"
        << "migration = {bandwidth = \"1GB/s\"}\n";
  }
  return path;
}

// Rank 1 is too small for anything, rank 2 is fast and holds less than it could read.
std::string uneven_cluster(const TempDir& folder) {
  return cluster_file(
      folder, "uneven.toml",
      {{"big", "1GB", "100MB/s"}, {"tiny", "1MiB", "100MB/s"}, {"small", "1800KiB", "400MB/s"}});
}

CommandResult command(const std::string& arguments) {
  CommandResult result = thermocline_command(arguments);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return result;
}

CommandResult launched(const std::string& launcher, const std::string& arguments) {
  CommandResult result =
      launcher == "mpirun" ? mpirun(3, arguments) : thermocline_command(arguments + " " + launcher);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  return result;
}

float greatest_difference(const std::string& one, const std::string& other) {
  const std::vector<float> a = load_npy(one), b = load_npy(other);
  REQUIRE(a.size() == b.size());
  REQUIRE(!a.empty());
  float largest = 0, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i]));
    difference = std::max(difference, std::abs(a[i] - b[i]));
  }
  return difference / largest;
}

// Neurons that are active in one trace and not in the other, of all that are in either.
double share_that_differs(const std::string& one, const std::string& other) {
  const auto a = open_trace(one), b = open_trace(other);
  REQUIRE(a->step_count() == b->step_count());
  StepBlock x, y;
  a->read(whole_model(a->header()), 0, a->step_count(), x);
  b->read(whole_model(b->header()), 0, b->step_count(), y);
  uint64_t different = 0, either = 0;
  for (size_t i = 0; i < x.words.size(); ++i) {
    different += static_cast<uint64_t>(std::popcount(x.words[i] ^ y.words[i]));
    either += static_cast<uint64_t>(std::popcount(x.words[i] | y.words[i]));
  }
  REQUIRE(either > 0);
  return static_cast<double>(different) / static_cast<double>(either);
}

TEST_CASE(
    "on unlike nodes a rank is left out, one holds less, and the logits are those of one rank",
    "[mpi]") {
  if (!have_mpirun()) return;
  const std::string launcher = GENERATE("mpirun", "--local-ranks 3");
  const TempDir folder;
  const std::string cluster = uneven_cluster(folder);
  const std::string tasks = std::string("run ") + kModel + "--split test --limit 4 ";
  command(tasks + "--logits " + folder / "one.npy --record " + folder / "one.h5");
  const CommandResult run =
      launched(launcher, tasks + "--cluster " + cluster + " --logits " + folder / "three.npy" +
                             " --record " + folder / "three.h5" + " --json " + folder / "run.json");
  CHECK_THAT(run.output, Contains("2 of 3 ranks") && Contains("left out: too small") &&
                             Contains("predicted over executed"));
  CHECK(greatest_difference(folder / "one.npy", folder / "three.npy") < 1e-4f);
  CHECK(share_that_differs(folder / "one.h5", folder / "three.h5") < 1e-4);
  command("trace check " + folder / "three.h5");
  CHECK(open_trace(folder / "three.h5")->header().pools.size() == 2);

  const auto rows = rows_of(folder / "run.json", "rank");
  REQUIRE(rows.size() == 3);
  CHECK(rows[0]["rank"] == 0);
  CHECK(rows[0]["layout_rank"] == 0);
  CHECK(rows[1]["rank"] == 2);
  CHECK(rows[1]["layout_rank"] == 1);
  CHECK(rows[1]["node"] == "small");
  CHECK(rows[1]["predicted_bytes"] <= 1800 << 10);
  CHECK_THAT(rows[1]["reason"], Contains("full: holds what fits"));
  CHECK(rows[2]["rank"] == 1);
  CHECK(rows[2]["neurons"] == 0);
  CHECK(rows[2]["weight_bytes"] == 0);
  CHECK(rows[2]["layout_rank"].is_null());
  CHECK_THAT(rows[2]["reason"], Contains("left out: too small"));
  const auto whole = rows_of(folder / "run.json", "run").at(0);
  CHECK(whole["left_out"] == std::vector<int>{1});
  CHECK(whole["predicted_over_executed"].get<double>() > 0);
  // What was planned is what was loaded.
  command("run " + std::string(kModel) + "--split test --limit 4 --print-partition --cluster " +
          cluster + " --json " + folder / "plan.json");
  const auto planned = rows_of(folder / "plan.json", "rank");
  REQUIRE(planned.size() == 3);
  CHECK(planned[0]["weight_bytes"] == rows[0]["weight_bytes"]);
  CHECK(planned[2]["weight_bytes"] == rows[1]["weight_bytes"]);
  CHECK(planned[1]["neurons"] == 0);
}

TEST_CASE("a slow node gets fewer neurons and heads") {
  const TempDir folder;
  const std::string cluster =
      cluster_file(folder, "slow.toml", {{"fast", "1GB", "30MB/s"}, {"slow", "1GB", "10MB/s"}});
  command(std::string("run ") + kModel + "--limit 1 --local-ranks 2 --cluster " + cluster +
          " --json " + folder / "run.json");
  const auto rows = rows_of(folder / "run.json", "rank");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["kv_heads"] == 3);
  CHECK(rows[1]["kv_heads"] == 1);
  CHECK(rows[0]["neurons"].get<int>() > 2 * rows[1]["neurons"].get<int>());
}

TEST_CASE("stages in another order than the ranks compute, record and keep hot the same", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  // A slow network makes stages of the two; the fast one has no room for all layers, and is last,
  // where the output head is.
  const std::string cluster = folder / "stages.toml";
  std::ofstream(cluster) << R"([cluster]
name = "stages"
[network]
bandwidth = "1GB/s"
latency = "1ms"
[[node]]
name = "fast"
host = {memory = "5MiB", bandwidth = "300MB/s"}
disk = {memory = "1TB", bandwidth = "30GB/s"}
migration = {bandwidth = "1GB/s"}
[[node]]
name = "slow"
host = {memory = "1GB", bandwidth = "100MB/s"}
disk = {memory = "1TB", bandwidth = "10GB/s"}
migration = {bandwidth = "1GB/s"}
)";
  const std::string common = std::string("run ") + kModel;
  command(common + "--split train --limit 1 --record " + folder / "p.h5");
  const std::string tasks = common + "--split test --limit 4 ";
  command(tasks + "--logits " + folder / "one.npy");
  const CommandResult run =
      mpirun(2, tasks + "--cluster " + cluster + " --profile " + folder / "p.h5" +
                    " --policy fixed,ewma --budget 40KiB+90KiB --migration 64KiB --logits " +
                    folder / "two.npy --record " + folder / "two.h5 --json " + folder / "run.json");
  INFO(run.output);
  REQUIRE(run.exit_code == 0);
  CHECK(greatest_difference(folder / "one.npy", folder / "two.npy") < 1e-4f);
  const auto rows = rows_of(folder / "run.json", "rank");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["node"] == "slow");
  CHECK(rows[0]["rank"] == 1);
  CHECK(rows[0]["stage"] == 0);
  CHECK(rows[1]["node"] == "fast");
  CHECK(rows[1]["layers"].get<int>() > rows[0]["layers"].get<int>());
  command("replay " + folder / "two.h5 --profile " + folder / "p.h5 --policy fixed,ewma" +
          " --budget 40KiB+90KiB --migration 64KiB --cluster " + cluster + " --json " +
          folder / "replay.json");
  const auto live = rows_of(folder / "run.json", "policy");
  const auto replay = rows_of(folder / "replay.json", "policy");
  REQUIRE(live.size() == 2);
  REQUIRE(replay.size() == 2);
  for (size_t i = 0; i < 2; ++i) CHECK(live[i]["counters"] == replay[i]["counters"]);
}

TEST_CASE("on unlike nodes with the FFN on disk each holds what its own budget leaves room for") {
  const TempDir folder;
  const std::string cluster = uneven_cluster(folder);
  const std::string common = std::string("run ") + kModel;
  command(common + "--split train --limit 1 --record " + folder / "p.h5");
  const std::string run = common + "--split test --limit 2 --local-ranks 3 --cluster " + cluster +
                          " --profile " + folder / "p.h5 --policy ewma --migration 64KiB" +
                          " --disk-tier " + folder / "" + " --budget ";
  command(run + "60KiB+9MiB+12KiB --record " + folder / "t.h5 --json " + folder / "run.json");
  const auto tiers = rows_of(folder / "run.json", "tier");
  REQUIRE(tiers.size() == 2);
  CHECK(tiers[0]["rank"] == 0);
  CHECK(tiers[1]["rank"] == 2);
  CHECK(tiers[0]["hot_bytes"] <= 60 << 10);
  CHECK(tiers[1]["hot_bytes"] <= 12 << 10);
  CHECK(tiers[1]["hot_bytes"] > 0);
  const auto ranks = rows_of(folder / "run.json", "rank");
  CHECK(ranks[1]["predicted_bytes"] <= 1800 << 10);
  command("replay " + folder / "t.h5 --profile " + folder / "p.h5 --policy ewma" +
          " --budget 60KiB+12KiB --migration 64KiB --cluster " + cluster + " --json " +
          folder / "replay.json");
  CHECK(rows_of(folder / "run.json", "policy").at(0)["counters"] ==
        rows_of(folder / "replay.json", "policy").at(0)["counters"]);
  // What is hot makes a step shorter on its node, and is held there.
  const auto planned = [&](const std::string& budget) {
    command(run + budget + " --print-partition --json " + folder / "plan.json");
    return std::pair(rows_of(folder / "plan.json", "partition").at(0)["predicted_step_ms"],
                     rows_of(folder / "plan.json", "rank").at(0)["predicted_bytes"]);
  };
  const auto cold = planned("0B+0B+12KiB"), hot = planned("60KiB+60KiB+12KiB");
  CHECK(hot.first.get<double>() < cold.first.get<double>());
  const auto held = hot.second.get<uint64_t>() - cold.second.get<uint64_t>();
  CHECK(held <= 60 << 10);
  CHECK(held >= 30 << 10);  // gate rows are in memory anyway
}

TEST_CASE("alike nodes run the default partition, to the bit") {
  const TempDir folder;
  const std::string cluster =
      cluster_file(folder, "alike.toml", {{"a", "1GB", "10GB/s"}, {"b", "1GB", "10GB/s"}});
  const std::string run = std::string("run ") + kModel + "--limit 2 --local-ranks 2 ";
  command(run + "--record " + folder / "a.h5" + " --logits " + folder / "a.npy");
  command(run + "--record " + folder / "b.h5" + " --logits " + folder / "b.npy --cluster " +
          cluster);
  CHECK(open_trace(folder / "a.h5")->hash() == open_trace(folder / "b.h5")->hash());
  CHECK(load_npy(folder / "a.npy") == load_npy(folder / "b.npy"));
  CHECK(open_trace(folder / "a.h5")->header().layout == "pp1,tp2");
}

// Counters of the live policies of a run, and of a replay of its trace at the same budgets.
void check_replays(const TempDir& folder, const std::string& run, const std::string& policies,
                   const std::string& replayed_budget) {
  command(run + " --json " + folder / "run.json --record " + folder / "t.h5");
  const std::string flags = policies.substr(0, policies.find(" --budget"));
  command("replay " + folder / "t.h5" + flags + " --budget " + replayed_budget + " --json " +
          folder / "replay.json");
  const auto live = rows_of(folder / "run.json", "policy");
  const auto replay = rows_of(folder / "replay.json", "policy");
  REQUIRE(!live.empty());
  REQUIRE(live.size() == replay.size());
  for (size_t i = 0; i < live.size(); ++i) {
    INFO(live[i] << " beside " << replay[i]);
    CHECK(live[i]["policy"] == replay[i]["policy"]);
    CHECK(live[i]["counters"] == replay[i]["counters"]);
    CHECK(live[i]["counters"]["hits"] > 0);
  }
}

TEST_CASE("budgets of single ranks and nodes count live what they count in replay", "[long]") {
  const TempDir folder;
  const std::string cluster = uneven_cluster(folder);
  const std::string common = std::string("run ") + kModel;
  // The run's own tasks are long: what the ranks have left depends on it.
  command(common + "--prompts " + kShortTasks + " --split train --limit 2 --record " +
          folder / "p.h5");
  const std::string run = common + "--split test --limit 4 --local-ranks 3 --cluster " + cluster;
  struct Case {
    std::string live, replayed;
  };
  // One a rank of the job, of which one is left out; one a rank that is used; one a node; and what
  // the nodes have left beside the dense weights.
  const Case one =
      GENERATE(Case{"120KiB+90KiB+20KiB", "120KiB+20KiB"}, Case{"120KiB+20KiB", "120KiB+20KiB"},
               Case{"30KiB+9MiB+90KiB", "30KiB+0B+90KiB"}, Case{"10%,cluster", "10%,cluster"});
  INFO(one.live);
  const std::string policies = " --profile " + folder / "p.h5 --policy fixed,ewma,hermes" +
                               " --migration 64KiB --cluster " + cluster + " --budget " + one.live;
  const std::string live = " --profile " + folder / "p.h5 --policy fixed,ewma,hermes" +
                           " --migration 64KiB --budget " + one.live;
  check_replays(folder, run + live, policies, one.replayed);
}

TEST_CASE("the disk tier keeps of each rank what its own budget allows") {
  const TempDir folder;
  const std::string common = std::string("run ") + kModel;
  command(common + "--split train --limit 1 --record " + folder / "p.h5");
  const std::string live = " --profile " + folder / "p.h5 --policy ewma --migration 64KiB ";
  const std::string run = common + "--split test --limit 2 --local-ranks 2" + live;
  command(run + "--budget 150KiB+30KiB --record " + folder / "memory.h5 --json " +
          folder / "memory.json");
  command(run + "--budget 150KiB+30KiB --disk-tier " + folder / "" + " --record " +
          folder / "disk.h5 --json " + folder / "disk.json");
  CHECK(open_trace(folder / "memory.h5")->hash() == open_trace(folder / "disk.h5")->hash());
  CHECK(rows_of(folder / "memory.json", "policy").at(0)["counters"] ==
        rows_of(folder / "disk.json", "policy").at(0)["counters"]);
  const auto tiers = rows_of(folder / "disk.json", "tier");
  REQUIRE(tiers.size() == 2);
  CHECK(tiers[0]["hot_bytes"] <= 150 << 10);
  CHECK(tiers[0]["hot_bytes"] > 60 << 10);
  CHECK(tiers[1]["hot_bytes"] <= 30 << 10);
  CHECK(tiers[1]["hot_bytes"] > 0);
}

TEST_CASE("a run with a rank left out is stopped and goes on, and samples the same texts",
          "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  const std::string cluster = uneven_cluster(folder);
  const std::string decode =
      "run --model preset:tiny --shots 0 --threads 1 --batch 4 --backend cpu --limit 4 "
      "--max-new-tokens 40 --temperature 0.8 --seed 3 --cluster " +
      cluster;
  const CommandResult by_mpi = mpirun(3, decode + " --samples " + folder / "mpi.jsonl");
  INFO(by_mpi.output);
  REQUIRE(by_mpi.exit_code == 0);
  command(decode + " --local-ranks 3 --samples " + folder / "local.jsonl");
  CHECK(read_file(folder / "mpi.jsonl") == read_file(folder / "local.jsonl"));

  const std::string record = std::string("run ") + kModel + "--split all --limit 40 --cluster " +
                             cluster + " --local-ranks 3 --record ";
  command(record + folder / "whole.h5");
  const CommandResult stopped =
      run_command("timeout -s INT 0.7 " + program() + " " + record + folder / "parts.h5");
  INFO(stopped.output);
  if (stopped.exit_code != 0) {
    CHECK_THAT(stopped.output, Contains("interrupted after"));
    command(record + folder / "parts.h5 --resume");
  }
  CHECK(open_trace(folder / "whole.h5")->hash() == open_trace(folder / "parts.h5")->hash());
}

TEST_CASE("an error of a used rank ends those that wait, with one message and its exit code",
          "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  const CommandResult failed = run_command(
      "timeout 60 mpirun -n 3 " + program() + " run " + kModel + "--limit 4 --cluster " +
      uneven_cluster(folder) + " --disk-tier " + folder / "none");
  INFO(failed.output);
  CHECK(failed.exit_code == 1);
  const std::string message = "no file can be made there";
  const size_t first = failed.output.find(message);
  REQUIRE(first != std::string::npos);
  CHECK(failed.output.find(message, first + 1) == std::string::npos);
}

TEST_CASE("a partition is printed without ranks, nodes or weights to run") {
  const TempDir folder;
  const std::string path = folder / "c.toml";
  std::ofstream(path) << R"([cluster]
name = "mixed"
[network]
bandwidth = "10GB/s"
latency = "5us"
[[node]]
name = "gpu"
ranks = 2
device = {memory = "24GB", bandwidth = "900GB/s"}
[[node]]
name = "box"
count = 2
host = {memory = "64GB", bandwidth = "60GB/s"}
)";
  const std::string model = "run --model preset:relullama-70b,type=q4_0 --print-partition ";
  const CommandResult printed =
      command(model + "--cluster " + path + " --json " + folder / "p.json");
  CHECK_THAT(printed.output, Contains("cluster 'mixed'") && Contains("is predicted to take"));
  const auto rows = rows_of(folder / "p.json", "rank");
  REQUIRE(rows.size() == 4);
  uint64_t bundles = 0;
  for (const auto& row : rows) {
    bundles += row["neurons"].get<uint64_t>() * row["layers"].get<uint64_t>();
    CHECK(row["source"] == "modelled");
    CHECK(!row["reason"].get<std::string>().empty());
  }
  CHECK(bundles == 80 * 28672);
  CHECK(thermocline_command(model + "--cluster " + path + " --ranks 3").exit_code == 2);
  CHECK_THAT(thermocline_command(model + "--cluster " + path + " --ranks 3").output,
             Contains("ask for 4 ranks"));
  CHECK_THAT(thermocline_command("run --model preset:tiny --limit 1 --ranks 3").output,
             Contains("--print-partition"));
}

}  // namespace
}  // namespace thermocline::test
