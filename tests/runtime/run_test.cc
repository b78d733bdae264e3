// A whole run on ranks that are threads: what it writes, what it refuses, how it is interrupted.
#include "runtime/run.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/error.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

// Short tasks in MBPP's format; task 12 is far too long for any context of the tiny preset.
std::string short_tasks(const TempDir& folder) {
  const std::string path = folder / "tasks.jsonl";
  std::ofstream out(path);
  const auto add = [&](int id, const std::string& text) {
    out << nlohmann::json{{"task_id", id},
                          {"text", text},
                          {"code", "def f(x):\n  return x"},
                          {"test_list", {"assert f(1) == 1"}},
                          {"test_setup_code", ""},
                          {"challenge_test_list", nlohmann::json::array()}}
        << "\n";
  };
  add(11, "Write f.");
  add(12, std::string(9000, 'x'));
  add(13, "Write f again.");
  add(601, "Write g.");
  return path;
}

RunOptions options_of(const TempDir& folder, const std::string& split) {
  RunOptions options;
  options.model = "preset:tiny";
  options.prompts.path = short_tasks(folder);
  options.prompts.split = split;
  options.teacher_forced = true;
  options.threads = 1;
  return options;
}

void run(RunOptions options, uint32_t ranks) {
  options.local_ranks = ranks;
  run_local_ranks(static_cast<int>(ranks), [&](Comm& comm) { run_rank(comm, options); });
}

std::vector<nlohmann::json> rows_of(const std::string& path, const std::string& kind) {
  std::vector<nlohmann::json> rows;
  const auto document = nlohmann::json::parse(read_file(path));
  for (const auto& row : document["rows"]) {
    if (row["kind"] == kind) rows.push_back(row);
  }
  return rows;
}

TEST_CASE("a run records, evaluates and writes logits: nothing of that changes a bit", "[long]") {
  const TempDir folder;
  const uint32_t ranks = GENERATE(1u, 3u);
  RunOptions profile = options_of(folder, "train");
  profile.record = folder / "profile.h5";
  run(profile, ranks);

  RunOptions test = options_of(folder, "test");
  test.record = folder / "test.h5";
  test.profile = profile.record;
  test.policies = "fixed,ewma";
  test.budgets = "10%,50%";
  test.migration = "4KiB";
  test.logits = folder / "a.npy";
  test.json = folder / "run.json";
  test.bench = true;
  run(test, ranks);
  RunOptions bare = options_of(folder, "test");
  bare.threads = 3;
  bare.logits = folder / "b.npy";
  run(bare, ranks);
  CHECK(read_file(folder / "a.npy") == read_file(folder / "b.npy"));

  const auto trace = open_trace(folder / "test.h5");
  const TraceHeader& header = trace->header();
  CHECK(trace->tasks().size() == 2);  // 12 does not fit
  CHECK(trace->tasks()[1].task_id == 13);
  CHECK(trace->tasks()[1].step_begin == trace->tasks()[0].step_count);
  CHECK(trace->step_count() == trace->tasks()[0].step_count + trace->tasks()[1].step_count);
  CHECK(header.weight_provenance == "synthetic");
  CHECK(header.activation_rule == "relu>0");
  CHECK(header.pools.size() == ranks);
  const auto config = nlohmann::json::parse(header.config_json);
  for (const char* key : {"read_bandwidth", "dense_bytes", "rank_stage"}) {
    CHECK(config[key].size() == ranks);
  }
  CHECK(config["gate"] == "exact");
  const uint64_t logit_bytes = trace->step_count() * header.shape.vocab_size * sizeof(float);
  CHECK(std::filesystem::file_size(folder / "a.npy") == 128 + logit_bytes);

  const auto runs = rows_of(folder / "run.json", "run");
  REQUIRE(runs.size() == 1);
  CHECK(runs[0]["weights"] == "synthetic");
  CHECK(runs[0]["trace_hash"] == trace->hash());
  CHECK(runs[0]["tpot_ms"]["p99"] >= runs[0]["tpot_ms"]["p50"]);
  CHECK(rows_of(folder / "run.json", "rank").size() == ranks);
  CHECK(rows_of(folder / "run.json", "policy").size() == 4);
  CHECK(rows_of(folder / "run.json", "bench").size() == 4);
}

