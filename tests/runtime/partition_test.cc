// Who owns what: every layer, head, neuron and row once, on borders that traces and types allow.
#include <catch2/catch.hpp>

#include "models/error.h"
#include "runtime/partition.h"

namespace thermocline::test {
namespace {

ModelShape stories() {
  return {.layer_count = 5,
          .model_dim = 64,
          .ffn_dim = 172,
          .head_count = 8,
          .kv_head_count = 4,
          .head_dim = 8,
          .vocab_size = 512,
          .context_length = 512};
}

Partition partition_of(const ModelShape& shape, DType dtype, const std::string& layout,
                       uint32_t ranks, const std::string& weights = "") {
  return make_partition(shape, dtype, parse_layout(layout, ranks),
                        parse_rank_weights(weights, ranks));
}

std::vector<uint32_t> counts(const std::vector<Range>& ranges) {
  std::vector<uint32_t> counts;
  for (const Range& range : ranges) counts.push_back(range.count);
  return counts;
}

TEST_CASE("units go by largest remainder, at least one each") {
  using Counts = std::vector<uint32_t>;
  CHECK(counts(split_units(4, {1, 1, 1})) == Counts{2, 1, 1});
  CHECK(counts(split_units(5, {1, 1, 1, 1})) == Counts{2, 1, 1, 1});
  CHECK(counts(split_units(8, {2, 1, 1})) == Counts{4, 2, 2});
  CHECK(counts(split_units(3, {100, 1, 1})) == Counts{1, 1, 1});
  CHECK(counts(split_units(10, {100, 1, 1})) == Counts{8, 1, 1});
  CHECK(counts(split_units(1000, {1, 2, 3, 4})) == Counts{100, 200, 300, 400});
}

void check_cover(const std::vector<Range>& ranges, uint32_t total, uint32_t unit) {
  uint32_t next = 0;
  for (const Range& range : ranges) {
    CHECK(range.begin == next);
    CHECK(range.begin % unit == 0);
    CHECK(range.count > 0);
    next = range.end();
  }
  CHECK(next == total);
}

TEST_CASE("every layout covers the model once") {
  struct Case {
    std::string layout;
    uint32_t ranks;
    std::string weights;
  };
  const Case one =
      GENERATE(Case{"tp1", 1, ""}, Case{"tp3", 3, ""}, Case{"pp3", 3, ""}, Case{"pp2,tp2", 4, ""},
               Case{"tp4", 4, "4,1,1,1"}, Case{"pp2,tp3", 6, "1,1,1,3,1,1"});
  const ModelShape shape = stories();
  const Partition partition = partition_of(shape, DType::f32, one.layout, one.ranks, one.weights);
  std::vector<Range> layers;
  for (uint32_t stage = 0; stage < partition.layout.pipeline; ++stage) {
    std::vector<Range> heads, neurons, vocab;
    for (const RankShare& share : partition.ranks) {
      if (share.stage != stage) continue;
      heads.push_back(share.kv_heads);
      neurons.push_back(share.neurons);
      vocab.push_back(share.vocab);
    }
    INFO(one.layout << " stage " << stage);
    check_cover(heads, shape.kv_head_count, 1);
    check_cover(neurons, shape.ffn_dim, 8);
    check_cover(vocab, shape.vocab_size, 1);
    layers.push_back(partition.ranks[stage * partition.layout.tensor].layers);
  }
  check_cover(layers, shape.layer_count, 1);
}

TEST_CASE("three ranks share four kv heads and 172 neurons") {
  const Partition partition = partition_of(stories(), DType::f32, "tp3", 3);
  std::vector<Range> heads, neurons;
  for (const RankShare& share : partition.ranks) {
    heads.push_back(share.kv_heads);
    neurons.push_back(share.neurons);
  }
  CHECK(counts(heads) == std::vector<uint32_t>{2, 1, 1});
  CHECK(counts(neurons) == std::vector<uint32_t>{64, 56, 52});
}

TEST_CASE("columns of a block type are cut at block borders") {
  // A kv head has 2 * 8 = 16 columns of the output projection: two of them make a block of 32.
  const Partition partition = partition_of(stories(), DType::q4_0, "tp2", 2);
  for (const RankShare& share : partition.ranks) CHECK(share.kv_heads.count == 2);
  CHECK_THROWS_WITH(partition_of(stories(), DType::q4_0, "tp3", 3),
                    Catch::Contains("q4_0") &&
                        Catch::Contains("layout pp1,tp3 needs 3 groups of 2 kv heads") &&
                        Catch::Contains("the model has 2"));
}

TEST_CASE("large models are cut at whole words of 64 neurons") {
  ModelShape shape = stories();
  shape.ffn_dim = 28672;
  const Partition partition = partition_of(shape, DType::f32, "tp3", 3);
  for (const RankShare& share : partition.ranks) CHECK(share.neurons.begin % 64 == 0);
}

TEST_CASE("the default is as much tensor parallelism as the heads allow") {
  const auto text = [](uint32_t ranks) {
    return default_layout(stories(), DType::f32, ranks).text();
  };
  CHECK(text(1) == "pp1,tp1");
  CHECK(text(3) == "pp1,tp3");
  CHECK(text(4) == "pp1,tp4");
  CHECK(text(6) == "pp2,tp3");
  CHECK(text(5) == "pp5,tp1");
  CHECK(text(20) == "pp5,tp4");
  CHECK_THROWS_WITH(text(7), Catch::Contains("pp <= 5") && Catch::Contains("tp <= 4"));
  CHECK_THROWS_WITH(text(64), Catch::Contains("64 ranks"));
}

TEST_CASE("layouts and weights that are none are refused") {
  for (const char* bad : {"", "tp", "tp0", "tp-1", "xx2", "tp2,tp2", "pp2;tp2", "tp2,", "tp9999999",
                          "tp 2", "pp65536,tp65537"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_layout(bad, 2), Error);
  }
  CHECK(parse_layout("tp2", 2) == Layout{1, 2});
  CHECK(parse_layout("tp2,pp3", 6) == Layout{3, 2});
  CHECK_THROWS_WITH(parse_layout("tp3", 2), Catch::Contains("of 3 ranks, the job has 2"));
  for (const char* bad : {"1", "1,2,3", "1,-1", "0,1", "1,x", "nan,1", ","}) {
    INFO(bad);
    CHECK_THROWS_AS(parse_rank_weights(bad, 2), Error);
  }
  CHECK_THROWS_WITH(partition_of(stories(), DType::f32, "tp5", 5), Catch::Contains("tp <="));
  CHECK_THROWS_WITH(partition_of(stories(), DType::f32, "pp6", 6), Catch::Contains("pp <="));
}

}  // namespace
}  // namespace thermocline::test
