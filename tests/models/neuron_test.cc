// The bit layout that recorder, trace, replay and live runtime share.
#include "models/neuron.h"

#include <catch2/catch.hpp>
#include <random>
#include <set>

namespace thermocline::test {
namespace {

// Widths at and around the word border; 100 leaves spare bits in the last word.
constexpr uint32_t kWidths[] = {1, 8, 63, 64, 65, 100, 128};

NeuronPool pool_of(uint32_t layer_count, uint32_t neuron_count) {
  return {.layer_begin = 3,
          .layer_count = layer_count,
          .neuron_begin = 8,
          .neuron_count = neuron_count};
}

std::vector<uint32_t> bits_of(const NeuronPool& pool, std::span<const uint64_t> words) {
  std::vector<uint32_t> found;
  for_each_bit(pool, words, [&found](uint32_t flat) { found.push_back(flat); });
  return found;
}

TEST_CASE("a pool knows its sizes") {
  const NeuronPool pool = pool_of(3, 100);
  CHECK(pool.total() == 300);
  CHECK(pool.words_per_layer() == 2);
  CHECK(pool.bytes_per_layer() == 13);
  CHECK(pool.words_per_step() == 6);
  const NeuronPool whole = {0, 80, 0, 28672};
  CHECK(whole.total() == 2'293'760);
  CHECK(whole.words_per_step() * 8 == 280 * 1024);  // one bit a neuron: 280 KiB a token
  CHECK(NeuronPool{}.total() == 0);
  CHECK(NeuronPool{}.words_per_step() == 0);
}

TEST_CASE("neuron i of a layer is bit i%64 of word i/64, and layers follow one another") {
  const NeuronPool pool = pool_of(2, 100);
  HotSet set(pool);
  REQUIRE(set.insert(0));
  REQUIRE(set.insert(65));
  REQUIRE(set.insert(100 + 99));  // the last neuron of the second layer
  CHECK(set.words()[0] == 1);
  CHECK(set.words()[1] == 2);
  CHECK(set.words()[2] == 0);
  CHECK(set.words()[3] == uint64_t{1} << (99 - 64));

  const ActiveStep step{&pool, set.words()};
  CHECK(step.layer(0).count() == 2);
  CHECK(step.layer(0).contains(65));
  CHECK_FALSE(step.layer(0).contains(99));
  CHECK(step.layer(1).count() == 1);
  CHECK(step.layer(1).contains(99));
}

TEST_CASE("insert and erase tell whether the set changed") {
  HotSet set(pool_of(1, 8));
  CHECK(set.insert(5));
  CHECK_FALSE(set.insert(5));
  CHECK(set.count() == 1);
  CHECK(set.erase(5));
  CHECK_FALSE(set.erase(5));
  CHECK(set.count() == 0);
  CHECK(set.words()[0] == 0);
}

TEST_CASE("a HotSet agrees with a std::set under random moves, for every width") {
  std::mt19937 generator(7);
  for (const uint32_t width : kWidths) {
    const NeuronPool pool = pool_of(3, width);
    HotSet hot(pool);
    std::set<uint32_t> expected;
    for (int move = 0; move < 500; ++move) {
      const auto flat = static_cast<uint32_t>(generator() % pool.total());
      const bool admit = generator() % 2 == 0;
      const bool changed = admit ? expected.insert(flat).second : expected.erase(flat) == 1;
      CHECK((admit ? hot.insert(flat) : hot.erase(flat)) == changed);
    }
    INFO("width " << width);
    CHECK(hot.count() == expected.size());
    CHECK(bits_of(pool, hot.words()) == std::vector<uint32_t>(expected.begin(), expected.end()));
    for (uint32_t flat = 0; flat < pool.total(); ++flat) {
      CHECK(hot.contains(flat) == expected.contains(flat));
    }
  }
}

TEST_CASE("a full set visits every neuron once, in order, and leaves spare bits zero") {
  for (const uint32_t width : kWidths) {
    const NeuronPool pool = pool_of(2, width);
    HotSet set(pool);
    for (uint32_t flat = 0; flat < pool.total(); ++flat) set.insert(flat);
    const std::vector<uint32_t> visited = bits_of(pool, set.words());
    INFO("width " << width);
    REQUIRE(visited.size() == pool.total());
    for (uint32_t flat = 0; flat < pool.total(); ++flat) CHECK(visited[flat] == flat);
    const ActiveStep step{&pool, set.words()};
    CHECK(step.layer(0).count() == width);
    CHECK(step.layer(1).count() == width);
  }
}

TEST_CASE("a profile counts firings by flat index") {
  const NeuronPool pool = pool_of(2, 100);
  ActivationProfile profile(pool);
  REQUIRE(profile.counts.size() == 200);
  HotSet first(pool), second(pool);
  first.insert(3);
  first.insert(164);
  second.insert(164);
  profile.add({&pool, first.words()});
  profile.add({&pool, second.words()});
  CHECK(profile.step_count == 2);
  CHECK(profile.counts[3] == 1);
  CHECK(profile.counts[164] == 2);
  uint64_t total = 0;
  for (const uint32_t count : profile.counts) total += count;
  CHECK(total == 3);
}

TEST_CASE("neuron ids and pools compare by value") {
  CHECK(NeuronId{1, 2} == NeuronId{1, 2});
  CHECK_FALSE(NeuronId{1, 2} == NeuronId{2, 1});
  CHECK(pool_of(1, 8) == pool_of(1, 8));
  CHECK_FALSE(pool_of(1, 8) == pool_of(1, 16));
}

}  // namespace
}  // namespace thermocline::test