TEST_CASE("a greedy run stops at its limit and prints what it decoded") {
  const TempDir folder;
  RunOptions options;
  options.model = "preset:tiny,layers=2,type=bf16";
  options.prompt = "def";
  options.max_new_tokens = 5;
  options.json = folder / "run.json";
  run(options, 2);
  const auto rows = rows_of(folder / "run.json", "run");
  REQUIRE(rows.size() == 1);
  CHECK(rows[0]["text"].size() == 1);
  CHECK(rows[0]["step_count"] <= 4 + 4);  // BOS, three bytes, four tokens fed
  CHECK(rows[0]["prompts"] == "--prompt");
}

TEST_CASE("a batch records each task's own steps, and writes the same text and tasks") {
  const TempDir folder;
  const uint32_t ranks = GENERATE(1u, 2u);
  const auto recorded = [&](uint32_t batch) {
    RunOptions options = options_of(folder, "test");
    options.teacher_forced = false;
    options.max_new_tokens = 6;
    options.batch = batch;
    options.record = folder / ("batch" + std::to_string(batch) + ".h5");
    options.json = folder / ("batch" + std::to_string(batch) + ".json");
    run(options, ranks);
    return open_trace(options.record);
  };
  const auto one = recorded(1), two = recorded(2);
  const auto row = [&](const char* name) { return rows_of(folder / name, "run").at(0); };
  CHECK(row("batch1.json")["text"] == row("batch2.json")["text"]);
  CHECK(row("batch2.json")["batch"] == 2);
  CHECK(row("batch2.json")["decode_tokens_per_second"] > 0.0);
  CHECK(nlohmann::json::parse(two->header().config_json)["batch"] == 2);
  CHECK(one->step_count() == two->step_count());
  REQUIRE(two->tasks().size() == 2);
  const auto steps = two->steps();
  for (uint32_t i = 0; i < 2; ++i) {
    CHECK(two->tasks()[i].task_id == one->tasks()[i].task_id);
    CHECK(two->tasks()[i].step_count == one->tasks()[i].step_count);
    const StepInfo& first = steps[two->tasks()[i].step_begin];
    CHECK(first.task == i);
    CHECK(first.position == 0);
  }
  CHECK(steps.back().pass < steps.size() - 1);  // passes were shared
}

TEST_CASE("a batch holds no more slots than there are tasks, and says what they take") {
  const TempDir folder;
  RunOptions options = options_of(folder, "test");
  options.batch = 5;
  const RunPlan plan = make_run_plan(options, 1);
  CHECK(plan.batch == 2);
  CHECK_THAT(plan.notes.back(), Catch::StartsWith("batch 2: the KV cache takes up to "));
}

TEST_CASE("a predictor is recorded, and its audit has rows of the model and of each layer") {
  const TempDir folder;
  RunOptions options = options_of(folder, "test");
  options.predictor = "sign:threshold=0.51";
  options.audit_predictor = true;
  options.record = folder / "p.h5";
  options.json = folder / "p.json";
  run(options, GENERATE(1u, 2u));
  const auto trace = open_trace(options.record);
  const auto config = nlohmann::json::parse(trace->header().config_json);
  CHECK(config["gate"] == "sign:threshold=0.51");
  CHECK(config["predictor"] == "sign");
  CHECK(config["predictor_parameters"]["threshold"] == "0.51");
  CHECK(config["predictor_threshold"] == 0.51);
  const auto rows = rows_of(options.json, "predictor");
  CHECK(trace->header().activation_rule == "relu>0");
  REQUIRE(rows.size() == 1 + trace->header().shape.layer_count);
  CHECK(rows[0]["layer"].is_null());
  CHECK(rows[1]["layer"] == 0);
  CHECK(rows[0]["source"] == "measured");
  CHECK(rows[0]["step_count"] == trace->step_count());
  for (const char* key : {"recall", "precision", "candidate_share", "top1_agreement"}) {
    INFO(key);
    CHECK(rows[0][key] > 0.0);
    CHECK(rows[0][key] <= 1.0);
  }
  CHECK(rows[0]["predictor_ms"] > 0.0);
  CHECK(rows[0]["logit_max_error"] > 0.0);
  CHECK(rows[0]["logit_kl"] > 0.0);
  CHECK(rows_of(options.json, "run").at(0)["predictor"] == "sign:threshold=0.51");

  options.record_magnitudes = "log8";
  CHECK_THROWS_WITH(make_run_plan(options, 1),
                    Catch::Contains("--record-magnitudes needs --predictor exact"));
}

