// Bytes per link: what an engine's ranks sent each other, held to what their layout says.
#include <catch2/catch.hpp>

#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"

namespace thermocline::test {
namespace {

constexpr uint32_t kChunk = 90;  // rows of kDim floats: more than one exchange of whole vectors
constexpr uint32_t kDim = 192, kLayers = 4, kVocab = 80, kTasks = 2, kForced = 20;
constexpr uint32_t kPrompt = 2 * kChunk + 30;  // three chunks, which three stages work on at once
constexpr uint64_t kBallotBytes = 20;          // of one task's next token, from one rank

ModelShape small_shape() {
  return {.layer_count = kLayers,
          .model_dim = kDim,
          .ffn_dim = 96,
          .head_count = 6,
          .kv_head_count = 3,
          .head_dim = 32,
          .vocab_size = kVocab,
          .context_length = 256,
          .activation = FfnActivation::relu};
}

using Table = std::vector<std::vector<uint64_t>>;  // bytes by rank that sent, rank that received

Table operator+(Table a, const Table& b) {
  for (size_t from = 0; from < a.size(); ++from) {
    for (size_t to = 0; to < a.size(); ++to) a[from][to] += b[from][to];
  }
  return a;
}

// A sum over `count` floats, to each of the ranks that share it: whole vectors up to 16384, else
// slices, once to whoever adds them and once added.
uint64_t sum_bytes(uint64_t count, uint64_t ranks) {
  return count <= 16384 ? 4 * count : 2 * 4 * ((count + ranks - 1) / ranks);
}

// A pass of so many rows, of which so many want a token: a sum behind the embedding and behind each
// sublayer, the residual from stage to stage, sampled tokens' logits, the ballot.
Table pass_bytes(const Partition& partition, uint64_t rows, uint64_t voters, bool sampled) {
  const uint32_t tensor = partition.layout.tensor;
  const size_t size = partition.ranks.size();
  Table table(size, std::vector<uint64_t>(size));
  for (size_t from = 0; from < size; ++from) {
    const RankShare& share = partition.ranks[from];
    const uint64_t sums = 2 * share.layers.count + (share.stage == 0 ? 1 : 0);
    for (size_t to = 0; to < size; ++to) {
      if (to == from) continue;
      uint64_t& bytes = table[from][to];
      bytes += voters * kBallotBytes;
      if (partition.ranks[to].stage == share.stage) bytes += sums * sum_bytes(rows * kDim, tensor);
      if (to == from + tensor) bytes += 1 + 4 * rows * kDim;
      const bool last = partition.last_stage(static_cast<uint32_t>(from));
      if (sampled && last && to == 0) bytes += 4 * voters * share.vocab.count;
    }
  }
  return table;
}

TEST_CASE("links carry what the layout says, in decode steps and in the whole run") {
  const std::string layout = GENERATE("pp1,tp1", "pp1,tp3", "pp2,tp1", "pp2,tp2", "pp3,tp1");
  const bool sampled = GENERATE(false, true);
  INFO(layout << (sampled ? ", sampled" : ", greedy"));
  const RandomWeights source(small_shape());
  LocalRunOptions options;
  options.layout = layout;
  options.chunk_max = kChunk;
  options.logits = false;
  options.batch = kTasks;
  if (sampled) options.sampling.temperature = 0.8;
  for (uint32_t i = 0; i < kTasks; ++i) {
    options.tasks.push_back({i, static_cast<int32_t>(i), std::vector<int32_t>(kPrompt, 5),
                             std::vector<int32_t>(kForced, 6), 0, 0});
  }
  const LocalRunResult result = run_locally(source, options);
  const Partition& partition = result.partition;

  const auto pass = [&](uint64_t rows, uint64_t voters) {
    return pass_bytes(partition, rows, voters, sampled);
  };
  const size_t size = partition.ranks.size();
  Table decode(size, std::vector<uint64_t>(size));
  for (uint32_t i = 0; i < kForced; ++i) decode = decode + pass(kTasks, kTasks);
  // All stages meet every `pipeline` chunks, and behind the last one.
  const uint32_t pipeline = partition.layout.pipeline;
  Table run = decode;
  for (uint32_t i = 0; i < kTasks; ++i) {
    run = run + pass(kChunk, 1 % pipeline == 0) + pass(kChunk, 2 % pipeline == 0) + pass(30, 1);
  }
  for (size_t from = 0; from < size; ++from) {
    for (size_t to = 0; to < size; ++to) run[from][to] += from == to ? 0 : 4;  // no rank failed
  }
  for (size_t from = 0; from < size; ++from) {
    INFO("from rank " << from);
    CHECK(result.sent[from].decode == decode[from]);
    CHECK(result.sent[from].run == run[from]);
  }
}

}  // namespace
}  // namespace thermocline::test
