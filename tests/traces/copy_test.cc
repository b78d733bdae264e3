// trace cut, trace merge and trace check --repair: what is kept is what it was.
#include <catch2/catch.hpp>
#include <filesystem>

#include "models/cli.h"
#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/copy.h"
#include "traces/index_ranges.h"
#include "traces/profile.h"
#include "traces/repair.h"

namespace thermocline::test {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;

CommandResult trace_command(const std::string& arguments) {
  return run_command(std::string(std::getenv("THERMOCLINE_PROGRAM")) + " trace " + arguments);
}

std::string shell_text(const std::string& path) { return "'" + path + "'"; }

// Step `from` of the fixture is step `to` of the trace, bits, predictions, magnitudes and times.
void check_step(const TraceReader& trace, uint64_t to, uint64_t from) {
  const NeuronPool whole = whole_model(trace.header());
  StepBlock block;
  trace.read(whole, to, 1, block);
  CHECK(block.words == fixture_words(whole, from));
  CHECK(trace.steps()[to].token == fixture_step(from).token);
  CHECK(trace.steps()[to].position == fixture_step(from).position);
  for (uint32_t rank = 0; rank < trace.header().pools.size(); ++rank) {
    CHECK(trace.times(rank)[to] == fixture_times(from, rank));
  }
  if (!trace.header().has_predicted) return;
  trace.read_predicted(whole, to, 1, block);
  CHECK(block.words == fixture_predicted(whole, from));
  const auto& rows = trace.magnitude_steps();
  const auto row = std::find(rows.begin(), rows.end(), to);
  REQUIRE((row != rows.end()) == fixture_samples(from));
  if (row == rows.end()) return;
  std::vector<float> magnitudes;
  trace.read_magnitudes(whole, static_cast<uint64_t>(row - rows.begin()), 1, magnitudes);
  CHECK(magnitudes == fixture_magnitudes(whole, from));
}

TEST_CASE("ranges are numbers and pairs, ascending") {
  CHECK(parse_index_ranges("0..3,8", "--steps") == std::vector<IndexRange>{{0, 3}, {8, 8}});
  CHECK(contains({{0, 3}, {8, 8}}, 8));
  CHECK(!contains({{0, 3}, {8, 8}}, 4));
  for (const char* text : {"", "a", "3..1", "1,1", "1,", "..2", "2..", "1..2,2..3", "-1"}) {
    CHECK_THROWS_WITH(parse_index_ranges(text, "--steps"), Contains("--steps"));
  }
}

TEST_CASE("a cut of everything has the hash of the original") {
  const TempDir folder;
  const TraceHeader header = with_everything(two_stages(), MagnitudeFormat::f16);
  write_fixture(folder / "t.h5", header, 200);
  const CommandResult result = trace_command("cut " + shell_text(folder / "t.h5") + " --out " +
                                             shell_text(folder / "cut.h5"));
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  const auto trace = open_trace(folder / "cut.h5");
  CHECK(trace->hash() == open_trace(folder / "t.h5")->hash());
  CHECK_THAT(result.output, Contains(trace->hash()));
  for (const uint64_t step : {0, 63, 64, 127, 199}) check_step(*trace, step, step);
  for (const ShardReport& report : check_trace(folder / "cut.h5")) CHECK(report.good);
}

TEST_CASE("tasks that are cut are whole, and counted anew") {
  const TempDir folder;
  write_fixture(folder / "t.h5", with_everything(three_ranks(), MagnitudeFormat::log8), 200);
  // Tasks 13 to 14 and 20 are steps 20 to 39 and 90 to 99.
  REQUIRE(trace_command("cut " + shell_text(folder / "t.h5") + " --tasks 13..14,20 --out " +
                        shell_text(folder / "cut.h5"))
              .exit_code == 0);
  const auto trace = open_trace(folder / "cut.h5");
  REQUIRE(trace->step_count() == 30);
  REQUIRE(trace->tasks().size() == 3);
  for (uint64_t i = 0; i < 30; ++i) check_step(*trace, i, i < 20 ? 20 + i : 70 + i);
  TaskRecord expected = fixture_task(9);
  expected.step_begin = 20;
  CHECK(trace->tasks()[2] == expected);
  CHECK(trace->steps()[25].task == 2);
}

TEST_CASE("layers that are cut keep their neurons, and ranks without any are left out") {
  const TempDir folder;
  write_fixture(folder / "t.h5", with_everything(two_stages(), MagnitudeFormat::log8), 70);
  REQUIRE(trace_command("cut " + shell_text(folder / "t.h5") + " --layers 2..2 --steps 5..69 " +
                        "--out " + shell_text(folder / "cut.h5"))
              .exit_code == 0);
  const auto trace = open_trace(folder / "cut.h5");
  CHECK(trace->header().pools == std::vector<NeuronPool>{{0, 1, 0, 128}, {0, 1, 128, 8}});
  CHECK_THAT(trace->header().model, Contains("layers 2 to 2"));
  REQUIRE(trace->step_count() == 65);
  StepBlock block;
  trace->read({0, 1, 0, 136}, 0, 65, block);
  for (uint64_t i = 0; i < 65; ++i) {
    const auto words = block.step(i).words;
    CHECK(std::vector<uint64_t>(words.begin(), words.end()) ==
          fixture_words({2, 1, 0, 136}, 5 + i));
  }
  CHECK(trace->times(1)[0] == fixture_times(5, 2));
  CHECK(trace->tasks()[0].step_count == 5);  // the rest of a task
}

TEST_CASE("a moved activation threshold can be made a trace of its own") {
  const TempDir folder;
  write_fixture(folder / "t.h5", with_everything(three_ranks(), MagnitudeFormat::f16), 90);
  REQUIRE(trace_command("cut " + shell_text(folder / "t.h5") + " --activation-threshold 0.1 " +
                        "--out " + shell_text(folder / "cut.h5"))
              .exit_code == 0);
  const auto trace = open_trace(folder / "cut.h5");
  const auto moved = open_trace(folder / "t.h5", {.activation_threshold = "0.1"});
  CHECK(trace->popcounts(0, 30) == moved->popcounts(0, 30));
  CHECK(trace->header().activation_rule == "abs(act)>0.1");
  CHECK(trace->magnitude_steps().size() == 30);
}

TEST_CASE("a cut of nothing, and one onto itself, are refused") {
  const TempDir folder;
  write_fixture(folder / "t.h5", three_ranks(), 20);
  const std::string path = shell_text(folder / "t.h5"), out = shell_text(folder / "cut.h5");
  const auto refused = [&](const std::string& arguments, int exit_code, const char* message) {
    const CommandResult result = trace_command("cut " + path + " " + arguments);
    CHECK(result.exit_code == exit_code);
    CHECK_THAT(result.output, Contains(message));
  };
  refused("--tasks 999 --out " + out, 2, "none of the trace's 20 steps");
  refused("--steps 20..30 --out " + out, 2, "none of the trace's 20 steps");
  refused("--layers 3..5 --out " + out, 2, "one range from 0 to 4");
  refused("--steps 1..x --out " + out, 2, "--steps '1..x'");
  refused("--out " + path, 2, "is the trace that is read");
  CHECK(!fs::exists(folder / "cut.h5"));
  CHECK(open_trace(folder / "t.h5")->step_count() == 20);
}

TEST_CASE("two halves that were recorded apart merge into the whole") {
  const TempDir folder;
  const TraceHeader header = with_everything(three_ranks(), MagnitudeFormat::log8);
  write_fixture(folder / "t.h5", header, 200);
  const auto cut = [&](const char* tasks, const char* name) {
    return trace_command("cut " + shell_text(folder / "t.h5") + " --tasks " + tasks + " --out " +
                         shell_text(folder / name))
        .exit_code;
  };
  REQUIRE(cut("11..17", "a.h5") == 0);
  REQUIRE(cut("18..30", "b.h5") == 0);
  REQUIRE(trace_command("merge " + shell_text(folder / "a.h5") + " " + shell_text(folder / "b.h5") +
                        " --out " + shell_text(folder / "m.h5"))
              .exit_code == 0);
  const auto trace = open_trace(folder / "m.h5");
  REQUIRE(trace->step_count() == 200);
  for (const uint64_t step : {0, 69, 70, 128, 199}) check_step(*trace, step, step);
  for (uint64_t task = 0; task < 20; ++task) CHECK(trace->tasks()[task] == fixture_task(task));
  CHECK(trace->steps()[199].task == 19);
  CHECK(trace->hash() == open_trace(folder / "t.h5")->hash());
}

TEST_CASE("traces of different weights or layouts do not merge") {
  const TempDir folder;
  write_fixture(folder / "a.h5", three_ranks(), 20);
  TraceHeader other = three_ranks();
  other.weight_hash = "00000000000000ff";
  write_fixture(folder / "b.h5", other, 20);
  const CommandResult result =
      trace_command("merge " + shell_text(folder / "a.h5") + " " + shell_text(folder / "b.h5") +
                    " --out " + shell_text(folder / "m.h5"));
  CHECK(result.exit_code == 3);
  CHECK_THAT(result.output, Contains("b.h5") && Contains("weight_hash"));
  CHECK(!fs::exists(folder / "m.h5"));
}

TEST_CASE("repair keeps the tasks that every rank finished") {
  const TempDir folder;
  const TraceHeader header = with_everything(three_ranks(), MagnitudeFormat::log8);
  const uint64_t steps[] = {90, 64, 87};
  for (uint32_t rank = 0; rank < 3; ++rank) {
    const auto writer = create_shard(folder / "t.h5", header, rank);
    append_fixture(*writer, header, rank, steps[rank]);
  }
  const CommandResult result = trace_command("check " + shell_text(folder / "t.h5") + " --repair " +
                                             shell_text(folder / "good.h5"));
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.output, Contains("lost: 4 steps of unfinished tasks") &&
                                Contains("60 steps of 6 whole tasks"));
  const auto trace = open_trace(folder / "good.h5");
  REQUIRE(trace->step_count() == 60);
  for (const uint64_t step : {0, 59}) check_step(*trace, step, step);
  CHECK_THAT(trace->header().config_json, Contains("repaired"));
  CHECK(fs::exists(partial_path(folder / "t.h5", 1)));
}

