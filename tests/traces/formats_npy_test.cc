// The npy format: what the array and its table hold, and files that are no such array.
#include "models/npy_file.h"
#include "tests/traces/conversions.h"
#include "traces/formats/npy.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr uint64_t kLayers = 2, kBytes = 3;  // 20 neurons: the last 4 bits are spare
const ImportOptions kShape = {.layer_count = kLayers, .ffn_dim = 20};

std::string small_array(uint64_t steps) {
  std::string bytes = npy_header(kNpyU8, std::vector<uint64_t>{steps, kLayers, kBytes});
  for (uint64_t i = 0; i < steps * kLayers * kBytes; ++i) {
    bytes += static_cast<char>(i % kBytes == kBytes - 1 ? i * 7 % 16 : i * 37);
  }
  return bytes;
}

std::string message_of(const std::string& bytes, const ImportOptions& options = kShape) {
  const Failure failure = failure_of(
      [&] { steps_of(*parse_npy_bits(in_memory(bytes), "x.npy", std::nullopt, options)); });
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains("x.npy"));
  return failure.message;
}

// The array with its header's text replaced.
std::string with(const std::string& from, const std::string& to) {
  std::string bytes = small_array(4);
  const size_t at = bytes.find(from);
  REQUIRE(at != std::string::npos);
  bytes.replace(at, from.size(), to);
  const size_t padding = bytes.find("   ");  // behind the dict
  if (to.size() > from.size()) bytes.erase(padding, to.size() - from.size());
  if (to.size() < from.size()) bytes.insert(padding, from.size() - to.size(), ' ');
  return bytes;
}

TEST_CASE("tokens, positions, tasks, phases and passes come back from the table beside an array") {
  const TempDir folder;
  const std::string path = folder / "t.h5", npy = folder / "t.npy", back = folder / "b.h5";
  write_fixture(path, three_ranks(), kConvertedSteps);
  convert(folder, {path, npy});
  convert(folder, {npy, back, "--like", path});
  const auto trace = open_trace(back);
  CHECK(trace->steps() == open_trace(path)->steps());
  REQUIRE(trace->tasks().size() == kConvertedSteps / 10);
  for (size_t i = 0; i < trace->tasks().size(); ++i) {
    TaskRecord expected = fixture_task(i);
    expected.generated.clear();
    CHECK(trace->tasks()[i] == expected);
  }
  // Without the table: one task of steps of which only the number is known.
  std::filesystem::remove(folder / "t.steps.csv");
  convert(folder, {npy, back, "--like", path});
  const auto bare = open_trace(back);
  CHECK(words_of(*bare) == words_of(*open_trace(path)));
  CHECK(bare->steps()[77] == bare_step(77));
  CHECK(bare->tasks() == bare_task(kConvertedSteps));
}

TEST_CASE("an array of bits reads as it was written, and needs no ffn_dim") {
  const std::string bytes = small_array(4);
  const auto source = parse_npy_bits(in_memory(bytes), "x.npy", std::nullopt, kShape);
  const SourceSteps steps = steps_of(*source);
  REQUIRE(steps.words.size() == 4 * kLayers);
  for (size_t row = 0; row < steps.words.size(); ++row) {
    uint64_t expected = 0;
    std::memcpy(&expected, bytes.data() + 128 + row * kBytes, kBytes);
    CHECK(steps.words[row] == expected);
  }
  const auto unknown = parse_npy_bits(in_memory(bytes), "x.npy", std::nullopt, {});
  CHECK(unknown->facts().ffn_dim == 24);
  CHECK(unknown->facts().notes.size() == 1);
  CHECK(parse_npy_bits(in_memory(small_array(0)), "x.npy", {}, kShape)->facts().step_count == 0);
}

TEST_CASE("arrays of another type, order or shape are refused with what to do") {
  CHECK_THAT(message_of(with("|u1", "|b1")), Contains("numpy.packbits"));
  CHECK_THAT(message_of(with("|u1", "<f4")), Contains("<f4"));
  CHECK_THAT(message_of(with("False", "True")), Contains("ascontiguousarray"));
  CHECK_THAT(message_of(with("(4, 2, 3)", "(24,)")), Contains("1 dimensions"));
  CHECK_THAT(message_of(with("(4, 2, 3)", "(5, 2, 3)")), Contains("5 steps of 6 bytes"));
  CHECK_THAT(message_of(with("(4, 2, 3)", "(18446744073709551615, 2, 3)")), Contains("24 bytes"));
  CHECK_THAT(message_of(with("(4, 2, 3)", "(4, 0, 3)")), Contains("layers"));
  CHECK_THAT(message_of(with("(4, 2, 3)", "(99999999999999999999,)")), Contains("2^64"));
  CHECK_THAT(message_of(small_array(4), {.layer_count = 3, .ffn_dim = 20}), Contains("3 layers"));
  CHECK_THAT(message_of(small_array(4), {.layer_count = 2, .ffn_dim = 25}), Contains("4 bytes"));
  std::string spare = small_array(4);
  spare[128 + 3 * 6 + 5] = '\x10';  // step 3, layer 1, neuron 20
  CHECK_THAT(message_of(spare), Contains("past neuron 19") && Contains("step 3, layer 1"));
}

TEST_CASE("an array that is cut anywhere is an Error") {
  const std::string whole = small_array(4);
  for (size_t size = 0; size < whole.size(); ++size) {
    INFO(size);
    message_of(whole.substr(0, size));
  }
}

TEST_CASE("a table of steps that does not fit is an Error with its line") {
  const std::string head = "step,task,task_id,position,phase,token\n";
  const auto message = [](const std::string& text) {
    const Failure failure =
        failure_of([&] { parse_step_table(in_memory(text).bytes, "x.steps.csv"); });
    CHECK(failure.kind == ErrorKind::input);
    return failure.message;
  };
  const StepTable good = parse_step_table(in_memory(head + "0,0,-5,3,decode,-1\r\n").bytes, "x");
  CHECK(good.steps == std::vector<StepInfo>{{-1, 3, 0, Phase::decode, 0}});
  CHECK(good.tasks == std::vector<TaskRecord>{{-5, 0, 1, 0, {}}});
  CHECK_THAT(message(""), Contains("the line step,task"));
  CHECK_THAT(message("step;task\n"), Contains("x.steps.csv:1:"));
  CHECK_THAT(message(head + "1,0,0,0,decode,0\n"), Contains("x.steps.csv:2: expected step 0"));
  CHECK_THAT(message(head + "0,1,0,0,decode,0\n"), Contains("task 0"));
  CHECK_THAT(message(head + "0,0,0,0,later,0\n"), Contains("prefill or decode"));
  CHECK_THAT(message(head + "0,0,0,-1,decode,0\n"), Contains("position from 0"));
  CHECK_THAT(message(head + "0,0,0,4294967296,decode,0\n"), Contains("position from 0"));
  CHECK_THAT(message(head + "0,0,0,0,decode\n"), Contains("6 fields"));
  CHECK_THAT(message(head + "0,0,0,0,decode,0,0\n"), Contains("6 fields"));
  CHECK_THAT(message(head + "0,0,7,0,decode,0\n1,0,8,0,decode,0\n"), Contains("task_id 7"));
  const Failure other =
      failure_of([&] { parse_npy_bits(in_memory(small_array(4)), "x.npy", good, kShape); });
  CHECK_THAT(other.message, Contains("the 4 steps of x.npy, found 1"));
}

}  // namespace
}  // namespace thermocline::test
