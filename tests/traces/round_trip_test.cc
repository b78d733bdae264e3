// What was appended is what is read, for any split of the model over ranks.
#include <catch2/catch.hpp>
#include <filesystem>
#include <random>
#include <thread>

#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/profile.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

void check_block(const TraceReader& reader, const NeuronPool& pool, uint64_t begin,
                 uint64_t count) {
  StepBlock block;
  reader.read(pool, begin, count, block);
  REQUIRE(block.pool == pool);
  REQUIRE(block.step_begin == begin);
  REQUIRE(block.step_count == count);
  for (uint64_t i = 0; i < count; ++i) {
    const auto words = block.step(i).words;
    REQUIRE(std::vector<uint64_t>(words.begin(), words.end()) == fixture_words(pool, begin + i));
  }
}

void check_fixture(const TraceReader& reader, const TraceHeader& header, uint64_t step_count) {
  REQUIRE(reader.step_count() == step_count);
  CHECK(reader.header().shape == header.shape);
  CHECK(reader.header().pools == header.pools);
  CHECK(reader.header().config_json == header.config_json);
  CHECK(reader.header().ffn_types == header.ffn_types);
  for (const NeuronPool& pool : header.pools) check_block(reader, pool, 0, step_count);
  check_block(reader, whole_model(header), 0, step_count);
  const auto steps = reader.steps();
  const auto counts = reader.popcounts(0, step_count);
  const NeuronPool whole = whole_model(header);
  for (uint64_t step = 0; step < step_count; ++step) {
    CHECK(steps[step] == fixture_step(step));
    const auto words = fixture_words(whole, step);
    const ActiveStep active{&whole, words};
    for (uint32_t layer = 0; layer < whole.layer_count; ++layer) {
      CHECK(counts[step * whole.layer_count + layer] == active.layer(layer).count());
    }
  }
  for (uint32_t rank = 0; rank < header.pools.size(); ++rank) {
    const auto times = reader.times(rank);
    REQUIRE(times.size() == step_count);
    for (uint64_t step = 0; step < step_count; ++step) {
      CHECK(times[step] == fixture_times(step, rank));
    }
  }
}

TEST_CASE("a trace holds what was appended") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  // Before, at and after the border of a block; more than a column's chunk.
  const uint64_t steps = GENERATE(0, 1, 9, 63, 64, 65, 128, 530);
  const TraceHeader header = GENERATE(three_ranks(), two_stages());
  write_fixture(path, header, steps);
  const auto reader = open_trace(path);
  CHECK(reader->finished());
  CHECK(reader->missing().empty());
  check_fixture(*reader, header, steps);
  REQUIRE(reader->tasks().size() == steps / 10);
  for (uint32_t i = 0; i < reader->tasks().size(); ++i) {
    CHECK(reader->tasks()[i] == fixture_task(i));
  }
  CHECK(!std::filesystem::exists(partial_path(path, 0)));
}

TEST_CASE("any rectangle of neurons can be read, whichever shards hold it") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = GENERATE(three_ranks(), two_stages());
  write_fixture(path, header, 40);
  const auto reader = open_trace(path);
  std::mt19937 random(1);
  const ModelShape& shape = header.shape;
  for (int i = 0; i < 200; ++i) {
    NeuronPool pool;
    pool.layer_begin = random() % shape.layer_count;
    pool.layer_count = 1 + random() % (shape.layer_count - pool.layer_begin);
    pool.neuron_begin = random() % (shape.ffn_dim / 8) * 8;
    pool.neuron_count = 1 + random() % (shape.ffn_dim - pool.neuron_begin);
    const uint64_t begin = random() % 40;
    check_block(*reader, pool, begin, random() % (41 - begin));
  }
}

// Cuts the model into stages of layers, and each stage into ranks of neurons, at random.
std::vector<NeuronPool> random_tiling(std::mt19937& random, uint32_t layers, uint32_t ffn_dim) {
  std::vector<NeuronPool> pools;
  for (uint32_t layer = 0; layer < layers;) {
    const uint32_t layer_count = 1 + random() % (layers - layer);
    for (uint32_t neuron = 0; neuron < ffn_dim;) {
      const uint32_t count = std::min<uint32_t>(8 * (1 + random() % 12), ffn_dim - neuron);
      pools.push_back({layer, layer_count, neuron, count});
      neuron += count;
    }
    layer += layer_count;
  }
  return pools;
}

TEST_CASE("the content of a trace, and its hash, are the same for every tiling") {
  const TempDir folder;
  std::mt19937 random(2);
  const std::string one_rank = folder / "one.h5";
  write_fixture(one_rank, fixture_header(6, 156, {{0, 6, 0, 156}}), 30);
  const std::string hash = open_trace(one_rank)->hash();
  CHECK(hash.size() == 16);
  for (int i = 0; i < 8; ++i) {
    const TraceHeader header = fixture_header(6, 156, random_tiling(random, 6, 156));
    const std::string path = folder / ("t" + std::to_string(i) + ".h5");
    write_fixture(path, header, 30);
    const auto reader = open_trace(path);
    check_fixture(*reader, header, 30);
    CHECK(reader->hash() == hash);
  }
  write_fixture(one_rank, fixture_header(6, 156, {{0, 6, 0, 156}}), 29);
  CHECK(open_trace(one_rank)->hash() != hash);
}

TEST_CASE("ranks that are threads of one process write their shards at the same time") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = three_ranks();
  std::vector<std::thread> ranks;
  for (uint32_t rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&, rank] {
      const auto writer = create_shard(path, header, rank);
      append_fixture(*writer, header, rank, 300);
      writer->finish();
    });
  }
  for (std::thread& rank : ranks) rank.join();
  write_master(path);
  check_fixture(*open_trace(path), header, 300);
}

TEST_CASE("a profile counts firings over a range of steps") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = three_ranks();
  write_fixture(path, header, 200);
  const NeuronPool& pool = header.pools[1];
  // More steps than a BitCounter's planes hold.
  const ActivationProfile profile = profile_of(*open_trace(path), pool, 13, 170);
  CHECK(profile.step_count == 170);
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    for (uint32_t i = 0; i < pool.neuron_count; ++i) {
      uint32_t expected = 0;
      for (uint64_t step = 13; step < 183; ++step) {
        expected += fixture_bit(step, layer, pool.neuron_begin + i);
      }
      CHECK(profile.counts[layer * pool.neuron_count + i] == expected);
    }
  }
}

}  // namespace
}  // namespace thermocline::test
