// `thermocline run` under mpirun: the same text, traces and counters for every number of ranks.
#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

constexpr const char* kStory =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball";

TEST_CASE("stories260K writes its known text with 1, 2, 3 and 4 ranks", "[mpi]") {
  const std::string model = data_file("stories260K.bin");
  const std::string tokenizer = data_file("tok512.bin");
  if (model.empty() || tokenizer.empty() || !have_mpirun()) return;
  const int ranks = GENERATE(1, 2, 3, 4);
  const CommandResult result = mpirun(ranks, "run --model " + model + " --tokenizer " + tokenizer +
                                                 " --prompt '' --max-new-tokens 80 --threads 1");
  INFO(ranks << " ranks: " << result.output);
  CHECK(result.exit_code == 0);
  CHECK(result.output.find(kStory) != std::string::npos);
}

TEST_CASE("what ran live is what replays, with every layout", "[mpi]") {
  if (!have_mpirun()) return;
  struct Case {
    int ranks;
    std::string layout;
  };
  const Case one =
      GENERATE(Case{1, "pp1,tp1"}, Case{2, "pp1,tp2"}, Case{3, "pp1,tp3"}, Case{4, "pp2,tp2"});
  const TempDir folder;
  const std::string common =
      "--model preset:tiny --shots 0 --teacher-forced --threads 1 --layout " + one.layout;
  const CommandResult profiled =
      mpirun(one.ranks, "run " + common + " --split train --limit 1 --record " + folder / "p.h5");
  INFO(profiled.output);
  REQUIRE(profiled.exit_code == 0);
  const CommandResult run =
      mpirun(one.ranks, "run " + common + " --split test --limit 2 --record " + folder / "t.h5" +
                            " --profile " + folder / "p.h5" +
                            " --policy fixed,ewma --budget 10%..50%/20% --migration 64KiB --json " +
                            folder / "run.json");
  INFO(run.output);
  REQUIRE(run.exit_code == 0);
  const CommandResult checked = thermocline_command("trace check " + folder / "t.h5");
  INFO(checked.output);
  CHECK(checked.exit_code == 0);

  const CommandResult replayed =
      thermocline_command("replay " + folder / "t.h5" + " --profile " + folder / "p.h5" +
                          " --policy fixed,ewma --budget 10%..50%/20% --migration 64KiB --json " +
                          folder / "replay.json");
  INFO(replayed.output);
  REQUIRE(replayed.exit_code == 0);
  const auto live = rows_of(folder / "run.json", "policy");
  const auto replay = rows_of(folder / "replay.json", "policy");
  REQUIRE(live.size() == 6);
  REQUIRE(replay.size() == 6);
  for (size_t i = 0; i < live.size(); ++i) {
    CHECK(live[i]["policy"] == replay[i]["policy"]);
    CHECK(live[i]["budget_bytes"] == replay[i]["budget_bytes"]);
    CHECK(live[i]["counters"] == replay[i]["counters"]);
    CHECK(live[i]["counters"]["needed"] > 0);
  }
}

TEST_CASE("two 70B-sized layers on 4 ranks fit in 4 GiB", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  const CommandResult result =
      mpirun(4,
             "run --model preset:llama-2-70b,layers=2,type=q4_0 --prompt 'def f(x):' "
             "--max-new-tokens 8 --threads 1 --bench --json " +
                 folder / "run.json");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  uint64_t peak = 0;
  for (const auto& rank : rows_of(folder / "run.json", "rank")) {
    peak += rank["peak_rss_bytes"].get<uint64_t>();
  }
  CHECK(peak > (uint64_t{962} << 20));  // the weights themselves are there
  CHECK(peak < (uint64_t{4} << 30));
  const auto runs = rows_of(folder / "run.json", "run");
  REQUIRE(runs.size() == 1);
  CHECK(runs[0]["layer_ms"].get<double>() > 0);
  CHECK(runs[0]["layer_gb_per_s"].get<double>() > 0);
}

// Runs three ranks, waits until rank 1 records, then kills it.
constexpr const char* kKillScript = R"sh(cd "$1"
mpirun -n 3 sh -c 'echo $$ > pid.$OMPI_COMM_WORLD_RANK; exec "$0" "$@"' "$2" \
  run --model preset:tiny --split all --teacher-forced --threads 1 --record t.h5 &
job=$!
for i in $(seq 200); do [ -s t.rank0001.h5.partial ] && break; sleep 0.05; done
sleep 0.5
kill -9 "$(cat pid.1)"
wait $job
)sh";

TEST_CASE("a killed rank ends the job, and what was flushed is readable", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  std::ofstream(folder / "job.sh") << kKillScript;
  const CommandResult killed =
      run_command("timeout 60 bash " + folder / "job.sh" + " " + folder.path() + " " + program());
  INFO(killed.output);
  CHECK(killed.exit_code != 0);
  CHECK(killed.exit_code != 124);  // it did not hang
  CHECK(!exists(folder / "t.h5"));
  const CommandResult refused = thermocline_command("trace info " + folder / "t.h5");
  CHECK(refused.exit_code == 3);
  const CommandResult read = thermocline_command("trace info --allow-partial " + folder / "t.h5");
  INFO(read.output);
  CHECK(read.exit_code == 0);
}

}  // namespace
}  // namespace thermocline::test
