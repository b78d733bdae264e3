// Bad input: what was expected is said, the exit code is the design's, nothing half-made is left.
#include <fstream>

#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

struct Case {
  std::string arguments;
  int exit_code;
  std::vector<std::string> says;
};

void check_case(const Case& bad) {
  const CommandResult result = thermocline_command(bad.arguments);
  INFO(bad.arguments << "\n" << result.output);
  CHECK(result.exit_code == bad.exit_code);
  for (const std::string& words : bad.says) {
    INFO("should say: " << words);
    CHECK(result.output.find(words) != std::string::npos);
  }
}

TEST_CASE("wrong usage exits with 2 and names what is valid") {
  const std::string tiny = "run --model preset:tiny ";
  const std::vector<Case> cases = {
      Case{"run --model preset:llama-2-71b --prompt x", 2, {"llama-2-71b", "llama-2-70b"}},
      Case{"run --model preset:tiny,layer=2 --prompt x", 2, {"layer", "layers"}},
      Case{"run --model preset:tiny,type=q5_9 --prompt x", 2, {"q5_9", "q4_0"}},
      Case{tiny + "--split tests", 2, {"tests", "test"}},
      Case{tiny + "--shots 2", 2, {"shots", "3"}},
      Case{tiny + "--layout tp9,pp1 --prompt x", 2, {"tp"}},
      Case{tiny + "--prompt x --local-ranks 64", 2, {"64"}},
      Case{tiny + "--prompt x --policy fixd --budget 10%", 2, {"fixd", "fixed"}},
      Case{tiny + "--prompt x --predictor sing", 2, {"sing", "sign", "exact, lowrank"}},
      Case{tiny + "--prompt x --predictor sign:threshold=nan", 2, {"threshold", "nan"}},
      Case{tiny + "--prompt x --predictor lowrank", 2, {"file=PATH"}},
      Case{tiny + "--prompt x --no-such-option", 2, {"no-such-option"}},
      Case{tiny + "--prompt x --temperature -0.5", 2, {"--temperature -0.5", "greedy"}},
      Case{tiny + "--prompt x --temperature nan", 2, {"--temperature nan"}},
      Case{tiny + "--prompt x --temperature 1 --top-p 0", 2, {"--top-p 0", "at most 1"}},
      Case{tiny + "--prompt x --temperature 1 --top-p 1.5", 2, {"--top-p 1.5"}},
      Case{tiny + "--prompt x --samples-per-task 0", 2, {"--samples-per-task 0"}},
      Case{tiny + "--prompt x --stop '\\x'", 2, {"--stop", "backslash"}},
      Case{tiny + "--teacher-forced --temperature 1", 2, {"--teacher-forced", "--temperature"}},
      Case{"model convert a.gguf b.gguf --type q5_9", 2, {"q5_9", "q4_0"}},
      Case{"model convert a.gguf b.gguf --layout rows", 2, {"rows", "bundles"}},
      Case{"model synth --preset tiny,regime=herms", 2, {"herms", "hermes"}},
      Case{"rn --model preset:tiny", 2, {"run"}},
      Case{"replay missing.h5 --policy lru2", 2, {"lru2", "valid"}},
      Case{"", 2, {"run", "replay", "study"}}};
  for (const Case& bad : cases) check_case(bad);
}

TEST_CASE("bad files exit with 3 and are named") {
  const TempDir folder;
  std::ofstream(folder / "cut.gguf", std::ios::binary) << "GGUF\3\0\0\0\1";
  std::ofstream(folder / "cut.bin", std::ios::binary) << std::string(20, '\1');
  std::ofstream(folder / "cut.jsonl") << "{\"task_id\": 11, \"text\": \"add\", \"co";
  std::ofstream(folder / "key.toml") << "nam = \"x\"\n";
  const std::vector<Case> cases = {
      Case{"run --prompt x --model " + folder / "cut.gguf", 3, {"cut.gguf", "expected", "found"}},
      Case{"run --prompt x --model " + folder / "cut.bin", 3, {"cut.bin"}},
      Case{"run --prompt x --model " + folder / "missing.gguf", 3, {"missing.gguf"}},
      Case{"run --model preset:tiny --prompts " + folder / "cut.jsonl", 3, {"cut.jsonl:1"}},
      Case{
          "model convert " + folder / "cut.gguf" + " " + folder / "o", 3, {"cut.gguf", "expected"}},
      Case{"model info " + folder.path(), 3, {"model.safetensors", "name the file"}},
      Case{"model tokenize --text x --tokenizer " + folder / "cut.jsonl", 3, {"cut.jsonl"}},
      Case{"run --model preset:tiny --prompt x --predictor lowrank:file=" + folder / "cut.gguf",
           3,
           {"cut.gguf", "expected"}},
      Case{"trace info " + folder / "cut.jsonl", 3, {"cut.jsonl"}},
      Case{"trace stat " + folder / "cut.jsonl", 3, {"cut.jsonl"}},
      Case{"replay " + folder / "missing.h5" + " --policy fixed --profile self", 3, {"missing.h5"}},
      Case{"study " + folder / "key.toml" + " --out " + folder / "out", 3, {"nam", "name"}},
      Case{"report " + folder / "nothing", 3, {"nothing"}}};
  for (const Case& bad : cases) check_case(bad);
}

TEST_CASE("budgets below one bundle and above the model are refused, and nothing is written") {
  const TempDir folder;
  const std::string record =
      "run --model preset:tiny --split test --limit 1 --teacher-forced "
      "--threads 1 --record ";
  const CommandResult made = thermocline_command(record + folder / "t.h5");
  INFO(made.output);
  REQUIRE(made.exit_code == 0);
  const std::string replay = "replay " + folder / "t.h5" +
                             " --profile self --policy fixed --json " + folder / "r.json --budget ";
  check_case({replay + "1", 2, {"bundle"}});
  check_case({replay + "1TiB", 2, {"model"}});
  check_case({replay + "50%..10%/10%", 2, {"50%..10%"}});
  check_case({replay + "10%..50%/0%", 2, {"STEP"}});
  CHECK(!exists(folder / "r.json"));
  check_case({record + folder / "no-such-folder/t.h5", 1, {"no-such-folder"}});
}

TEST_CASE("a real file cut at any place is refused", "[slow]") {
  const std::string whole = data_file("stories260K.bin");
  if (whole.empty()) return;
  const TempDir folder;
  std::ifstream in(whole, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  for (const size_t cut : {0, 1, 27, 28, 100, 500'000, 1'056'539}) {
    std::ofstream(folder / "m.bin", std::ios::binary) << bytes.substr(0, cut);
    check_case({"run --prompt x --model " + folder / "m.bin", 3, {"m.bin"}});
  }
}

}  // namespace
}  // namespace thermocline::test
