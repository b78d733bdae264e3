// A run that is killed or stopped goes on, and its trace is that of a run that was not.
#include <fstream>
#include <random>

#include "tests/end_to_end/program.h"
#include "traces/interrupted.h"
#include "traces/profile.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

// Every content of a trace but times and configuration.
void check_equal(const TraceReader& one, const TraceReader& other) {
  CHECK(one.hash() == other.hash());
  REQUIRE(one.step_count() == other.step_count());
  CHECK(one.steps() == other.steps());
  CHECK(one.tasks() == other.tasks());
  CHECK(one.magnitude_steps() == other.magnitude_steps());
  const NeuronPool whole = whole_model(one.header());
  StepBlock a, b;
  for (uint64_t begin = 0; begin < one.step_count(); begin += kBlockSteps) {
    const uint64_t count = std::min<uint64_t>(kBlockSteps, one.step_count() - begin);
    one.read(whole, begin, count, a);
    other.read(whole, begin, count, b);
    REQUIRE(a.words == b.words);
  }
  std::vector<float> magnitudes, others;
  for (uint64_t row = 0; row < one.magnitude_steps().size(); row += 50) {
    one.read_magnitudes(whole, row, 1, magnitudes);
    other.read_magnitudes(whole, row, 1, others);
    REQUIRE(magnitudes == others);
  }
}

// Runs ranks that are threads, waits until they record, then stops them.
constexpr const char* kStopScript = R"sh(folder="$1"; signal="$2"
shift 2
"$@" &
job=$!
for i in $(seq 1000); do [ -s "$folder/parts.rank0000.h5.partial" ] && break; sleep 0.01; done
sleep 0.15
kill -"$signal" $job
wait $job
)sh";

class ResumedRun {
 public:
  ResumedRun(const std::string& launcher, const std::string& options)
      : launcher_(launcher), options_(options) {
    const CommandResult profiled = run_command(
        launcher_ + program() +
        " run --model preset:tiny --split train --limit 2 --teacher-forced --threads 1 " + options +
        " --record " + folder_ / "profile.h5");
    INFO(profiled.output);
    REQUIRE(profiled.exit_code == 0);
    const CommandResult whole = run_command(command("whole"));
    INFO(whole.output);
    REQUIRE(whole.exit_code == 0);
  }

  std::string command(const std::string& name, const std::string& more = "") const {
    return launcher_ + program() +
           " run --model preset:tiny --split all --teacher-forced --threads 1 " + options_ +
           " --record-magnitudes log8:every=7 --policy ewma --budget 20% --profile " +
           folder_ / "profile.h5" + " --record " + folder_ / (name + ".h5") + " --json " +
           folder_ / (name + ".json") + " " + more;
  }

  // What was interrupted and gone on with, against what was not.
  void check() const {
    const auto whole = open_trace(folder_ / "whole.h5"), parts = open_trace(folder_ / "parts.h5");
    check_equal(*whole, *parts);
    for (const ShardReport& report : check_trace(folder_ / "parts.h5")) {
      INFO(report.line);
      CHECK(report.good);
    }
    const auto expected = rows_of(folder_ / "whole.json", "policy");
    const auto found = rows_of(folder_ / "parts.json", "policy");
    REQUIRE(found.size() == 1);
    CHECK(found[0]["counters"] == expected[0]["counters"]);
    CHECK(!has_interrupted(folder_ / "parts.h5"));
  }

  // Interrupts `command` while it records "parts".
  CommandResult stop(const std::string& signal, const std::string& command) const {
    std::ofstream(path("stop.sh")) << kStopScript;
    return run_command("timeout 60 bash " + path("stop.sh") + " " + path("") + " " + signal + " " +
                       command);
  }

  std::string path(const std::string& name) const { return folder_ / name; }

 private:
  TempDir folder_;
  std::string launcher_, options_;
};

