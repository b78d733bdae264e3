// A trace that is not whole: missing, unfinished, truncated, mixed up or hostile.
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "models/cli.h"
#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/bit_columns.h"
#include "traces/hdf5.h"
#include "traces/profile.h"
#include "traces/schema.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    return error.what();
  }
  FAIL("an Error was expected");
  return "";
}

std::string open_error(const std::string& path, bool allow_partial = false) {
  return error_of([&] { open_trace(path, {.allow_partial = allow_partial}); });
}

size_t bad_count(const std::vector<ShardReport>& reports) {
  size_t bad = 0;
  for (const ShardReport& report : reports) {
    CHECK(report.line.find(report.path) == 0);
    bad += !report.good;
  }
  return bad;
}

void unfinished_trace(const std::string& path, const TraceHeader& header) {
  // 40 steps on rank 0, finished; 24 and 27 on the others, which stop without finish().
  const uint64_t steps[] = {40, 24, 27};
  for (uint32_t rank = 0; rank < 3; ++rank) {
    const auto writer = create_shard(path, header, rank);
    append_fixture(*writer, header, rank, steps[rank]);
    if (rank == 0) writer->finish();
  }
}

TEST_CASE("a whole trace checks as good") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = GENERATE(three_ranks(), two_stages());
  const uint64_t steps = GENERATE(0, 50);
  write_fixture(path, header, steps);
  const auto reports = check_trace(path);
  REQUIRE(reports.size() == 4);
  CHECK(bad_count(reports) == 0);
  CHECK_THAT(reports[1].line, Contains(std::to_string(steps) + " steps"));
  const auto shard = check_trace(shard_path(path, 2));
  REQUIRE(shard.size() == 1);
  CHECK(bad_count(shard) == 0);
}

TEST_CASE("what is no trace says so") {
  const TempDir folder;
  CHECK_THAT(open_error(folder / "none.h5"), Contains("none.h5") && Contains("no such file"));
  CHECK_THAT(open_error(folder / "none.h5", true), Contains("neither a master nor a shard"));
  CHECK_THAT(error_of([&] { check_trace(folder / "none.h5"); }), Contains("none.h5"));
  write_file(folder / "text.h5", "not HDF5 at all");
  CHECK_THAT(open_error(folder / "text.h5"), Contains("text.h5"));
  write_fixture(folder / "t.h5", three_ranks(), 10);
  CHECK_THAT(open_error(shard_path(folder / "t.h5", 1)),
             Contains("kind thermocline-trace,") && Contains("kind thermocline-trace-shard"));
}

TEST_CASE("a lost shard is an error that names it: a partial trace names it too") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = three_ranks();
  write_fixture(path, header, 40);
  fs::remove(shard_path(path, 1));
  CHECK_THAT(open_error(path), Contains("t.rank0001.h5") && Contains("no such file"));
  CHECK(bad_count(check_trace(path)) == 2);  // the shard and the master

  const auto partial = open_trace(path, {.allow_partial = true});
  CHECK(partial->step_count() == 40);
  CHECK(!partial->finished());
  REQUIRE(partial->missing().size() == 1);
  CHECK_THAT(partial->missing()[0], Contains("t.rank0001.h5"));
  StepBlock block;
  partial->read(header.pools[2], 0, 40, block);
  CHECK(block.step(3).words[0] == fixture_words(header.pools[2], 3)[0]);
  CHECK_THAT(error_of([&] { partial->read(header.pools[1], 0, 1, block); }), Contains("rank 1"));
  CHECK_THAT(error_of([&] { partial->read(whole_model(header), 0, 1, block); }),
             Contains("rank 1"));
  CHECK_THAT(error_of([&] { partial->times(1); }), Contains("rank 1"));
}

TEST_CASE("an unfinished shard is an error: a partial trace holds the steps that all have") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = three_ranks();
  unfinished_trace(path, header);
  CHECK_THAT(open_error(path), Contains("t.h5") && Contains("no such file"));
  CHECK_THAT(error_of([&] { write_master(path); }), Contains("t.rank0001.h5"));
  CHECK(!fs::exists(path));

  const auto partial = open_trace(path, {.allow_partial = true});
  CHECK(partial->step_count() == 24);
  CHECK(partial->tasks().size() == 2);
  CHECK(partial->missing().size() == 4);  // the master, and each shard's surplus or lack
  StepBlock block;
  partial->read(whole_model(header), 23, 1, block);
  CHECK(block.words == fixture_words(whole_model(header), 23));
  CHECK(bad_count(check_trace(path)) == 3);
}

