#include "sim/study.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <thread>

#include "models/cli.h"
#include "models/error.h"
#include "models/process.h"
#include "sim/study_plan.h"
#include "sim/study_run.h"
#include "tests/sim/result_rows.h"
#include "tests/sim/three_tiers.h"
#include "tests/support.h"

namespace thermocline {
namespace {

using Catch::Matchers::Contains;

const std::string kModel = "[[model]]\nlabel = \"one\"\nmodel = \"preset:tiny\"\n";
const std::string kSmallest = "name = \"s\"\n" + kModel;

std::string error_of(const std::string& text) {
  try {
    parse_study(text, "s.toml");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    return error.what();
  }
  return "no error";
}

std::string open_error_of(const std::string& text) {
  const test::TempDir folder;
  write_file(folder / "s.toml", text);
  try {
    open_study(folder / "s.toml");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    return error.what();
  }
  return "no error";
}

TEST_CASE("the smallest study has the documented defaults") {
  const Study study = parse_study(kSmallest, "s.toml");
  CHECK(study.ranks == 1);
  CHECK(study.policies == std::vector<std::string>{"fixed", "ewma", "oracle-static"});
  CHECK(study.budgets == "10%..50%/10%");
  CHECK(study.migration == "32MiB");
  CHECK(study.teacher_forced);
  CHECK(study.prompts.profile_split == "train");
  CHECK(study.models.at(0).model == "preset:tiny");
}

TEST_CASE("a study file is read strictly, and errors say where") {
  CHECK_THAT(error_of("name = \"s\"\nrank = 4\n" + kModel),
             Contains("s.toml:2") && Contains("'rank'") && Contains("did you mean 'ranks'"));
  CHECK_THAT(error_of("name = \"s\"\n[prompts]\nshot = 3\n" + kModel),
             Contains("s.toml:3") && Contains("did you mean 'shots'"));
  CHECK_THAT(error_of("name = \"s\"\n[[model]]\nlabel = \"a\"\nmodle = \"x\"\n"),
             Contains("s.toml:4") && Contains("did you mean 'model'"));
  CHECK_THAT(error_of("name = \"s\"\nranks = \"four\"\n" + kModel),
             Contains("s.toml:2") && Contains("an integer from 1 to 4096") && Contains("'four'"));
  CHECK_THAT(error_of("name = \"s\"\nranks = 0\n" + kModel), Contains("found 0"));
  CHECK_THAT(error_of("name = \"s\"\npolicies = \"fixed\"\n" + kModel), Contains("an array"));
  CHECK_THAT(error_of("name = \"s\"\npolicies = []\n" + kModel), Contains("an empty array"));
  CHECK_THAT(error_of("name = \"s\"\npolicies = [1]\n" + kModel), Contains("a string"));
  CHECK_THAT(error_of("name = \"s\"\nteacher_forced = 1\n" + kModel), Contains("true or false"));
  CHECK_THAT(error_of(kModel), Contains("the key 'name'"));
  CHECK_THAT(error_of("name = \"../up\"\n" + kModel), Contains("a name of letters"));
  CHECK_THAT(error_of("name = \"s\"\n"), Contains("[[model]]"));
  CHECK_THAT(error_of("name = \"s\"\nmodel = 3\n"), Contains("[[model]]"));
  CHECK_THAT(error_of(kSmallest + kModel), Contains("s.toml:6") && Contains("'one' twice"));
  CHECK_THAT(error_of("name = \"s\"\nlayout = \"a\\u0000b\"\n" + kModel), Contains("control"));
  CHECK_THAT(error_of("name = \"s\nranks = 4\n"), Contains("s.toml:1"));
}

TEST_CASE("hostile study files are refused, not recursed into") {
  CHECK_THAT(error_of("name = \"s\"\nlayout = 'pp\xb6\xb6\xb6'\n" + kModel),
             Contains("s.toml:2") && Contains("UTF-8") && Contains("0xb6"));
  CHECK_THAT(error_of("a = " + std::string(60000, '[')), Contains("nested brackets"));
  CHECK_THAT(error_of("a" + std::string(30000, '.')), Contains("dots a line"));
  CHECK_THAT(error_of(std::string(1 << 20, '#')), Contains("bytes of TOML"));
  const std::string demo =
      read_file(std::string(THERMOCLINE_SOURCE_DIR) + "/sim/studies/demo.toml");
  for (size_t length = 0; length < demo.size(); ++length) {  // truncated anywhere: an Error or fine
    try {
      parse_study(std::string_view(demo).substr(0, length), "s.toml");
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::input);
    }
  }
}

TEST_CASE("what a study means is checked before anything runs") {
  CHECK(open_error_of(kSmallest) == "no error");
  CHECK_THAT(open_error_of("name = \"s\"\npolicies = [\"fixd\"]\n" + kModel),
             Contains("s.toml:2") && Contains("did you mean 'fixed'"));
  CHECK_THAT(open_error_of("name = \"s\"\npolicies = [\"oracle-static\"]\n" + kModel),
             Contains("live"));
  CHECK_THAT(open_error_of("name = \"s\"\npolicies = [\"fixed\", \"fixed\"]\n" + kModel),
             Contains("twice"));
  CHECK_THAT(open_error_of("name = \"s\"\nbudgets = \"200%\"\n" + kModel), Contains("s.toml:2"));
  CHECK_THAT(open_error_of("name = \"s\"\nbudgets = \"10\"\n" + kModel), Contains("s.toml:2"));
  CHECK_THAT(open_error_of("name = \"s\"\nmigration = \"32 apples\"\n" + kModel),
             Contains("s.toml:2"));
  CHECK_THAT(open_error_of("name = \"s\"\ncluster = \"none.toml\"\n" + kModel),
             Contains("s.toml:2") && Contains("none.toml"));
  CHECK_THAT(open_error_of("name = \"s\"\n[prompts]\ntest_split = \"tests\"\n" + kModel),
             Contains("s.toml:3") && Contains("did you mean 'test'"));
  CHECK_THAT(open_error_of("name = \"s\"\n[[model]]\nlabel = \"a\"\nmodel = \"preset:tinny\"\n"),
             Contains("s.toml:4") && Contains("did you mean 'tiny'"));
  CHECK_THAT(open_error_of("name = \"s\"\n[[model]]\nlabel = \"a\"\nmodel = \"none.gguf\"\n"),
             Contains("s.toml:4") && Contains("none.gguf"));
}

TEST_CASE("what a study executes in tiers is checked before anything runs") {
  const auto error = [](const std::string& execute) {
    return open_error_of("name = \"s\"\n[execute]\n" + execute + kModel);
  };
  CHECK(error("tiers = [\"host,disk\"]\n") == "no error");
  CHECK_THAT(error("tiers = [\"host,dsk\"]\n"),
             Contains("s.toml:3") && Contains("did you mean 'host,disk'"));
  CHECK_THAT(error("tiers = [\"device,host\"]\n"), Contains("execute.cluster"));
  CHECK_THAT(error("tiers = [\"host,disk\"]\npolicies = [\"belady\"]\n"),
             Contains("s.toml:4") && Contains("single uses"));
  CHECK_THAT(error("tiers = [\"host,disk\"]\nbudgets = \"300%\"\n"), Contains("s.toml:4"));
  CHECK_THAT(error("tiers = [\"host,disk\"]\ncluster = \"none.toml\"\n"),
             Contains("s.toml:4") && Contains("none.toml"));
  CHECK_THAT(error("tier = [\"host,disk\"]\n"), Contains("did you mean 'tiers'"));
}

TEST_CASE("a study of three tiers says what the host holds, on a machine that has all three") {
  const test::TempDir folder;
  const std::string cluster = "cluster = \"" + folder / "three.toml" + "\"\n";
  write_file(folder / "three.toml", test::kThreeTiers);
  const auto error = [](const std::string& execute) {
    return open_error_of("name = \"s\"\n[execute]\n" + execute + kModel);
  };
  const std::string tiers = "tiers = [\"device,host,disk\"]\n" + cluster;
  CHECK(error(tiers + "host_budgets = \"60%\"\n") == "no error");
  CHECK(error(tiers + "budgets = \"20%,40%\"\nhost_budgets = \"60%,80%\"\n") == "no error");
  CHECK_THAT(error(tiers), Contains("s.toml:3") && Contains("needs 'execute.host_budgets'"));
  CHECK_THAT(error(tiers + "budgets = \"20%\"\nhost_budgets = \"60%,80%\"\n"),
             Contains("s.toml:6") && Contains("one for each of the 1 of 'execute.budgets'"));
  CHECK_THAT(error(tiers + "host_budgets = \"101%\"\n"), Contains("s.toml:5"));
  CHECK_THAT(error("tiers = [\"host,disk\"]\nhost_budgets = \"60%\"\n"),
             Contains("s.toml:4") && Contains("expected \"device,host,disk\""));
  CHECK_THAT(error("tiers = [\"device,host,disk\"]\nhost_budgets = \"60%\"\n"),
             Contains("s.toml:3") && Contains("execute.cluster"));
  CHECK_THAT(error(tiers + "host_budget = \"60%\"\n"), Contains("did you mean 'host_budgets'"));
  std::string two_tiers = test::kThreeTiers;
  two_tiers.erase(two_tiers.find("disk = "),
                  two_tiers.find("migration") - two_tiers.find("disk ="));
  write_file(folder / "three.toml", two_tiers);
  CHECK_THAT(error(tiers + "host_budgets = \"60%\"\n"),
             Contains("s.toml:4") && Contains("expected all three on every node"));
}

TEST_CASE("in three tiers each run has both budgets, and one replay predicts them") {
  const Study study = parse_study(
      "name = \"s\"\n[execute]\ntiers = [\"device,host,disk\"]\nbudgets = \"20%,40%\"\n"
      "host_budgets = \"60%,80%\"\npolicies = [\"ewma\"]\ncluster = \"c.toml\"\nbackend = "
      "\"cpu\"\n" +
          kModel,
      "s.toml");
  const std::vector<Stage> stages = plan_stages(study, {"/bin/thermocline", "out", true});
  REQUIRE(stages.size() == 7);
  CHECK(stages[3].name == "predict device,host,disk");
  CHECK_THAT(shell_line(stages[3].command),
             Contains("--policy ewma --budget 88473B,176947B") &&
                 Contains("--cluster c.toml --tiers device,host,disk --host-budget "
                          "265420B,353894B --gate exact"));
  CHECK(stages[5].name == "execute device,host,disk ewma 176947 353894");
  CHECK_THAT(shell_line(stages[5].command),
             Contains("--budget 176947B --host-budget 353894B --migration 32MiB --tiers "
                      "device,host,disk --disk-tier out/one/tier --backend cpu --cluster c.toml"));
}

TEST_CASE("each policy at each budget is a run of its own, and one replay predicts them") {
  const Study study = parse_study(
      "name = \"s\"\n[execute]\ntiers = [\"host,disk\"]\nbudgets = \"20%,40%\"\n"
      "policies = [\"fixed\", \"oracle-static\"]\n" +
          kModel,
      "s.toml");
  const std::vector<Stage> stages = plan_stages(study, {"/bin/thermocline", "out", true});
  REQUIRE(stages.size() == 10);
  const auto line = [&](size_t i) { return shell_line(stages[i].command); };
  CHECK_THAT(line(3), Contains("calibrate --threads 1 --disk out/one/tier --read-bytes 144B --out "
                               "out/one/machine.toml"));
  CHECK(stages[4].name == "predict host,disk");
  CHECK_THAT(line(4), Contains("--policy fixed,oracle-static --budget 88473B,176947B") &&
                          Contains("--cluster out/one/machine.toml --tier host --gate exact"));
  CHECK(stages[5].name == "execute host,disk fixed-topk 88473");
  CHECK_THAT(line(5), Contains("--split test") && Contains("--policy fixed-topk --budget 88473B") &&
                          Contains("--disk-tier out/one/tier") && !Contains("--future"));
  CHECK_THAT(line(8), Contains("--policy oracle-static --future out/one/test.h5 --budget 176947B"));
  CHECK(stages[8].done == "out/one/execute-host-disk-oracle-static-176947.done");
  CHECK(stages[9].name == "stat");
}

TEST_CASE("every key is documented in sim/studies/README.md, by the table of keys itself") {
  const std::string readme =
      read_file(std::string(THERMOCLINE_SOURCE_DIR) + "/sim/studies/README.md");
  CHECK_THAT(readme, Contains(study_keys_markdown()));
}

TEST_CASE("the demo study is valid") {
  const Study demo = open_study(std::string(THERMOCLINE_SOURCE_DIR) + "/sim/studies/demo.toml");
  CHECK(demo.ranks == 4);
  CHECK(demo.models.size() == 2);
  CHECK(live_policies(demo) ==
        std::vector<std::string>{"fixed-topk", "ewma", "ewma:halflife=8", "quantile"});
}

TEST_CASE("a study plans the commands that a user would type") {
  Study study = parse_study(
      "name = \"s\"\nranks = 4\nlayout = \"pp2,tp2\"\n"
      "[prompts]\npath = \"a b.jsonl\"\ntest_limit = 3\n" +
          kModel,
      "s.toml");
  const std::vector<Stage> stages = plan_stages(study, {"/bin/thermocline", "out", true});
  REQUIRE(stages.size() == 4);
  CHECK(shell_line(stages[0].command) ==
        "mpirun -n 4 /bin/thermocline run --model preset:tiny --prompts 'a b.jsonl' --split train "
        "--shots 0 --teacher-forced --layout pp2,tp2 --threads 1 --seed 1 --record "
        "out/one/profile.h5 --resume --overwrite --json out/one/profile.json");
  CHECK(shell_line(stages[1].command) ==
        "mpirun -n 4 /bin/thermocline run --model preset:tiny --prompts 'a b.jsonl' --split test "
        "--shots 0 --limit 3 --teacher-forced --layout pp2,tp2 --threads 1 --seed 1 --record "
        "out/one/test.h5 --resume --overwrite --profile out/one/profile.h5 --policy "
        "fixed-topk,ewma --budget 10%..50%/10% --migration 32MiB --json out/one/run.json");
  CHECK(display_line(stages[2], "/bin/thermocline") ==
        "thermocline replay out/one/test.h5 --profile out/one/profile.h5 --policy "
        "fixed,ewma,oracle-static --budget 10%..50%/10% --migration 32MiB --resume --json "
        "out/one/replay.json");
  CHECK(display_line(stages[3], "/bin/thermocline") ==
        "thermocline trace stat out/one/test.h5 --json out/one/stat.json");
  CHECK(stages[3].inputs == std::vector<std::string>{"out/one/test.h5"});
}

TEST_CASE("without a launcher the ranks are threads of one process") {
  Study study = parse_study("name = \"s\"\nranks = 4\n" + kModel, "s.toml");
  CHECK_THAT(shell_line(plan_stages(study, {"t", "out", false})[0].command),
             Catch::StartsWith("t run --local-ranks 4 "));
  study.launcher = "none";
  CHECK(launcher_program(study).empty());
  study.launcher = "srun -n {ranks} --mpi 'p mi x'";
  CHECK(launcher_program(study) == "srun");
  CHECK(split_command(study.launcher, 3) ==
        std::vector<std::string>{"srun", "-n", "3", "--mpi", "p mi x"});
  CHECK_THROWS_AS(split_command("srun 'x", 1), Error);
  CHECK_THROWS_AS(split_command("  ", 1), Error);
  CHECK(shell_line({"it's", "", "plain"}) == "'it'\\''s' '' plain");
}

// A program that does what a script says, where the study expects thermocline.
class FakeProgram {
 public:
  FakeProgram() {
    write_file(folder_ / "run.json", run_json(0).dump());
    write_file(folder_ / "replay.json", test::document_of(test::policy_rows(false)).dump());
    write_file(folder_ / "trace.json",
               test::document_of(Json::array({test::activity_row()})).dump());
    write_file(folder_ / "s.toml", kSmallest);
    set_script("");
  }