TEST_CASE("magnitudes are asked for by format and interval") {
  CHECK(parse_magnitudes("none").every == 0);
  CHECK(parse_magnitudes("log8").format == MagnitudeFormat::log8);
  CHECK(parse_magnitudes("f16").format == MagnitudeFormat::f16);
  CHECK(parse_magnitudes("f16").every == 1);
  CHECK(parse_magnitudes("log8:every=40").every == 40);
  for (const char* bad : {"", "log", "log8:", "log8:every=0", "log8:every=", "log8:each=2",
                          "log8:every=-1", "log8:every=4294967296", "none:every=2"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_magnitudes(bad), Error);
  }
}

TEST_CASE("a plan skips what overflows the context, by name") {
  const TempDir folder;
  const RunPlan plan = make_run_plan(options_of(folder, "test"), 1);
  REQUIRE(plan.tasks.size() == 2);
  REQUIRE(plan.notes.size() == 1);
  CHECK_THAT(plan.notes[0], Catch::Contains("task 12 skipped") && Catch::Contains("2048"));
  CHECK(plan.tasks[0].prompt[0] == plan.tokenizer->bos_id());
  // Prompt and solution together are the whole text.
  std::vector<int32_t> text(plan.tasks[0].prompt.begin() + 1, plan.tasks[0].prompt.end());
  text.insert(text.end(), plan.tasks[0].forced.begin(), plan.tasks[0].forced.end());
  CHECK_THAT(plan.tokenizer->decode_all(text), Catch::EndsWith("def f(x):\n  return x\n[DONE]"));
}