TEST_CASE("shards of different recordings are not joined") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  TraceHeader header = three_ranks();
  write_fixture(path, header, 20);
  const auto replace = [&](uint64_t steps) {
    const auto writer = create_shard(path, header, 2);
    append_fixture(*writer, header, 2, steps);
    writer->finish();
  };
  replace(19);
  CHECK_THAT(open_error(path), Contains("t.rank0002.h5") && Contains("20 steps"));
  CHECK_THAT(error_of([&] { write_master(path); }), Contains("t.rank0002.h5"));
  header.weight_hash = "00000000000000ff";
  replace(20);
  CHECK_THAT(open_error(path), Contains("t.rank0002.h5") && Contains("weight_hash"));
  CHECK_THAT(open_error(path, true), Contains("t.rank0002.h5") && Contains("weight_hash"));
  header = three_ranks();
  fs::copy_file(shard_path(path, 1), shard_path(path, 2), fs::copy_options::overwrite_existing);
  CHECK_THAT(open_error(path), Contains("t.rank0002.h5") && Contains("rank 2"));
}

TEST_CASE("recording again replaces the master before anything could mix with it") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 10);
  const auto writer = create_shard(path, three_ranks(), 0);
  CHECK(!fs::exists(path));
  CHECK(!fs::exists(shard_path(path, 0)));
  CHECK(fs::exists(partial_path(path, 0)));
}

TEST_CASE("a newer schema is refused") {
  const TempDir folder;
  const std::string path = folder / "new.h5";
  {
    const auto file = create_hdf5(path);
    file->write_text("kind", "thermocline-trace");
    file->write_number<uint32_t>("schema_major", kTraceSchemaMajor + 1);
    file->close();
  }
  CHECK_THAT(open_error(path), Contains("schema 2") && Contains("found schema 3"));
}

TEST_CASE("pools that do not tile the model are refused by the writer") {
  const TempDir folder;
  const std::vector<std::vector<NeuronPool>> wrong = {
      {{0, 4, 0, 64}},                  // half of the neurons
      {{0, 4, 0, 64}, {0, 4, 56, 72}},  // overlap
      {{0, 4, 0, 64}, {0, 4, 64, 72}},  // beyond
      {{0, 4, 0, 60}, {0, 4, 60, 68}},  // not at a byte
      {{0, 4, 0, 128}, {0, 0, 0, 0}},   // a rank without neurons
  };
  for (const auto& pools : wrong) {
    const TraceHeader header = fixture_header(4, 128, pools);
    CHECK_THROWS_AS(create_shard(folder / "t.h5", header, 0), Error);
  }
  CHECK(fs::is_empty(folder.path()));
}

// A shard whose datasets have `extent` steps and nothing in them.
void hollow_shard(const std::string& path, uint64_t step_count, uint64_t extent) {
  const TraceHeader header = three_ranks();
  const auto file = create_hdf5(path);
  write_header(*file, header, kShardKind);
  file->write_number<uint32_t>("rank", 0);
  file->write_number<uint8_t>("finished", 1);
  file->write_number<uint64_t>("step_count", step_count);
  const uint64_t blocks = (extent + kBlockSteps - 1) / kBlockSteps;
  file->create({dataset::kActive, Element::u64, {blocks, 5, 64}, {1, 5, 64}, true});
  NeuronOrder order(5 * 64);
  for (uint32_t place = 0; place < order.size(); ++place) order[place] = place % 64;
  write_order(*create_order(*file, header.pools[0]), header.pools[0], order);
  file->create({dataset::kPopcounts, Element::u32, {extent, 5}, {8, 5}});
  for (const Column& column : kStepColumns)
    file->create({column.name, column.element, {extent}, {8}});
  for (const Column& column : kTimeColumns)
    file->create({column.name, column.element, {extent}, {8}});
  for (const Column& column : kTaskColumns)
    file->create({column.name, column.element, {extent}, {8}});
  file->create({dataset::kGenerated, Element::i32, {extent}, {8}});
  file->close();
}

TEST_CASE("numbers that a small file cannot back take no memory") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const uint64_t huge = uint64_t{1} << 60;
  write_fixture(path, three_ranks(), 20);
  hollow_shard(shard_path(path, 0), huge, huge);
  CHECK_THAT(open_error(path), Contains("t.rank0000.h5") && Contains("1152921504606846976 steps"));
  hollow_shard(shard_path(path, 0), 20, huge);
  CHECK_THAT(open_error(path), Contains("t.rank0000.h5") && Contains("20 steps in dataset"));
  // The extents agree, but HDF5 reads what was never written as zeros.
  hollow_shard(shard_path(path, 0), 20, 20);
  CHECK_THAT(open_error(path), Contains("t.rank0000.h5"));
  CHECK(bad_count(check_trace(path)) == 2);
}