TEST_CASE("repair leaves out the tasks of a damaged block, and keeps those after it") {
  const TempDir folder;
  write_fixture(folder / "t.h5", three_ranks(), 300);
  // Damage what is between the chunks of the first and the last block.
  std::string bytes = read_file(shard_path(folder / "t.h5", 1));
  size_t changed = 0;
  for (size_t at = bytes.size() / 4; changed == 0 && at < bytes.size(); at += 997) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 16);
    write_file(shard_path(folder / "t.h5", 1), damaged);
    const auto reports = check_trace(folder / "t.h5");
    changed = reports[1].line.find("good to step 64") != std::string::npos ? at : 0;
  }
  REQUIRE(changed > 0);
  const RepairResult result = repair_trace(folder / "t.h5", folder / "good.h5", {});
  // Steps 64 to 127 are of tasks 6 to 12.
  CHECK(result.task_count == 30 - 7);
  const auto trace = open_trace(folder / "good.h5");
  check_step(*trace, 59, 59);
  check_step(*trace, 60, 130);
  CHECK(trace->tasks()[6].task_id == 24);
}

TEST_CASE("what no repair can bring back is named") {
  const TempDir folder;
  write_fixture(folder / "t.h5", three_ranks(), 20);
  fs::remove(shard_path(folder / "t.h5", 1));
  CHECK_THROWS_WITH(repair_trace(folder / "t.h5", folder / "good.h5", {}),
                    Contains("neurons of rank 1") && Contains("t.rank0001.h5"));
  CHECK(!fs::exists(folder / "good.h5"));
  write_fixture(folder / "short.h5", three_ranks(), 5);
  CHECK_THROWS_WITH(repair_trace(folder / "short.h5", folder / "good.h5", {}),
                    Contains("a task that is whole"));
}

}  // namespace
}  // namespace thermocline::test
