// Samples as files: what harnesses read, in order, whole or not there.
#include "runtime/samples_file.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "runtime/run.h"
#include "tests/short_tasks.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Json = nlohmann::json;

std::vector<Json> lines_of(const std::string& path) {
  std::vector<Json> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

RunOptions options_of(const TempDir& folder, const std::string& name) {
  RunOptions options;
  options.model = "preset:tiny";
  options.prompts.path = kShortTasks;
  options.prompts.limit = 2;
  options.max_new_tokens = 12;
  options.threads = 1;
  options.temperature = 0.8;
  options.top_p = 0.95;
  options.seed = 3;
  options.samples_per_task = 3;
  options.samples = folder / name;
  return options;
}

std::string sampled(RunOptions options, uint32_t ranks) {
  options.local_ranks = ranks;
  run_local_ranks(static_cast<int>(ranks), [&](Comm& comm) { run_rank(comm, options); });
  return read_file(options.samples);
}

TEST_CASE("samples are the same file for any ranks and batch, in the order of tasks and samples") {
  const TempDir folder;
  const std::string one = sampled(options_of(folder, "one.jsonl"), 1);
  const auto lines = lines_of(folder / "one.jsonl");
  const RunPlan plan = make_run_plan(options_of(folder, "none"), 1);
  REQUIRE(lines.size() == 6);
  REQUIRE(plan.tasks.size() == 6);
  for (size_t i = 0; i < lines.size(); ++i) {
    CHECK(plan.tasks[i].index == i);
    CHECK(lines[i]["task_id"] == "Mbpp/" + std::to_string(plan.tasks[i].task_id));
    CHECK(lines[i]["sample"] == i % 3);
    CHECK(lines[i]["solution"].is_string());
    CHECK(lines[i]["seed"] == 3);
    CHECK(lines[i]["temperature"] == 0.8);
    CHECK(lines[i]["top_p"] == 0.95);
    CHECK(lines[i]["weights"] == "synthetic");
  }
  CHECK(lines[0]["solution"] != lines[1]["solution"]);
  for (const uint32_t ranks : {1u, 2u, 4u}) {
    RunOptions options = options_of(folder, "other.jsonl");
    options.batch = 4;
    INFO(ranks << " ranks");
    CHECK(sampled(options, ranks) == one);
  }
  CHECK(!std::filesystem::exists(folder / "one.jsonl.tmp"));
}

TEST_CASE("stop strings cut the samples, and rows and trace say how a text was decoded") {
  const TempDir folder;
  RunOptions options = options_of(folder, "free.jsonl");
  options.stop = {""};
  sampled(options, 1);
  const auto free = lines_of(folder / "free.jsonl");
  CHECK(free[0]["finish_reason"] == "length");
  // A character of the first text, which the tokenizer of bytes may have in several tokens.
  const auto whole = free[0]["solution"].get<std::string>();
  const size_t at = whole.find_first_of("abcdefghijklmnopqrstuvwxyz0123456789");
  REQUIRE(at != std::string::npos);
  options.stop = {"not there\\n", whole.substr(at, 1)};
  options.samples = folder / "cut.jsonl";
  options.json = folder / "run.json";
  options.record = folder / "t.h5";
  sampled(options, 2);
  const auto cut = lines_of(folder / "cut.jsonl");
  CHECK(cut[0]["solution"] == whole.substr(0, at));
  CHECK(cut[0]["finish_reason"] == "stop");
  const Json row = Json::parse(read_file(options.json))["rows"][0];
  const Json config = Json::parse(open_trace(options.record)->header().config_json);
  for (const Json& facts : {row, config}) {
    CHECK(facts["temperature"] == 0.8);
    CHECK(facts["top_p"] == 0.95);
    CHECK(facts["samples_per_task"] == 3);
    CHECK(facts["stop"] == Json({"not there\n", whole.substr(at, 1)}));
  }
  CHECK(row["text"].size() == 6);
  CHECK(row["text"][0] == cut[0]["solution"]);
}

TEST_CASE("prompts in MBPP's form have stop strings of their own, --prompt has none") {
  const TempDir folder;
  RunOptions options = options_of(folder, "x");
  CHECK(make_run_plan(options, 1).stop.strings == mbpp_stop_strings());
  options.stop = {"\\nif", "x"};
  CHECK(make_run_plan(options, 1).stop.strings == std::vector<std::string>{"\nif", "x"});
  options.stop = {};
  options.prompt = "def f";
  const RunPlan plan = make_run_plan(options, 1);
  CHECK(plan.stop.strings.empty());
  // What continues a prompt is no program.
  const Json line = Json::parse(sample_line(plan, plan.tasks[1], {"(x)\xff", Finish::eos}));
  CHECK(line["task_id"] == "prompt/0");
  CHECK(line["completion"] == "(x)\xef\xbf\xbd");
  CHECK(!line.contains("solution"));
  CHECK(line["sample"] == 1);
  CHECK(line["finish_reason"] == "eos");
}

TaskRecord record_of(const RunPlan& plan, size_t index, const std::string& text) {
  TaskRecord record{};
  record.task_id = plan.tasks[index].task_id;
  record.generated = plan.tokenizer->encode(text);
  return record;
}

TEST_CASE("what is complete of an interrupted run is kept under the partial name") {
  const TempDir folder;
  const RunPlan plan = make_run_plan(options_of(folder, "none"), 1);
  const std::string path = folder / "s.jsonl";
  {
    SamplesFile file(path, plan);
    file.on_task_end(record_of(plan, 0, "a\n[DONE]"));
    CHECK(lines_of(path + ".tmp").size() == 1);  // a kill would leave it
    file.on_task_end(record_of(plan, 1, "b"));
    CHECK_THAT(file.keep_partial(), Catch::Contains("the first 2 samples are in " + path));
  }
  CHECK(!std::filesystem::exists(path));
  CHECK(!std::filesystem::exists(path + ".tmp"));
  const auto lines = lines_of(path + ".partial");
  REQUIRE(lines.size() == 2);
  CHECK(lines[0]["solution"] == "a\n");
  CHECK(lines[1]["finish_reason"] == "length");
  SamplesFile again(path, plan);
  again.on_task_end(record_of(plan, 0, "c"));
  again.finish();
  CHECK(lines_of(path).size() == 1);
  CHECK(!std::filesystem::exists(path + ".partial"));
}

TEST_CASE("an error keeps what is complete, and nothing where nothing is") {
  const TempDir folder;
  const RunPlan plan = make_run_plan(options_of(folder, "none"), 1);
  { const SamplesFile empty(folder / "s.jsonl", plan); }
  CHECK(std::filesystem::is_empty(folder.path()));
  {
    SamplesFile file(folder / "s.jsonl", plan);
    file.on_task_end(record_of(plan, 0, "a"));
  }
  CHECK(lines_of(folder / "s.jsonl.partial").size() == 1);
}

}  // namespace
}  // namespace thermocline::test
