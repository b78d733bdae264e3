// Every registered trace format: there and back, what is left after a failure, help and README.
#include <csignal>

#include "models/new_file.h"
#include "models/text.h"
#include "tests/traces/conversions.h"
#include "traces/trace_origin.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("every trace format registers itself from its own file") {
  std::set<std::string> files, entries;
  for (const std::string& name : names_in(THERMOCLINE_SOURCE_DIR "/traces/formats")) {
    if (name.ends_with(".cc")) files.insert(trace_format_name(name.substr(0, name.size() - 3)));
  }
  for (const std::string& name : trace_formats().names()) entries.insert(name);
  CHECK(files == entries);
}

TEST_CASE("the README of traces lists the formats that there are") {
  const std::string readme = read_file(THERMOCLINE_SOURCE_DIR "/traces/README.md");
  for (const TraceFormat* format : trace_formats().entries()) {
    std::string endings;
    for (const std::string& extension : format->extensions) {
      endings += (endings.empty() ? "`" : ", `") + extension + "`";
    }
    const std::string row = "| `" + format->name + "` | " + endings + " | " +
                            std::string(name_of(format->carries)) + " | " + format->summary + " |";
    INFO("traces/README.md should have the row: " << row);
    CHECK(readme.find(row) != std::string::npos);
  }
}

TEST_CASE("whatever a format carries comes back, from and into any number of ranks") {
  const TraceHeader header = GENERATE(three_ranks(), two_stages());
  const TempDir folder;
  const std::string path = folder / "t.h5", back = folder / "back.h5";
  write_fixture(path, header, kConvertedSteps);
  const auto trace = open_trace(path);
  for (const TraceFormat* format : trace_formats().entries()) {
    INFO(format->name);
    const std::string foreign = path_of(folder, *format);
    const auto there = convert(folder, {path, foreign});
    CHECK(there.at("format") == format->name);
    CHECK(there.at("trace_hash") == trace->hash());
    const auto row = convert(folder, {foreign, back, "--like", path, "--ranks", "2"});
    CHECK(row.at("direction") == "to-trace");
    for (const ShardReport& report : check_trace(back)) CHECK(report.good);
    const auto converted = open_trace(back);
    CHECK(converted->header().weight_hash == header.weight_hash);
    CHECK(converted->header().shape == header.shape);
    CHECK(converted->header().pools.size() == 2);
    CHECK_THAT(converted->header().model, Contains("converted from converted"));
    const bool counts = format->carries == Carries::counts;
    CHECK((converted->header().model.find("order of steps is not real") != std::string::npos) ==
          counts);
    CHECK(counts_of(*converted) == counts_of(*trace));
    if (!counts) CHECK(words_of(*converted) == words_of(*trace));
    for (const std::string& name : names_in(folder.path())) CHECK(!name.ends_with(".tmp"));
  }
}

TEST_CASE("a selection is a smaller trace, whichever format it is written in") {
  const TempDir folder;
  const std::string path = folder / "t.h5", back = folder / "back.h5";
  write_fixture(path, three_ranks(), kConvertedSteps);
  for (const TraceFormat* format : trace_formats().entries()) {
    INFO(format->name);
    const std::string foreign = path_of(folder, *format);
    const auto row = convert(folder, {path, foreign, "--layers", "1..3", "--steps", "60..130",
                                      "--tasks", "18..23"});  // ids from 11: steps 70 to 129
    CHECK(row.at("step_count") == 60);
    CHECK(row.at("layer_count") == 3);
    convert(folder, {foreign, back, "--shape", "layers=3,ffn_dim=172,model_dim=64,type=q8_0",
                     "--provenance", "synthetic"});
    std::vector<uint32_t> expected(3 * 172);
    for (uint64_t step = 70; step < 130; ++step) {
      for (size_t i = 0; i < expected.size(); ++i) {
        expected[i] += fixture_bit(step, 1 + i / 172, i % 172);
      }
    }
    CHECK(counts_of(*open_trace(back)) == expected);
  }
}

TEST_CASE("selections that hold nothing are usage errors that say what there is") {
  const TempDir folder;
  const std::string path = folder / "t.h5", out = folder / "t.npy";
  write_fixture(path, three_ranks(), 20);
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--layers", "3..5"}, "0 to 4"},
      {{"--layers", "3..1"}, "ascending numbers and ranges"},
      {{"--steps", "20..30"}, "20 steps"},
      {{"--tasks", "13"}, "none of the trace's"},
      {{"--layers", "x"}, "x"}};
  for (const auto& one : cases) {
    INFO(one.second);
    std::vector<std::string> arguments = {path, out};
    arguments.insert(arguments.end(), one.first.begin(), one.first.end());
    const Failure failure = failure_of([&] { convert(folder, arguments); });
    CHECK(failure.kind == ErrorKind::usage);
    CHECK_THAT(failure.message, Contains(one.second));
  }
  CHECK(!std::filesystem::exists(out));
}

