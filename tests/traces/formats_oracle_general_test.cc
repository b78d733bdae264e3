// The oracle-general format: libCacheSim's records, byte by byte, and records that do not hold.
#include <cstring>

#include "tests/traces/conversions.h"
#include "traces/formats/oracle_general.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

const ImportOptions kShape = {.layer_count = 2, .ffn_dim = 70, .bundle_bytes = 100};

struct Record {
  uint32_t time;
  uint64_t object;
  uint32_t size;
  int64_t next;
};

std::string bytes_of(const std::vector<Record>& records) {
  std::string bytes;
  const auto add = [&bytes](auto value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (const Record& record : records) {
    add(record.time);
    add(record.object);
    add(record.size);
    add(record.next);
  }
  return bytes;
}

// Three steps: neurons {0, 139}, none, {139, 5}.
std::vector<Record> small() {
  return {{0, 1, 100, -1}, {0, 140, 100, 3}, {2, 140, 100, -1}, {2, 6, 100, -1}};
}

std::unique_ptr<TraceSource> parse(const std::string& bytes,
                                   const ImportOptions& options = kShape) {
  return parse_oracle_records(in_memory(bytes), "x.oracleGeneral", options);
}

std::string message_of(const std::string& bytes) {
  const Failure failure = failure_of([&] { parse(bytes); });
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains("x.oracleGeneral"));
  return failure.message;
}

std::string message_of(std::vector<Record> records) { return message_of(bytes_of(records)); }

TEST_CASE("a record is 24 bytes in libCacheSim's order, and knows the next one of its object") {
  const TempDir folder;
  const std::string path = folder / "t.h5", out = folder / "t.oracleGeneral";
  write_fixture(path, two_stages(), kConvertedSteps);
  convert(folder, {path, out});
  const uint64_t bundle = two_stages().bundle_bytes();
  std::vector<Record> expected;
  for (uint32_t step = 0; step < kConvertedSteps; ++step) {
    for (uint64_t flat = 0; flat < 3 * 136; ++flat) {
      if (!fixture_bit(step, flat / 136, flat % 136)) continue;
      expected.push_back({step, flat + 1, static_cast<uint32_t>(bundle), -1});
    }
  }
  std::vector<int64_t> next(3 * 136 + 1, -1);
  for (size_t i = expected.size(); i-- > 0;) {
    expected[i].next = std::exchange(next[expected[i].object], static_cast<int64_t>(i + 1));
  }
  CHECK(read_file(out) == bytes_of(expected));
  // The size is known before the first byte is written.
  const auto trace = open_trace(path);
  uint64_t announced = 0;
  const ExportOptions options = {
      false, [&](uint64_t bytes) { announced = bytes; },
      [&](uint64_t) { CHECK(announced == kOracleRecordBytes * expected.size()); }};
  const ExportResult result =
      trace_formats().by_name("oracle-general").write(Selection(*trace), out, options);
  CHECK(result.file_bytes == announced);
}

TEST_CASE("steps without a record in between are empty steps") {
  const std::string bytes = bytes_of(small());  // the source refers to them
  const auto source = parse(bytes);
  CHECK(source->facts().step_count == 3);
  const SourceSteps steps = steps_of(*source);
  // (step, layer, word): neuron 139 is bit 69 of layer 1, bit 5 of its second word.
  CHECK(steps.words == std::vector<uint64_t>{1, 0, 0, 32, 0, 0, 0, 0, 32, 0, 0, 32});
  CHECK(steps.infos[2] == bare_step(2));
}

TEST_CASE("a trace with an empty step and no first firings comes back") {
  const TempDir folder;
  const std::string path = folder / "t.h5", out = folder / "t.oracleGeneral",
                    back = folder / "b.h5";
  const TraceHeader header = fixture_header(1, 64, {{0, 1, 0, 64}});
  const auto writer = create_shard(path, header, 0);
  for (uint64_t step = 0; step < 131; ++step) {
    const std::vector<uint64_t> words = {step % 3 == 0 ? 0 : step};
    writer->append(bare_step(step), {}, {words, {}, {}});
  }
  writer->end_task(bare_task(131)[0]);
  writer->finish();
  write_master(path);
  convert(folder, {path, out});
  convert(folder, {out, back, "--like", path});
  CHECK(words_of(*open_trace(back)) == words_of(*open_trace(path)));
}

TEST_CASE("records count from 1 or from 0, and no further access is -1 or the largest number") {
  std::vector<Record> records = small();
  records[1].next = 2;  // counted from 0
  records[0].next = INT64_MAX;
  const std::string from_0 = bytes_of(records), from_1 = bytes_of(small());
  CHECK(steps_of(*parse(from_0)).words == steps_of(*parse(from_1)).words);
  // Two objects that are counted differently.
  records = {{0, 1, 100, 3}, {0, 2, 100, 3}, {1, 1, 100, -1}, {1, 2, 100, -1}};
  CHECK_THAT(message_of(records), Contains("record 3"));
}

TEST_CASE("records that do not hold are Errors with their number") {
  const auto changed = [](size_t index, auto change) {
    std::vector<Record> records = small();
    change(records[index]);
    return message_of(records);
  };
  CHECK_THAT(changed(2, [](Record& r) { r.object = 0; }), Contains("record 2"));
  CHECK_THAT(changed(2, [](Record& r) { r.object = 141; }), Contains("from 1 to 140"));
  CHECK_THAT(changed(2, [](Record& r) { r.object = UINT64_MAX; }), Contains("from 1 to 140"));
  CHECK_THAT(changed(0, [](Record& r) { r.size = 99; }), Contains("obj_size of 100"));
  CHECK_THAT(changed(3, [](Record& r) { r.time = 1; }), Contains("clock_time from 2"));
  CHECK_THAT(changed(0, [](Record& r) { r.time = 1700000000; }), Contains("counts steps"));
  CHECK_THAT(changed(0, [](Record& r) { r.next = 4; }), Contains("an access in record 4"));
  CHECK_THAT(changed(0, [](Record& r) { r.next = 5; }), Contains("from 1 to 4"));
  CHECK_THAT(changed(0, [](Record& r) { r.next = 0; }), Contains("from 1 to 4"));
  CHECK_THAT(changed(0, [](Record& r) { r.next = INT64_MIN; }), Contains("from 1 to 4"));
  CHECK_THAT(changed(1, [](Record& r) { r.next = -1; }), Contains("record 2"));
  CHECK_THAT(changed(1, [](Record& r) { r.next = 4; }), Contains("record 2"));
  CHECK_THAT(changed(1, [](Record& r) { r.object = 1; }), Contains("each object once in a step"));
  CHECK(failure_of([] { parse(bytes_of(small()), {}); }).kind == ErrorKind::usage);
}

TEST_CASE("records that are cut anywhere are an Error") {
  std::vector<Record> records = small();
  records[0].next = 4;
  records[3].object = 1;  // so that the last record is promised
  const std::string whole = bytes_of(records);
  CHECK(parse(whole)->facts().step_count == 3);
  for (size_t size = 0; size < whole.size(); ++size) {
    INFO(size);
    message_of(whole.substr(0, size));
  }
}

}  // namespace
}  // namespace thermocline::test
