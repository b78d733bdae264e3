// trace synth as the command line calls it: what it writes, for any number of ranks, and how it
// ends early.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/error.h"
#include "tests/support.h"
#include "traces/commands.h"
#include "traces/profile.h"
#include "traces/synthesis.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

nlohmann::json synth(const std::string& folder, std::vector<std::string> arguments) {
  CLI::App app;
  add_trace_commands(app);
  const std::string json = folder + "/synth.json";
  arguments.insert(arguments.begin(), {"trace", "synth"});
  arguments.insert(arguments.end(), {"--json", json});
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  return nlohmann::json::parse(read_file(json)).at("rows");
}

std::vector<uint64_t> all_bits(const std::string& path) {
  const auto trace = open_trace(path);
  std::vector<uint64_t> words;
  for_each_block(*trace, whole_model(trace->header()), 0, trace->step_count(),
                 [&words](const StepBlock& block) {
                   words.insert(words.end(), block.words.begin(), block.words.end());
                 });
  return words;
}

TEST_CASE("trace synth writes a whole trace and shows what was asked beside what was counted") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const auto rows = synth(folder.path(), {"--out", path, "--preset", "tiny,regime=hermes,drift=0.2",
                                          "--steps", "1500", "--seed", "5", "--text-seed", "9"});
  const auto trace = open_trace(path);
  const TraceHeader& header = trace->header();
  CHECK(trace->finished());
  CHECK(trace->step_count() == 1500);
  CHECK(header.model == "preset:tiny,regime=hermes,drift=0.2,seed=5");
  CHECK(header.weight_provenance == "synthetic");
  CHECK(header.activation_rule == "relu>0");
  CHECK(header.layout == "pp1,tp4");
  CHECK(header.seed == 9);
  const auto config = nlohmann::json::parse(header.config_json);
  CHECK(config.at("generator") == "trace-level");
  CHECK(config.at("regime") == "hermes");
  CHECK(config.at("rate_seed") == 5);
  CHECK(config.at("text_seed") == 9);
  CHECK(config.at("predictor").is_null());
  for (const ShardReport& report : check_trace(path)) CHECK(report.good);
  for (const StepTimes& times : trace->times(0)) REQUIRE(times == StepTimes{});
  const auto steps = trace->steps();
  const auto& tasks = trace->tasks();
  REQUIRE(tasks.size() == rows[0].at("task_count"));
  CHECK(tasks.back().step_begin + tasks.back().step_count == 1500);
  CHECK(steps[tasks[1].step_begin].position == 0);
  CHECK(steps[tasks[1].step_begin].phase == Phase::prefill);
  CHECK(rows[0].at("trace_hash") == trace->hash());
  CHECK(rows[0].at("weight_hash") == header.weight_hash);
  CHECK(rows[0].at("counted_steps") == 1500);
  REQUIRE(rows.size() == 1 + 7);
  CHECK(rows[1].at("asked").get<double>() == Approx(0.28).margin(0.01));
  for (size_t i = 1; i < 7; ++i) {
    INFO(rows[i]);
    CHECK(rows[i].at("counted").get<double>() ==
          Approx(rows[i].at("asked").get<double>()).margin(0.04));
  }
}

TEST_CASE("the bits of trace synth do not depend on the ranks that they are cut for") {
  const TempDir folder;
  const std::vector<std::vector<std::string>> layouts = {
      {"--ranks", "1"}, {"--ranks", "4"}, {"--layout", "pp2,tp3"}, {"--layout", "pp4"}};
  std::vector<uint64_t> expected;
  std::string hash;
  for (size_t i = 0; i < layouts.size(); ++i) {
    const std::string path = folder / "t" + std::to_string(i) + ".h5";
    std::vector<std::string> arguments = {"--out",   path,  "--preset", "tiny,drift=0.5",
                                          "--steps", "300", "--swing",  "0.3"};
    arguments.insert(arguments.end(), layouts[i].begin(), layouts[i].end());
    const auto rows = synth(folder.path(), arguments);
    if (i == 0) {
      expected = all_bits(path);
      hash = rows[0].at("trace_hash");
    }
    CHECK(all_bits(path) == expected);
    CHECK(rows[0].at("trace_hash") == hash);
  }
}

TEST_CASE("a profile and a test of one model have its weight hash and other steps") {
  const TempDir folder;
  const auto train = synth(folder.path(), {"--out", folder / "a.h5", "--preset", "preset:tiny",
                                           "--steps", "200", "--ranks", "1"});
  const auto test = synth(folder.path(), {"--out", folder / "b.h5", "--preset", "preset:tiny",
                                          "--steps", "300", "--text-seed", "2", "--ranks", "1"});
  const auto other = synth(folder.path(), {"--out", folder / "c.h5", "--preset", "preset:tiny",
                                           "--steps", "200", "--seed", "2", "--ranks", "1"});
  CHECK(train[0].at("weight_hash") == test[0].at("weight_hash"));
  CHECK(train[0].at("weight_hash") != other[0].at("weight_hash"));
  CHECK(all_bits(folder / "a.h5") != all_bits(folder / "c.h5"));
  const auto profile = open_trace(folder / "a.h5");
  const auto trace = open_trace(folder / "b.h5");
  CHECK_NOTHROW(check_profile(profile->header(), "a.h5", trace->header().shape,
                              trace->header().weight_hash, "trace"));
  CHECK(profile->header().prompts_hash != trace->header().prompts_hash);
}