TEST_CASE("direction and format that nobody can tell are usage errors with the valid names") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 20);
  const auto usage = [&](std::vector<std::string> arguments) {
    const Failure failure = failure_of([&] { convert(folder, std::move(arguments)); });
    CHECK(failure.kind == ErrorKind::usage);
    return failure.message;
  };
  CHECK_THAT(usage({path, folder / "x.npx"}), Contains(".npy (npy)"));
  CHECK_THAT(usage({path, folder / "x", "--format", "npz"}), Contains("did you mean 'npy'?"));
  CHECK_THAT(usage({path, path}), Contains("same"));
  write_file(folder / "x.csv", "");
  CHECK_THAT(usage({folder / "x.csv", folder / "y.npy"}), Contains("trace on one side"));
  CHECK_THAT(usage({path, folder / "x.npy", "--ranks", "2"}), Contains("--ranks"));
  CHECK_THAT(usage({path, folder / "x.npy", "--by-task"}), Contains("--by-task"));
  CHECK_THAT(usage({folder / "x.csv", folder / "y.h5"}), Contains("--like"));
  CHECK_THAT(usage({folder / "x.csv", folder / "y.h5", "--like", path, "--layers", "0"}),
             Contains("--layers"));
  CHECK(failure_of([&] {
          convert(folder, {folder / "none.npy", folder / "y.h5"});
        }).kind == ErrorKind::input);
}

TEST_CASE("a made trace says only what somebody said of its model") {
  const auto origin = [](OriginText text) { return parse_origin(text); };
  CHECK_THAT(failure_of([&] { origin({}); }).message, Contains("one of --model, --shape"));
  CHECK_THAT(failure_of([&] {
               origin({"preset:tiny", "", "", ""});
             }).message,
             Contains("--provenance"));
  CHECK_THAT(failure_of([&] {
               origin({"preset:tiny", "", "", "reel"});
             }).message,
             Contains("did you mean 'real'?"));
  CHECK_THAT(failure_of([&] { parse_shape_keys("layers=2"); }).message, Contains("model_dim"));
  CHECK_THAT(failure_of([&] { parse_shape_keys("layers=2,fnn_dim=8"); }).message,
             Contains("did you mean 'ffn_dim'?"));
  const TraceOrigin preset = origin({"preset:tiny,type=q8_0", "", "", "real"});
  CHECK(preset.weight_hash.empty());  // of the file: the preset's weights never fired
  CHECK(preset.types == BundleTypes(DType::q8_0));
  const TraceOrigin shape = origin({"", "model_dim=64,layers=2,activation=silu", "", "real"});
  CHECK(shape.shape.activation == FfnActivation::silu);
  CHECK(shape.unknown.size() == 5);
  const TraceOrigin demo = origin({"preset:demo", "", "", ""});
  CHECK(demo.provenance == "trained-demo");
  CHECK(demo.weight_hash.size() == 16);
  CHECK_THAT(failure_of([&] {
               origin({"preset:demo", "", "", "real"});
             }).message,
             Contains("trained-demo"));
}

TEST_CASE("the header of a made trace names its source and what is not known") {
  const TempDir folder;
  const std::string path = folder / "t.h5", csv = folder / "c.csv", back = folder / "b.h5";
  write_fixture(path, three_ranks(), 20);
  convert(folder, {path, csv});
  convert(folder, {csv, back, "--shape", "model_dim=64", "--provenance", "real"});
  const TraceHeader header = open_trace(back)->header();
  CHECK(header.model == "converted from c.csv; counts: order of steps is not real");
  CHECK(header.activation_rule == "unknown");
  CHECK(header.weight_hash == header.prompts_hash);
  const auto config = nlohmann::json::parse(header.config_json);
  CHECK(config.at("order_of_steps") == "not real");
  CHECK(config.at("unknown").size() == 5);
  CHECK(open_trace(back)->times(0)[3] == StepTimes{});
}

TEST_CASE("an interrupted or failed conversion leaves nothing, in both directions") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), kConvertedSteps);
  for (const TraceFormat* format : trace_formats().entries()) {
    INFO(format->name);
    const TempDir output;
    const std::string foreign = path_of(folder, *format);
    const auto interrupted_exit = [&](const std::vector<std::string>& arguments) {
      return outcome_in_child([&] {
        install_interrupt_handler();
        std::raise(SIGINT);
        try {
          convert(output, arguments);
        } catch (const Error& error) {
          return error.exit_code();
        }
        return 0;
      });
    };
    CHECK(interrupted_exit({path, path_of(output, *format)}) == 1);
    CHECK(names_in(output.path()).empty());
    convert(folder, {path, foreign});
    CHECK(interrupted_exit({foreign, output / "b.h5", "--like", path}) == 1);
    CHECK(names_in(output.path()).empty());
  }
}

TEST_CASE("what does not fit on the disk is refused with both sizes, and nothing is replaced") {
  const TempDir folder;
  const Failure failure = failure_of([&] { require_room(folder / "x", uint64_t{1} << 62); });
  CHECK(failure.kind == ErrorKind::failed);
  CHECK_THAT(failure.message, Contains("needs 4.00 EiB, of which the disk has"));
  require_room(folder / "x", 1);
  CHECK_THROWS_AS(NewFile(folder.path()), Error);
  {
    NewFile abandoned(folder / "y");
    abandoned.write("half");
  }
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("numpy and zipfile and a pickle reader that calls nothing see what we wrote") {
  const std::string python = "/usr/bin/python3", root = THERMOCLINE_SOURCE_DIR;
  if (run_command(python + " -c 'import h5py, numpy'").exit_code != 0) {
    WARN("skipped: " << python << " has no h5py");
    return;
  }
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, GENERATE(three_ranks(), two_stages()), kConvertedSteps);
  std::string command = "PYTHONDONTWRITEBYTECODE=1 " + python + " " + root +
                        "/tests/oracles/check_trace_formats.py " + path;
  for (const TraceFormat* format : trace_formats().entries()) {
    convert(folder, {path, path_of(folder, *format)});
    command += " " + format->name + "=" + path_of(folder, *format);
  }
  const CommandResult result = run_command(command);
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.output, Catch::Matchers::EndsWith("ok: 4 formats\n"));
}

}  // namespace
}  // namespace thermocline::test