// A block of a fixture's shard as it is stored: all layers of so small a pool share a chunk.
std::string stored_chunk(const NeuronPool& pool, uint64_t block) {
  std::vector<uint64_t> rows, first_rows;
  for (uint64_t step = 0; step < kBlockSteps; ++step) {
    const auto words = fixture_words(pool, block * kBlockSteps + step);
    rows.insert(rows.end(), words.begin(), words.end());
    const auto first = fixture_words(pool, step);
    first_rows.insert(first_rows.end(), first.begin(), first.end());
  }
  const NeuronOrder order = order_by_activity(pool, first_rows, kBlockSteps);
  std::vector<uint64_t> words(pool.total());
  for (uint64_t place = 0; place < words.size(); ++place) {
    const uint64_t layer = place / pool.neuron_count;
    for (uint64_t step = 0; step < kBlockSteps; ++step) {
      const std::span<const uint64_t> row =
          std::span(rows).subspan(step * pool.words_per_step() + layer * pool.words_per_layer());
      words[place] |= uint64_t{ActiveSet{row}.contains(order[place])} << step;
    }
  }
  WordDeflater deflater;
  const auto stored = deflater.deflate(words);
  return {reinterpret_cast<const char*>(stored.data()), stored.size()};
}

TEST_CASE("a changed bit is found") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 150);
  std::string bytes = read_file(shard_path(path, 1));
  const std::string chunk = stored_chunk(three_ranks().pools[1], 1);
  const size_t at = bytes.find(chunk);
  REQUIRE(at != std::string::npos);
  bytes[at + chunk.size() / 2] = static_cast<char>(bytes[at + chunk.size() / 2] ^ 4);
  write_file(shard_path(path, 1), bytes);

  const auto reader = open_trace(path);
  StepBlock block;
  CHECK_THAT(error_of([&] { reader->read(three_ranks().pools[1], 0, 150, block); }),
             Contains("t.rank0001.h5") && Contains("steps 64 to 127, layers 0 to 4"));
  reader->read(three_ranks().pools[1], 0, 64, block);
  reader->read(three_ranks().pools[0], 0, 150, block);
  const auto reports = check_trace(path);
  CHECK(bad_count(reports) == 2);
  CHECK_THAT(reports[1].line, Contains("good to step 64 of 150"));
}

TEST_CASE("bits that do not add up to their popcounts are an Error that names step and layer") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 70);
  // The popcounts of the first steps, as they lie in the file.
  std::string bytes = read_file(shard_path(path, 2));
  const NeuronPool pool = three_ranks().pools[2];
  std::string counts;
  for (uint64_t step = 0; step < 4; ++step) {
    const auto words = fixture_words(pool, step);
    for (uint32_t layer = 0; layer < 5; ++layer) {
      const uint32_t count = ActiveStep{&pool, words}.layer(layer).count();
      counts.append(reinterpret_cast<const char*>(&count), sizeof count);
    }
  }
  const size_t at = bytes.find(counts);
  REQUIRE(at != std::string::npos);
  bytes[at + 4 * (3 * 5 + 2)] ^= 1;  // step 3, layer 2
  write_file(shard_path(path, 2), bytes);
  StepBlock block;
  CHECK_THAT(error_of([&] { open_trace(path)->read(pool, 0, 70, block); }),
             Contains("t.rank0002.h5") && Contains("step 3, layer 2"));
  CHECK_THAT(check_trace(path)[2].line, Contains("good to step 3 of 70"));
}

TEST_CASE("an order that names a neuron twice, or one of another rank, is refused") {
  const TempDir folder;
  const NeuronPool pool = three_ranks().pools[1];  // neurons 64 to 119
  const uint32_t wrong = GENERATE(5, 56, 1u << 31);
  {
    NeuronOrder order(5 * 56);
    for (uint32_t place = 0; place < order.size(); ++place) order[place] = place % 56;
    order[62] = wrong;  // at place 6 of layer 1
    const auto file = create_hdf5(folder / "order.h5");
    write_order(*create_order(*file, pool), pool, order);
    file->close();
  }
  CHECK_THAT(error_of([&] { read_places(*open_hdf5(folder / "order.h5"), pool); }),
             Contains("each neuron of layer 1 at one place") && Contains("at place 6"));
}

}  // namespace
}  // namespace thermocline::test
