// What the caches are made of.
#include <list>

#include "sim/policies/parts/neuron_lists.h"
#include "sim/policies/parts/neuron_logs.h"
#include "sim/policies/parts/neuron_ring.h"
#include "sim/policies/parts/next_uses.h"
#include "sim/policies/parts/rotating_cursor.h"
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

TEST_CASE("neuron lists do as std::list does") {
  Lcg random(3);
  constexpr uint32_t kNeurons = 40, kLists = 4;
  NeuronLists lists(kNeurons, kLists - 1);
  lists.add_list();
  REQUIRE(lists.list_count() == kLists);
  std::vector<std::list<uint32_t>> expected(kLists);
  const auto list_of = [&](uint32_t neuron) {
    for (uint32_t list = 0; list < kLists; ++list) {
      const auto& of_list = expected[list];
      if (std::find(of_list.begin(), of_list.end(), neuron) != of_list.end()) return list;
    }
    return kLists;
  };
  for (int i = 0; i < 20000; ++i) {
    const uint32_t neuron = random.below(kNeurons), to = random.below(kLists);
    const uint32_t from = list_of(neuron);
    if (from != kLists) {
      lists.remove(neuron);
      expected[from].remove(neuron);
    }
    if (random.below(4) != 0) {
      lists.push_back(to, neuron);
      expected[to].push_back(neuron);
    }
    if (random.below(20) == 0) {
      const uint32_t source = (to + 1) % kLists;
      lists.append(to, source);
      expected[to].splice(expected[to].end(), expected[source]);
    }
    for (uint32_t list = 0; list < kLists; ++list) {
      REQUIRE(lists.empty(list) == expected[list].empty());
      if (!expected[list].empty()) REQUIRE(lists.front(list) == expected[list].front());
    }
    if (i % 50 == 0 && !expected[to].empty()) {
      REQUIRE(lists.pop_front(to) == expected[to].front());
      expected[to].pop_front();
    }
  }
}

TEST_CASE("neuron logs do as std::list does, also where neurons move all the time") {
  Lcg random(4);
  constexpr uint32_t kNeurons = 300, kLogs = 3;
  NeuronLogs logs(kNeurons, kLogs);
  std::vector<std::list<uint32_t>> expected(kLogs);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t neuron = random.below(kNeurons), to = random.below(kLogs);
    for (auto& of_log : expected) of_log.remove(neuron);
    if (random.below(5) == 0) {
      logs.remove(neuron);
    } else {
      logs.push_back(to, neuron);
      expected[to].push_back(neuron);
    }
    for (uint32_t log = 0; log < kLogs; ++log) {
      REQUIRE(logs.empty(log) == expected[log].empty());
      if (!expected[log].empty()) REQUIRE(logs.front(log) == expected[log].front());
    }
    if (random.below(10) == 0 && !expected[to].empty()) {
      REQUIRE(logs.pop_front(to) == expected[to].front());
      expected[to].pop_front();
    }
  }
}

TEST_CASE("a neuron ring is a queue, round and round") {
  for (const uint64_t size_max : {0u, 1u, 5u, 8u}) {
    NeuronRing ring(size_max);
    uint32_t next_in = 0, next_out = 0;
    for (int round = 0; round < 50; ++round) {
      while (ring.size() < size_max) ring.push_back(next_in++);
      for (uint64_t i = 0; i < (size_max + 1) / 2; ++i) {
        REQUIRE(ring.front() == next_out);
        REQUIRE(ring.pop_front() == next_out++);
      }
    }
    while (!ring.empty()) REQUIRE(ring.pop_front() == next_out++);
    CHECK(next_in == next_out);
  }
}

TEST_CASE("a rotating cursor serves all alike, whatever it takes at a time") {
  const std::vector<uint64_t> words = {0xf0f0, 0, ~uint64_t{0}, 1, uint64_t{1} << 63};
  for (const uint64_t at_a_time : {1u, 3u, 10u, 73u}) {
    RotatingCursor cursor;
    std::vector<uint64_t> taken(64 * words.size());
    for (uint64_t round = 0; round < 74; ++round) {  // there are 74 bits
      uint64_t left = at_a_time;
      cursor.go(
          words.size(), [&](uint64_t w) { return words[w]; },
          [&](uint32_t place) {
            if (left == 0) return false;
            ++taken[place];
            --left;
            return true;
          });
    }
    for (uint32_t place = 0; place < taken.size(); ++place) {
      REQUIRE(taken[place] == (words[place / 64] >> (place % 64) & 1) * at_a_time);
    }
  }
}

TEST_CASE("a rotating cursor offers each neuron once where all are taken") {
  RotatingCursor cursor;
  for (int round = 0; round < 5; ++round) {
    std::vector<uint32_t> offered;
    cursor.go(
        2, [](uint64_t w) { return w == 0 ? 0x105ull : 0x2ull; },
        [&](uint32_t place) { return offered.push_back(place), offered.size() < 4 + 1; });
    std::sort(offered.begin(), offered.end());
    CHECK(offered == std::vector<uint32_t>{0, 2, 8, 65});
    cursor.go(
        2, [](uint64_t) { return 4ull; }, [&](uint32_t) { return round % 2 == 0; });
  }
}

TEST_CASE("rows of uses are the steps of the trace") {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Lcg random(seed);
    const NeuronPool pool = random_pool(random);
    const PoolSteps steps = random_steps(random, pool, 1 + random.below(200), 30);
    const FutureUses uses = future_uses_of(steps);
    UseRows rows;
    rows.start(uses);
    for (uint64_t i = 0; i < steps.step_count; ++i) {
      const auto row = rows.row(i), expected = steps.step(i).words;
      REQUIRE(std::equal(row.begin(), row.end(), expected.begin(), expected.end()));
    }
    for (const uint64_t beyond : {steps.step_count, steps.step_count + 64}) {
      const auto row = rows.row(beyond);
      REQUIRE(std::count(row.begin(), row.end(), 0u) == static_cast<ptrdiff_t>(row.size()));
    }
  }
}

TEST_CASE("the farthest use is found as a search finds it") {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Lcg random(seed);
    const uint32_t count = 1 + random.below(600);
    FarthestUse residents;
    residents.start(count);
    std::map<uint32_t, uint32_t> next;  // of residents
    for (int i = 0; i < 2000; ++i) {
      const uint32_t flat = random.below(count);
      const auto found = next.find(flat);
      if (found != next.end() && found->second == FutureUses::kNever) continue;
      const uint32_t from = found == next.end() ? random.below(50) : found->second;
      next[flat] = random.below(20) == 0 ? FutureUses::kNever : from + random.below(9);
      residents.set(flat, next[flat]);
      const auto farther = [](const auto& a, const auto& b) {
        return a.second != b.second ? a.second < b.second : a.first < b.first;
      };
      const auto farthest = std::max_element(next.begin(), next.end(), farther);
      REQUIRE(residents.farthest() == farthest->first);
      REQUIRE(residents.next_of(farthest->first) == farthest->second);
      if (random.below(3) == 0) {
        residents.remove(farthest->first);
        next.erase(farthest);
        if (next.empty()) residents.set(0, next[0] = 0);
      }
    }
  }
}
