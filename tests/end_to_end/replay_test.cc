// `thermocline replay` as jobs run it: shared by processes, ended and gone on with.
#include <fstream>

#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream in(path);
  INFO(path);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

// Two texts of one drawn model.
void draw_traces(const TempDir& folder, int layers, int steps) {
  for (const int text : {1, 2}) {
    const CommandResult drawn = thermocline_command(
        "trace synth --preset relullama-70b,drift=0.5,layers=" + std::to_string(layers) +
        " --steps " + std::to_string(steps) + " --text-seed " + std::to_string(text) + " --out " +
        folder / ("t" + std::to_string(text) + ".h5"));
    INFO(drawn.output);
    REQUIRE(drawn.exit_code == 0);
  }
}

std::string replay_command(const TempDir& folder, const std::string& json) {
  return "replay " + folder / "t2.h5" + " --profile " + folder / "t1.h5" +
         " --policy fixed,oracle-static,ewma,ewma:halflife=8,ewma:halflife=64 "
         "--budget 10%..40%/10% --json " +
         folder / json;
}

// Ends the replay without a warning as soon as some of its rows are kept.
constexpr const char* kKillScript = R"sh(cd "$1"; shift
"$@" &
job=$!
for i in $(seq 400); do [ -s killed.json.partial.batch1 ] && break; sleep 0.05; done
kill -9 $job
wait $job
)sh";

TEST_CASE("processes of one job share a replay, and give the same bytes", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  draw_traces(folder, 1, 300);
  const CommandResult alone = thermocline_command(replay_command(folder, "alone.json"));
  INFO(alone.output);
  REQUIRE(alone.exit_code == 0);
  for (const int ranks : {1, 2, 3}) {
    const CommandResult shared = mpirun(ranks, replay_command(folder, "shared.json"));
    INFO(shared.output);
    REQUIRE(shared.exit_code == 0);
    // The envelope names the cores that mpirun leaves a process; the rows are the results.
    CHECK(load_json(folder / "shared.json")["rows"].dump() ==
          load_json(folder / "alone.json")["rows"].dump());
  }
  const CommandResult wrong = mpirun(2, "replay none.h5 --policy fixed");
  CHECK(wrong.exit_code == 3);
  CHECK(wrong.output.find("none.h5") != std::string::npos);
}

TEST_CASE("a killed replay goes on with what it had finished, and ends in the same bytes",
          "[slow]") {
  const TempDir folder;
  draw_traces(folder, 2, 2000);
  std::ofstream(folder / "job.sh") << kKillScript;
  const CommandResult whole = thermocline_command(replay_command(folder, "whole.json"));
  INFO(whole.output);
  REQUIRE(whole.exit_code == 0);
  const std::string replay = program() + " " + replay_command(folder, "killed.json");
  const CommandResult killed =
      run_command("bash " + folder / "job.sh" + " " + folder.path() + " " + replay);
  INFO(killed.output);
  REQUIRE_FALSE(exists(folder / "killed.json"));
  REQUIRE(exists(folder / "killed.json.partial.batch1"));
  const CommandResult resumed =
      thermocline_command(replay_command(folder, "killed.json") + " --resume");
  INFO(resumed.output);
  CHECK(resumed.exit_code == 0);
  CHECK(resumed.output.find("were finished before") != std::string::npos);
  CHECK(text_of(folder / "killed.json") == text_of(folder / "whole.json"));
  CHECK_FALSE(exists(folder / "killed.json.partial.batch1"));
}

}  // namespace
}  // namespace thermocline::test