TEST_CASE("trace synth counts its predictor and stretches its tasks") {
  const TempDir folder;
  const auto rows =
      synth(folder.path(), {"--out", folder / "t.h5", "--preset", "tiny,layers=2", "--steps", "900",
                            "--tasks", "20", "--predictor", "recall=0.9,precision=0.7"});
  CHECK(rows[0].at("task_count") == 20);
  REQUIRE(rows.size() == 1 + 9);
  CHECK(rows[8].at("counted").get<double>() == Approx(0.9).margin(0.01));
  CHECK(rows[9].at("counted").get<double>() == Approx(0.7).margin(0.01));
  const auto config = nlohmann::json::parse(open_trace(folder / "t.h5")->header().config_json);
  CHECK(config.at("predictor").at("recall") == 0.9);
}

TEST_CASE("the rule of trace synth is the one that the runtime would name") {
  const TempDir folder;
  const auto rule = [&](const std::string& preset) {
    ModelSpec spec = parse_model_spec("preset:" + preset);
    spec.shape.ffn_dim = 256;
    SynthTraceOptions options;
    options.path = folder / "t.h5";
    options.step_count = 20;
    options.tensor_ranks = 2;
    synthesise_trace(spec, options);
    const auto trace = open_trace(options.path);
    return std::pair(trace->header().activation_rule, trace->header().activation_thresholds[0]);
  };
  CHECK(rule("prosparse,layers=1") == std::pair(std::string("fatrelu>=t"), 0.01f));
  CHECK(rule("swiglu-70b,layers=1") == std::pair(std::string("abs(silu)>t[layer]"), 0.27846454f));
}

TEST_CASE("pools of trace synth cover the model once") {
  ModelShape shape = parse_model_spec("preset:tiny").shape;
  const uint32_t ffn_dim = GENERATE(512u, 172u, 20u);
  shape.ffn_dim = ffn_dim;
  for (const auto& [stages, tensor] : {std::pair(1u, 1u), {1u, 3u}, {4u, 2u}, {3u, 3u}}) {
    uint64_t total = 0;
    for (const NeuronPool& pool : synth_pools(shape, stages, tensor)) {
      CHECK(pool.neuron_begin % 8 == 0);
      CHECK(pool.total() > 0);
      total += pool.total();
    }
    CHECK(total == shape.neuron_count());
  }
  CHECK_THROWS_AS(synth_pools(shape, 5, 1), Error);
  CHECK_THROWS_AS(synth_pools(shape, 1, ffn_dim / 8 + 2), Error);
}

TEST_CASE("trace synth says what it does not understand") {
  const TempDir folder;
  const auto fails = [&](std::vector<std::string> arguments, const std::string& message) {
    arguments.insert(arguments.end(), {"--out", folder / "t.h5"});
    CHECK_THROWS_WITH(synth(folder.path(), arguments), Catch::Contains(message));
    CHECK(!std::filesystem::exists(partial_path(folder / "t.h5", 0)));
  };
  fails({"--preset", "nothing"}, "nothing");
  fails({"--preset", "preset:demo"}, "expected a preset of synthetic weights");
  fails({"--layout", "tp0"}, "--layout tp0");
  fails({"--layout", "dp3"}, "--layout dp3");
  fails({"--layout", "tp2", "--ranks", "3"}, "as --ranks says");
  fails({"--predictor", "recall=0.5"}, "precision=P");
  fails({"--predictor", "recall=1.5,precision=0.5"}, "at most 1");
  fails({"--predictor", "accuracy=0.5"}, "recall=R,precision=P");
  fails({"--swing", "1.5"}, "--swing 1.5");
  fails({"--swing-steps", "0.5"}, "--swing-steps 0.5");
  fails({"--preset", "tiny", "--steps", "0"}, "--steps 0");
  fails({"--preset", "tiny", "--steps", "90000", "--tasks", "3"}, "the model's context");
}

TEST_CASE("an interrupted trace synth leaves a partial trace that can be read") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const auto result = run_command(
      "timeout --preserve-status -s INT 1 " + std::string(std::getenv("THERMOCLINE_PROGRAM")) +
      " trace synth --preset tiny --steps 50000000 --ranks 2 --out " + path);
  INFO(result.output);
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.output, Catch::Contains("interrupted after") &&
                                Catch::Contains("--allow-partial") && Catch::Contains(".partial"));
  CHECK(!std::filesystem::exists(path));
  CHECK_THROWS_AS(open_trace(path), Error);
  const auto trace = open_trace(path, {.allow_partial = true});
  CHECK(trace->step_count() > 0);
  CHECK(!trace->finished());
  CHECK(trace->popcounts(0, 1).size() == 4);
}

}  // namespace
}  // namespace thermocline::test