TEST_CASE("what is wrong is found before anything runs") {
  struct Case {
    std::function<void(RunOptions&)> spoil;
    ErrorKind kind;
    std::string says;
  };
  const auto usage = ErrorKind::usage;
  const std::vector<Case> cases = {
      {[](RunOptions& o) { o.model = "preset:tini"; }, usage, "tiny"},
      {[](RunOptions& o) { o.layout = "tp3"; }, usage, "the job has 2"},
      {[](RunOptions& o) { o.rank_weights = "1,2,3"; }, usage, "2 positive numbers"},
      {[](RunOptions& o) { o.policies = "fixd"; }, usage, "did you mean 'fixed'"},
      {[](RunOptions& o) { o.policies = "fixed"; }, usage, "needs --profile"},
      {[](RunOptions& o) { o.policies = "oracle-static"; }, usage, "--future TRACE"},
      {[](RunOptions& o) { o.policies = "belady"; }, usage, "single uses"},
      {[](RunOptions& o) { o.policies = "ewma:halflive=3"; }, usage, "halflife"},
      {[](RunOptions& o) { o.prompts.split = "tests"; }, usage, "did you mean 'test'"},
      {[](RunOptions& o) { o.prompts.shots = 1; }, usage, "0 or 3"},
      {[](RunOptions& o) { o.prompt = "x"; }, usage, "--teacher-forced needs solutions"},
      {[](RunOptions& o) { o.activation_threshold = "p101"; }, usage, "p0 to p99"},
      {[](RunOptions& o) { o.batch = 0; }, usage, "--batch 0"},
      {[](RunOptions& o) { o.record_magnitudes = "log9"; }, usage, "did you mean 'log8'"},
      {[](RunOptions& o) { o.record_magnitudes = "f16"; }, usage, "needs --record"},
      {[](RunOptions& o) { o.temperature = 0.5; }, usage, "expected no --temperature"},
      {[](RunOptions& o) { o.top_p = 0.5; }, usage, "expected no --top-p"},
      {[](RunOptions& o) { o.stop = {"x"}; }, usage, "expected no --stop"},
      {[](RunOptions& o) { o.samples = "x.jsonl"; }, usage, "expected no --samples"},
      {[](RunOptions& o) { o.samples_per_task = 2; }, usage, "expected no --samples-per-task"},
      {[](RunOptions& o) { o.samples_per_task = 0; }, usage, "--samples-per-task 0"},
      {[](RunOptions& o) { o.temperature = -1; }, usage, "--temperature -1"},
      {[](RunOptions& o) { o.top_p = 0; }, usage, "--top-p 0"},
      {[](RunOptions& o) { o.prompts.path = "/none.jsonl"; }, ErrorKind::input, "/none.jsonl"},
      {[](RunOptions& o) { o.tokenizer = "/none.bin"; }, ErrorKind::input, "/none.bin"},
      {[](RunOptions& o) { o.model = "/none.gguf"; }, ErrorKind::input, "/none.gguf"},
  };
  const TempDir folder;
  for (const Case& bad : cases) {
    RunOptions options = options_of(folder, "test");
    bad.spoil(options);
    INFO(bad.says);
    try {
      make_run_plan(options, 2);
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      CHECK(error.kind() == bad.kind);
      CHECK_THAT(error.what(), Catch::Contains(bad.says));
    }
  }
}

TEST_CASE("outputs that cannot be written and profiles that are none leave nothing behind") {
  const TempDir folder;
  const auto refused = [&](const std::function<void(RunOptions&)>& spoil, ErrorKind kind) {
    RunOptions options = options_of(folder, "test");
    spoil(options);
    try {
      run(options, 2);
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      CHECK(error.kind() == kind);
      CHECK(*error.what() != '\0');
    }
  };
  refused([](RunOptions& o) { o.record = "/none/t.h5"; }, ErrorKind::failed);
  refused([](RunOptions& o) { o.logits = "/none/x.npy"; }, ErrorKind::failed);
  refused([](RunOptions& o) { o.json = "/none/x.json"; }, ErrorKind::failed);
  refused(
      [&](RunOptions& o) {
        o.policies = "fixed";
        o.profile = folder / "tasks.jsonl";
        o.record = folder / "t.h5";
      },
      ErrorKind::input);
  const auto files = std::filesystem::directory_iterator(folder.path());
  CHECK(std::distance(begin(files), end(files)) == 1);  // tasks.jsonl
}

std::atomic<int> asked = 0;

TEST_CASE("an interruption that one rank sees first stops all ranks at the same step") {
  const ModelShape shape = {.layer_count = 2,
                            .model_dim = 64,
                            .ffn_dim = 96,
                            .head_count = 4,
                            .kv_head_count = 2,
                            .head_dim = 16,
                            .vocab_size = 96,
                            .context_length = 256};
  const RandomWeights weights(shape);
  LocalRunOptions options;
  options.layout = "pp2,tp2";
  options.prompt.assign(70, 5);
  options.forced.assign(100, 7);
  asked = 0;
  // Asked once a vote and rank: the 50th call is some rank's, and the others' are later ones.
  options.interrupted = [] { return ++asked == 50; };
  const auto run = run_locally(weights, options);
  CHECK(run.task.interrupted);
  CHECK(run.task.step_count > 70);
  CHECK(run.task.step_count < 170);
  CHECK(run.step_counts == std::vector<uint32_t>(4, run.task.step_count));
}

}  // namespace
}  // namespace thermocline::test