  Json run_json(int hits_more) const {
    Json rows = test::policy_rows(true);
    rows[0]["counters"]["hits"] = rows[0]["counters"]["hits"].get<int>() + hits_more;
    rows.push_back(test::run_row("preset:tiny"));
    return test::document_of(rows);
  }
  void write_run_json(const Json& json) const { write_file(folder_ / "run.json", json.dump()); }

  // Notes each call in `calls`, runs `extra`, then writes what the command would.
  void set_script(const std::string& extra) const {
    write_file(folder_ / "fake.sh",
               "#!/bin/bash\nverb=$1\necho \"$@\" >> '" + folder_ / "calls" +
                   "'\necho verb $verb\n" + extra +
                   "\nout=${2}/report.html\nwhile [ $# -gt 0 ]; do\n"
                   "  case $1 in --json) out=$2 ;; --record) touch $2 ;; esac\n  shift\ndone\n"
                   "case $verb in report) echo '<html/>' > $out ;;\n  *) cp '" +
                   folder_.path() + "'/$verb.json $out ;; esac\n");
    ::chmod((folder_ / "fake.sh").c_str(), 0755);
  }

  StudyOptions options(bool resume) const {
    return {folder_ / "s.toml", folder_ / "out", resume, false, folder_ / "fake.sh"};
  }
  std::string run(bool resume) const {
    try {
      run_study(options(resume));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  // How often the program was called with a verb since the last look.
  int calls(const std::string& verb) const {
    int count = 0;
    std::istringstream lines(
        std::filesystem::exists(folder_ / "calls") ? read_file(folder_ / "calls") : std::string());
    for (std::string line; std::getline(lines, line);) count += line.starts_with(verb + " ");
    return count;
  }
  void forget_calls() const { std::filesystem::remove(folder_ / "calls"); }
  std::string operator/(const std::string& name) const { return folder_ / name; }

 private:
  test::TempDir folder_;
};

TEST_CASE("a study runs all stages, merges the rows and compares live with replay") {
  const FakeProgram fake;
  CHECK(fake.run(false) == "no error");
  CHECK(fake.calls("run") == 2);
  CHECK(fake.calls("replay") == 1);
  CHECK(fake.calls("trace stat") == 1);
  CHECK(fake.calls("report") == 1);
  const Results results = open_results({fake / "out"});
  REQUIRE(results.models.size() == 1);
  CHECK(results.models[0].label == "one");
  CHECK(results.models[0].live.size() == 6);
  CHECK(results.models[0].replayed.size() == 9);
  CHECK(results.models[0].stages.size() == 4);
  REQUIRE(results.models[0].activity);
  CHECK(results.models[0].activity->figures.at("own_coverage") == 0.5);
  CHECK(read_file(fake / "out/study.toml") == kSmallest);
  CHECK_THAT(read_file(fake / "out/results.csv"), Contains("counters_hits"));
  CHECK_THAT(read_file(fake / "out/one/test.log"), Contains("verb run"));
}

TEST_CASE("a study is resumed: what is done is not run again, what changed is") {
  const FakeProgram fake;
  REQUIRE(fake.run(false) == "no error");
  CHECK_THAT(fake.run(false), Contains("--resume") && Contains("found those of a study"));
  fake.forget_calls();
  CHECK(fake.run(true) == "no error");
  CHECK(fake.calls("run") == 0);
  CHECK(fake.calls("replay") == 0);
  CHECK(fake.calls("trace stat") == 0);
  CHECK(fake.calls("report") == 1);

  SECTION("a lost output") {
    std::filesystem::remove(fake / "out/one/replay.json");
    CHECK(fake.run(true) == "no error");
    CHECK(fake.calls("run") == 0);
    CHECK(fake.calls("replay") == 1);
  }
  SECTION("lost statistics are counted again, and nothing else is") {
    std::filesystem::remove(fake / "out/one/stat.json");
    CHECK(fake.run(true) == "no error");
    CHECK(fake.calls("run") == 0);
    CHECK(fake.calls("replay") == 0);
    CHECK(fake.calls("trace stat") == 1);
  }
  SECTION("a changed command runs again, with all after it") {
    write_file(fake / "s.toml", "budgets = \"20%\"\n" + kSmallest);
    CHECK(fake.run(true) == "no error");
    CHECK(fake.calls("run") == 1);
    CHECK(fake.calls("replay") == 1);
    CHECK(fake.calls("trace stat") == 1);
  }
  SECTION("a broken marker") {
    write_file(fake / "out/one/profile.done", "{");
    CHECK(fake.run(true) == "no error");
    CHECK(fake.calls("run") == 2);
    CHECK(fake.calls("replay") == 1);
  }
}

TEST_CASE("live counters that differ from the replay's fail the study") {
  const FakeProgram fake;
  fake.write_run_json(fake.run_json(1));
  CHECK_THAT(fake.run(false), Contains("live = replay: 5 of 6 equal") &&
                                  Contains("hits live 300001, replay 300000"));
  CHECK(std::filesystem::exists(fake / "out/report.html"));
  fake.write_run_json(test::document_of(Json::array({test::run_row("preset:tiny")})));
  std::filesystem::remove(fake / "out/one/run.json");
  CHECK_THAT(fake.run(true), Contains("no live counters"));
}

TEST_CASE("a stage that fails ends the study with the end of its log") {
  const FakeProgram fake;
  fake.set_script("for i in $(seq 50); do echo line $i; done; exit 3");
  CHECK_THAT(fake.run(false), Contains("one profile: exit code 3") && Contains("line 50") &&
                                  Contains("line 31") && !Contains("line 30\n") &&
                                  Contains("--resume"));
  CHECK_FALSE(std::filesystem::exists(fake / "out/results.json"));
  fake.set_script("exit 0");
  CHECK_THAT(fake.run(true), Contains("expected") && Contains("profile.json"));
  CHECK_THAT(fake.run(true), !Contains("done before"));
}

TEST_CASE("a dry run writes nothing") {
  const FakeProgram fake;
  StudyOptions options = fake.options(false);
  options.dry_run = true;
  run_study(options);
  CHECK_FALSE(std::filesystem::exists(options.out));
  CHECK(fake.calls("run") == 0);
}

TEST_CASE("a child's interruption is passed on once, and it may close its files") {
  const test::TempDir folder;
  const pid_t child = ::fork();
  if (child == 0) {  // the interruption is a flag of the whole process
    install_interrupt_handler();
    const ChildResult result =
        run_child({"/bin/bash", "-c",
                   "trap 'echo closed; exit 0' TERM; echo up; while :; do sleep 0.05; done"},
                  {"test", folder / "log", {}});
    ::_exit(result.interrupted && result.exit_code == 0 ? 42 : 1);
  }
  while (!std::filesystem::exists(folder / "log") || tail_of(folder / "log", 1) != "up") {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ::kill(child, SIGINT);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 42);
  CHECK(tail_of(folder / "log", 1) == "closed");
}

TEST_CASE("a child that cannot start says so in its log") {
  const test::TempDir folder;
  const ChildResult result = run_child({"/no/such/program"}, {"test", folder / "log", {}});
  CHECK(result.exit_code == 127);
  CHECK_THAT(read_file(folder / "log"), Contains("/no/such/program") && Contains("No such file"));
  CHECK_THROWS_AS(run_child({"true"}, {"test", folder / "none/log", {}}), Error);
}

TEST_CASE("programs are found as a shell finds them") {
  CHECK_FALSE(find_program("sh").empty());
  CHECK(find_program("no-such-program-at-all").empty());
  CHECK(find_program("/bin/sh") == "/bin/sh");
  CHECK(std::filesystem::exists(own_path()));
}

}  // namespace
}  // namespace thermocline
