// `thermocline run --samples`: what a harness finds in the file, and what is left of one that was
// stopped.
#include <fstream>

#include "models/cli.h"
#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// What EvalPlus asks of a line: task_id and solution are texts, and no line is anything but JSON.
constexpr const char* kReader = R"py(
import json, sys
from collections import Counter
count = Counter()
for line in open(sys.argv[1], encoding="utf-8"):
    sample = json.loads(line)
    kind, number = sample["task_id"].split("/")
    assert kind == "Mbpp" and int(number) > 0 and isinstance(sample["solution"], str), sample
    assert sample["finish_reason"] in ("stop", "eos", "length"), sample
    count[sample["task_id"]] += 1
print(sorted(count.values()))
)py";

TEST_CASE("the demo model's samples are lines that Python reads, and end at DONE in brackets") {
  const TempDir folder;
  const CommandResult result = thermocline_command(
      "run --local-ranks 2 --threads 1 --split test --limit 3 --max-new-tokens 200 --batch 4 "
      "--temperature 0.2 --top-p 0.95 --samples-per-task 2 --seed 7 --samples " +
      folder / "s.jsonl" + " --json " + folder / "run.json");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  CHECK_THAT(result.output, Contains("sample 1:") && Contains("6 samples") && !Contains("[DONE"));
  const auto lines = lines_of(folder / "s.jsonl");
  REQUIRE(lines.size() == 6);
  const auto texts = rows_of(folder / "run.json", "run").at(0)["text"];
  int stopped = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    CHECK(lines[i]["task_id"] == lines[i / 2 * 2]["task_id"]);
    CHECK(lines[i]["sample"] == i % 2);
    CHECK(lines[i]["seed"] == 7);
    CHECK(lines[i]["temperature"] == 0.2);
    CHECK(lines[i]["top_p"] == 0.95);
    CHECK(lines[i]["solution"] == texts[i]);
    stopped += lines[i]["finish_reason"] == "stop";
  }
  CHECK(stopped > 0);
  std::ofstream(folder / "read.py") << kReader;
  if (run_command("command -v python3").exit_code != 0) return;
  const CommandResult read =
      run_command("python3 " + folder / "read.py" + " " + folder / "s.jsonl");
  CHECK(read.output == "[2, 2, 2]\n");
}

TEST_CASE("a stop string may be given again and again, with brackets and escapes") {
  const TempDir folder;
  const CommandResult result = thermocline_command(
      "run --prompt 'def add(a, b):' --max-new-tokens 40 --threads 1 --stop '[x,y]' "
      "--stop '\\n' --samples " +
      folder / "s.jsonl" + " --json " + folder / "run.json");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  const auto row = rows_of(folder / "run.json", "run").at(0);
  CHECK(row["stop"] == nlohmann::json({"[x,y]", "\n"}));
  const auto lines = lines_of(folder / "s.jsonl");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["task_id"] == "prompt/0");
  CHECK(lines[0]["completion"].get<std::string>().find('\n') == std::string::npos);
}

TEST_CASE("samples are the same under mpirun", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  const std::string common =
      "run --split test --limit 2 --max-new-tokens 40 --threads 1 --temperature 0.6 --samples ";
  REQUIRE(thermocline_command(common + folder / "one.jsonl").exit_code == 0);
  const int ranks = GENERATE(2, 4);
  const CommandResult result = mpirun(ranks, common + folder / "many.jsonl");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  CHECK(read_file(folder / "one.jsonl") == read_file(folder / "many.jsonl"));
}

// Waits until two samples are complete, then stops the program.
constexpr const char* kStopScript = R"sh(file="$1"
shift
"$@" &
job=$!
for i in $(seq 2000); do
  [ -e "$file" ] && [ "$(wc -l < "$file")" -ge 2 ] && break
  sleep 0.01
done
kill -TERM $job
wait $job
)sh";

TEST_CASE("a run that is stopped keeps its samples, and --resume writes them all", "[slow]") {
  const TempDir folder;
  const auto command = [&](const std::string& name) {
    return program() +
           " run --split all --max-new-tokens 120 --local-ranks 2 --threads 1 --batch 2 "
           "--temperature 0.4 --record " +
           folder / (name + ".h5") + " --samples " + folder / (name + ".jsonl");
  };
  REQUIRE(run_command(command("whole")).exit_code == 0);
  std::ofstream(folder / "stop.sh") << kStopScript;
  const CommandResult stopped = run_command("timeout 120 bash " + folder / "stop.sh" + " " +
                                            folder / "parts.jsonl.tmp" + " " + command("parts"));
  INFO(stopped.output);
  REQUIRE(stopped.exit_code == 1);
  CHECK_THAT(stopped.output, Contains("samples are in") && Contains("parts.jsonl.partial"));
  CHECK(!exists(folder / "parts.jsonl"));
  const std::string whole = read_file(folder / "whole.jsonl");
  const std::string partial = read_file(folder / "parts.jsonl.partial");
  CHECK(lines_of(folder / "parts.jsonl.partial").size() >= 2);
  CHECK(whole.starts_with(partial));
  const CommandResult other = run_command(command("parts") + " --resume --temperature 0.5");
  CHECK(other.exit_code != 0);
  const CommandResult last = run_command(command("parts") + " --resume");
  INFO(last.output);
  REQUIRE(last.exit_code == 0);
  CHECK_THAT(last.output, Contains("are taken over"));
  CHECK(read_file(folder / "parts.jsonl") == whole);
  CHECK(!exists(folder / "parts.jsonl.partial"));
}

}  // namespace
}  // namespace thermocline::test
