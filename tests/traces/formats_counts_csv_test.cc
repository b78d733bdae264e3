// The counts-csv format: its lines, counts by task, steps made from counts, and wrong tables.
#include "tests/traces/conversions.h"
#include "traces/count_steps.h"
#include "traces/formats/counts_csv.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

const std::string kHead = "layer,neuron,active_count,step_count\n";
const std::string kSmall = kHead + "0,0,3,10\n0,1,10,10\n1,0,0,10\n1,1,7,10\n";
const ImportOptions kShape = {.layer_count = 2, .ffn_dim = 2};

std::unique_ptr<TraceSource> parse(const std::string& text, const ImportOptions& options = kShape) {
  return parse_counts_csv(in_memory(text), "x.csv", options);
}

std::string message_of(const std::string& text, const ImportOptions& options = kShape) {
  const Failure failure = failure_of([&] { parse(text, options); });
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains("x.csv"));
  return failure.message;
}

// Firings of each neuron in steps [begin, end) of the fixture, layer by layer.
std::vector<uint32_t> fixture_counts(uint64_t begin, uint64_t end) {
  std::vector<uint32_t> counts(5 * 172);
  for (uint64_t step = begin; step < end; ++step) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += fixture_bit(step, i / 172, i % 172);
  }
  return counts;
}

TEST_CASE("a table of counts has a line for each neuron") {
  const TempDir folder;
  const std::string path = folder / "t.h5", csv = folder / "t.csv";
  write_fixture(path, three_ranks(), kConvertedSteps);
  convert(folder, {path, csv});
  std::string expected = kHead;
  const std::vector<uint32_t> counts = fixture_counts(0, kConvertedSteps);
  for (size_t i = 0; i < counts.size(); ++i) {
    expected += std::to_string(i / 172) + "," + std::to_string(i % 172) + "," +
                std::to_string(counts[i]) + ",150\n";
  }
  CHECK(read_file(csv) == expected);
}

TEST_CASE("counts by task stay apart, there and back") {
  const TempDir folder;
  const std::string path = folder / "t.h5", csv = folder / "t.csv", back = folder / "b.h5";
  write_fixture(path, three_ranks(), 40);
  convert(folder, {path, csv, "--by-task"});
  CHECK(read_file(csv).starts_with("task_id," + kHead + "11,0,0,"));
  convert(folder, {csv, back, "--like", path});
  const auto trace = open_trace(back);
  REQUIRE(trace->tasks().size() == 4);
  for (uint32_t task = 0; task < 4; ++task) {
    CHECK(trace->tasks()[task] ==
          TaskRecord{static_cast<int32_t>(11 + task), 10 * task, 10, 0, {}});
    const auto counts = profile_of(*trace, whole_model(trace->header()), 10 * task, 10).counts;
    CHECK(counts == fixture_counts(10 * task, 10 * task + 10));
  }
}

TEST_CASE("steps made from counts add up exactly, and spread each neuron evenly") {
  const NeuronPool pool = {0, 3, 0, 70};
  for (const uint64_t steps : {1u, 7u, 64u, 100u}) {
    std::vector<uint32_t> counts(pool.total());
    for (size_t i = 0; i < counts.size(); ++i) counts[i] = static_cast<uint32_t>(i % (steps + 1));
    CountSteps made(pool, counts, steps, steps);
    ActivationProfile sum(pool);
    for (uint64_t step = 0; step < steps; ++step) {
      sum.add({&pool, made.next()});
      for (size_t i = 0; i < counts.size(); ++i) {
        const double share = static_cast<double>(counts[i]) / static_cast<double>(steps);
        const double ahead = sum.counts[i] - share * static_cast<double>(step + 1);
        if (std::abs(ahead) >= 1.0) FAIL("neuron " << i << " is " << ahead << " firings ahead");
      }
    }
    CHECK(sum.counts == counts);
  }
}

TEST_CASE("counts can be scaled to fewer steps, rounded to the nearest") {
  const auto source = parse(kSmall, {.layer_count = 2, .ffn_dim = 2, .profile_steps = 5});
  CHECK(source->facts().step_count == 5);
  CHECK_THAT(source->facts().notes.back(), Contains("10 steps were scaled to 5"));
  const SourceSteps steps = steps_of(*source);
  ActivationProfile sum(source->pool());
  const NeuronPool pool = source->pool();
  for (size_t step = 0; step < 5; ++step) {
    sum.add({&pool, std::span<const uint64_t>(steps.words).subspan(2 * step, 2)});
  }
  CHECK(sum.counts == std::vector<uint32_t>{2, 5, 0, 4});  // 1.5, 5, 0, 3.5
  CHECK_FALSE(source->facts().order_is_real);
  CHECK(failure_of([] {
          parse(kSmall, {.layer_count = 2, .ffn_dim = 2, .counted_steps = 9});
        }).kind == ErrorKind::usage);
}

TEST_CASE("a table of counts that is not whole or not in order is an Error with its line") {
  CHECK(parse(kSmall, {})->facts().ffn_dim == 2);
  CHECK_THAT(message_of(""), Contains("the line layer,neuron"));
  CHECK_THAT(message_of(kHead), Contains("a line for each neuron"));
  CHECK_THAT(message_of("layer,neuron\n"), Contains("x.csv:1:"));
  CHECK_THAT(message_of(kHead + "0,1,3,10\n"), Contains("layer 0, neuron 0 first"));
  CHECK_THAT(message_of(kHead + "0,0,3,10\n0,2,3,10\n"), Contains("after layer 0, neuron 0"));
  CHECK_THAT(message_of(kHead + "0,0,3,10\n2,0,3,10\n"), Contains("x.csv:3:"));
  CHECK_THAT(message_of(kHead + "0,0,3,10\n0,0,3,10\n"), Contains("x.csv:3:"));
  CHECK_THAT(message_of(kHead + "0,0,11,10\n"), Contains("active_count up to 10"));
  CHECK_THAT(message_of(kHead + "0,0,3,10\n0,1,3,11\n"), Contains("step_count 10"));
  CHECK_THAT(message_of(kHead + "0,0,-3,10\n"), Contains("active_count from 0"));
  CHECK_THAT(message_of(kHead + "0,0,3.5,10\n"), Contains("active_count from 0"));
  CHECK_THAT(message_of(kHead + "0,0,3,99999999999\n"), Contains("step_count from 0"));
  CHECK_THAT(message_of(kHead + "0,0,3,10,1\n"), Contains("4 fields"));
  CHECK_THAT(message_of(kSmall, {.layer_count = 3, .ffn_dim = 2}), Contains("3 layers"));
  CHECK_THAT(message_of(kSmall, {.layer_count = 2, .ffn_dim = 3}), Contains("3 neurons"));
  const std::string uneven = kHead + "0,0,1,2\n0,1,1,2\n1,0,1,2\n";
  CHECK_THAT(message_of(uneven, {}), Contains("2 neurons in each layer"));
  const std::string by_task = "task_id," + kHead;
  CHECK_THAT(message_of(by_task + "1,0,0,1,2\n1,1,0,1,2\n2,0,0,1,2\n", {}),
             Contains("2 layers in each task"));
  CHECK_THAT(message_of(by_task + "1,0,0,1,2\n2,0,1,1,2\n", {}), Contains("of task 1"));
}

TEST_CASE("a table of counts that is cut anywhere is an Error") {
  // Without its last newline it still is whole.
  for (size_t size = 0; size + 1 < kSmall.size(); ++size) {
    INFO(size);
    message_of(kSmall.substr(0, size));
  }
}

}  // namespace
}  // namespace thermocline::test