TEST_CASE("a run that is killed again and again ends as if it had not been", "[slow]") {
  const ResumedRun run("", GENERATE("--local-ranks 2", "--local-ranks 3 --layout pp3 --batch 3"));
  std::mt19937 random(11);
  int kills = 0;
  for (; kills < 6; ++kills) {
    const double seconds = 0.15 + 0.05 * static_cast<double>(random() % 12);
    const CommandResult result = run_command("timeout -s KILL " + std::to_string(seconds) + " " +
                                             run.command("parts", kills == 0 ? "" : "--resume"));
    if (result.exit_code == 0) break;
  }
  CHECK(kills > 0);
  const CommandResult last = run_command(run.command("parts", "--resume"));
  INFO(last.output);
  REQUIRE(last.exit_code == 0);
  run.check();
}

// Runs three ranks, waits until rank 1 records, then kills it.
constexpr const char* kKillScript = R"sh(export PIDS="$1"
shift
"$@" &
job=$!
for i in $(seq 200); do [ -s "$PIDS/parts.rank0001.h5.partial" ] && break; sleep 0.05; done
sleep 0.7
kill -9 "$(cat "$PIDS/pid.1")"
wait $job
)sh";

TEST_CASE("a job that lost a rank goes on at its last complete task", "[mpi]") {
  if (!have_mpirun()) return;
  const std::string launcher =
      "mpirun -n 3 sh -c '[ -z \"$PIDS\" ] || echo $$ > \"$PIDS/pid.$OMPI_COMM_WORLD_RANK\"; "
      "exec \"$0\" \"$@\"' ";
  const ResumedRun run(launcher, "--layout tp3");
  std::ofstream(run.path("job.sh")) << kKillScript;
  const CommandResult killed = run_command("timeout 60 bash " + run.path("job.sh") + " " +
                                           run.path("") + " " + run.command("parts"));
  INFO(killed.output);
  CHECK(killed.exit_code != 0);
  CHECK(killed.exit_code != 124);  // it did not hang
  const CommandResult last = run_command(run.command("parts", "--resume"));
  INFO(last.output);
  REQUIRE(last.exit_code == 0);
  CHECK_THAT(last.output, Contains("are taken over"));
  run.check();
}

TEST_CASE("SIGTERM leaves a trace to go on with, and only --resume or --overwrite touch it",
          "[slow]") {
  const ResumedRun run("", "--local-ranks 2");
  const std::string path = run.path("parts.h5");
  // timeout ends with 124 whatever its child says.
  const CommandResult stopped = run.stop("TERM", run.command("parts"));
  REQUIRE(stopped.exit_code == 1);
  CHECK_THAT(stopped.output, Contains("interrupted after") && Contains("--resume goes on"));
  REQUIRE(has_interrupted(path));
  const auto partial = open_trace(path, {.allow_partial = true});
  CHECK(partial->step_count() > 0);

  const CommandResult slip = run_command(run.command("parts"));
  CHECK(slip.exit_code == 2);
  CHECK_THAT(slip.output, Contains("--resume goes on with it, --overwrite starts over"));
  const CommandResult other = run_command(run.command("parts", "--resume --seed 2"));
  CHECK(other.exit_code == 3);
  CHECK_THAT(other.output, Contains("another seed"));
  const CommandResult last = run_command(run.command("parts", "--resume"));
  INFO(last.output);
  REQUIRE(last.exit_code == 0);
  CHECK_THAT(last.output, Contains("are taken over"));
  run.check();
}

TEST_CASE("an interrupted recording of another run starts over where it may", "[slow]") {
  const ResumedRun run("", "--local-ranks 2");
  run.stop("KILL", run.command("parts", "--seed 2"));
  REQUIRE(has_interrupted(run.path("parts.h5")));
  const CommandResult last = run_command(run.command("parts", "--resume --overwrite"));
  INFO(last.output);
  REQUIRE(last.exit_code == 0);
  CHECK_THAT(last.output, !Contains("are taken over"));
  run.check();
}

TEST_CASE("resuming where nothing was interrupted runs from the start", "[slow]") {
  const ResumedRun run("", "--local-ranks 2");
  const CommandResult result = run_command(run.command("parts", "--resume"));
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  run.check();
  CHECK(thermocline_command("run --prompt x --resume").exit_code == 2);
}

}  // namespace
}  // namespace thermocline::test
