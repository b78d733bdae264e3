// The parts that policies share, against loops over single neurons.
#include <catch2/catch.hpp>
#include <type_traits>

#include "sim/policies/parts/dense_scores.h"
#include "sim/policies/parts/weakest_hot.h"
#include "tests/policies/tiny_traces.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

constexpr size_t kWords = 7;

template <class Score>
struct Made {
  std::vector<Score> scores;
  std::vector<uint64_t> active;

  explicit Made(Lcg& random, size_t words = kWords) : scores(64 * words), active(words) {
    const uint32_t above = std::numeric_limits<Score>::max() + 1u;
    for (Score& score : scores) score = static_cast<Score>(random.below(above));
    for (uint64_t& word : active) word = uint64_t{random.next()} << 32 | random.next();
    active[0] = 0;
    active[1] = ~uint64_t{0};
  }
  bool on(size_t i) const { return active[i / 64] >> (i % 64) & 1; }
};

// What `change(score, active) -> integer`, cut to a Score, gives for every score.
template <class Score, class Change>
std::vector<Score> changed(const Made<Score>& made, Change change) {
  std::vector<Score> scores;
  for (size_t i = 0; i < made.scores.size(); ++i) {
    const int64_t most = std::numeric_limits<Score>::max();
    const int64_t value = change(int64_t{made.scores[i]}, made.on(i));
    scores.push_back(static_cast<Score>(std::clamp<int64_t>(value, 0, most)));
  }
  return scores;
}

template <class Score>
std::vector<uint64_t> bits_at_least(const std::vector<Score>& scores, Score least) {
  std::vector<uint64_t> bits(kWords);
  for (size_t i = 0; i < scores.size(); ++i) {
    bits[i / 64] |= uint64_t{scores[i] >= least} << (i % 64);
  }
  return bits;
}

template <class Score>
void check_version(const DenseScoreOps<Score>& ops, const Made<Score>& made, Score a, Score b,
                   Score most) {
  const uint64_t* active = made.active.data();
  const int64_t x = a, y = b, bits = std::numeric_limits<Score>::digits;
  auto after = [&](auto operate) {
    std::vector<Score> scores = made.scores;
    operate(scores.data());
    return scores;
  };
  for (uint32_t shift = 0; shift < bits; ++shift) {
    CHECK(after([&](Score* s) { ops.age_add(s, active, kWords, shift, a); }) ==
          changed(made, [&](int64_t score, bool on) { return (score >> shift) + (on ? x : 0); }));
  }
  CHECK(after([&](Score* s) { ops.decay_add(s, active, kWords, b, a); }) ==
        changed(made, [&](int64_t score, bool on) {
          return score - (score * y >> bits) + (on ? x : 0);
        }));
  CHECK(after([&](Score* s) { ops.set(s, active, kWords, a); }) ==
        changed(made, [&](int64_t score, bool on) { return on ? x : score; }));
  CHECK(after([&](Score* s) { ops.subtract(s, kWords, a); }) ==
        changed(made, [&](int64_t score, bool) { return score - x; }));
  CHECK(after([&](Score* s) { ops.up_down(s, active, kWords, a, b, most); }) ==
        changed(made, [&](int64_t score, bool on) {
          return on ? std::min<int64_t>(score + x, most) : score - y;
        }));
  std::vector<uint64_t> found(kWords);
  ops.at_least(made.scores.data(), kWords, a, found.data());
  CHECK(found == bits_at_least(made.scores, a));
}

// The first `wanted` after sorting all; equal ones from word `turn` on, wrapping around.
template <class Score, class Before>
std::vector<uint32_t> sorted_by(const Made<Score>& made, uint64_t wanted, size_t turn,
                                Before before) {
  std::vector<uint32_t> places;
  for (size_t i = 0; i < made.scores.size(); ++i) {
    const size_t place = (i + 64 * turn) % made.scores.size();
    if (made.on(place)) places.push_back(static_cast<uint32_t>(place));
  }
  std::stable_sort(places.begin(), places.end(),
                   [&](uint32_t a, uint32_t b) { return before(made.scores[a], made.scores[b]); });
  if (places.size() > wanted) places.resize(wanted);
  return places;
}

template <class Score>
std::vector<uint32_t> weakest_of(const Made<Score>& made, uint64_t wanted) {
  return sorted_by(made, wanted, 0, [](Score a, Score b) { return a < b; });
}

std::vector<uint32_t> places_of(std::span<const ScoredPlace> items) {
  std::vector<uint32_t> places;
  for (const ScoredPlace& item : items) places.push_back(item.place);
  return places;
}

template <class Score>
std::vector<uint32_t> drained(WeakestHot<Score>& weakest, const std::vector<Score>& scores) {
  std::vector<uint32_t> places;
  while (const ScoredPlace* next = weakest.weakest(scores)) {
    places.push_back(next->place);
    weakest.pop();
  }
  return places;
}

}  // namespace

TEMPLATE_TEST_CASE("dense scores: every version equals a loop over neurons", "", uint8_t,
                   uint16_t) {
  Lcg random(3);
  for (const auto& ops : all_dense_score_ops<TestType>()) {
    INFO(ops.name);
    for (int i = 0; i < 40; ++i) {
      const Made<TestType> made(random);
      const auto draw = [&] { return static_cast<TestType>(random.next() >> random.below(16)); };
      check_version<TestType>(ops, made, draw(), draw(), draw());
      check_version<TestType>(ops, made, i % 2 == 0 ? 0 : std::numeric_limits<TestType>::max(),
                              draw(), std::numeric_limits<TestType>::max());
    }
  }
}

TEST_CASE("places and flat indices convert both ways, in the same order") {
  for (const uint32_t width : {1u, 63u, 64u, 65u, 150u}) {
    const NeuronPool pool{0, 3, 0, width};
    const ScorePlaces places(pool);
    CHECK(places.size() == 64 * pool.words_per_step());
    const HotSet set(pool);
    for (uint32_t flat = 0; flat < pool.total(); ++flat) {
      CHECK(places.place_of(flat) == 64 * set.word_of(flat) + set.bit_of(flat));
      CHECK(places.flat_of(places.place_of(flat)) == flat);
    }
  }
}

TEST_CASE("buckets of scores meet without gaps") {
  for (uint32_t bucket = 0; bucket < ScoreHistogram::kBuckets; ++bucket) {
    const uint64_t first = ScoreHistogram::first_of(bucket);
    const uint64_t last = ScoreHistogram::first_of(bucket + 1) - 1;
    REQUIRE(first <= last);
    REQUIRE(ScoreHistogram::bucket_of(static_cast<uint32_t>(first)) == bucket);
    REQUIRE(ScoreHistogram::bucket_of(static_cast<uint32_t>(last)) == bucket);
  }
  CHECK(ScoreHistogram::first_of(ScoreHistogram::kBuckets) == uint64_t{1} << 32);
  ScoreHistogram histogram;
  for (const uint32_t score : {3u, 3u, 200u, 201u, UINT32_MAX}) histogram.add(score);
  const uint32_t both = ScoreHistogram::bucket_of(200);
  CHECK(histogram.bucket_reaching(2) == std::pair<uint32_t, uint64_t>(3, 0));
  CHECK(histogram.bucket_reaching(3) == std::pair<uint32_t, uint64_t>(both, 2));
  CHECK(histogram.bucket_reaching(9).first == ScoreHistogram::kBuckets - 1);
}

TEMPLATE_TEST_CASE("the weakest hot neurons are those that sorting all finds", "", uint8_t,
                   uint16_t, uint32_t) {
  Lcg random(4);
  WeakestHot<TestType> weakest;
  for (int i = 0; i < 100; ++i) {
    Made<TestType> made(random);
    // Few different scores in every other case, so that ties decide.
    const uint32_t shift = random.below(std::numeric_limits<TestType>::digits);
    if (i % 2 == 0) {
      for (TestType& score : made.scores) score = static_cast<TestType>(score >> shift);
    }
    const auto evictable = [&](size_t w) { return made.active[w]; };
    for (const uint64_t wanted : {uint64_t{0}, uint64_t{1}, uint64_t{random.below(500)}}) {
      weakest.search(made.scores, wanted, evictable);
      CHECK(drained(weakest, made.scores) == weakest_of(made, wanted));
    }
    weakest.search(made.scores, 100, evictable);
    std::vector<uint32_t> expected = weakest_of(made, 100);
    const size_t touched = random.below(static_cast<uint32_t>(expected.size()));
    ++made.scores[expected[touched]];
    expected.erase(expected.begin() + static_cast<ptrdiff_t>(touched));
    CHECK(drained(weakest, made.scores) == expected);
  }
}

// Scores that are spread, lie on few values, are all the same, or lean to one side.
TEMPLATE_TEST_CASE("a selection from many neurons is what sorting all finds", "", uint8_t,
                   uint16_t) {
  Lcg random(5);
  Selection<TestType, Extreme::weakest> weakest;
  Selection<TestType, Extreme::strongest> strongest;
  for (const uint32_t kind : {0u, 1u, 2u, 3u}) {
    Made<TestType> made(random, 4096);
    for (size_t i = 0; i < made.scores.size(); ++i) {
      TestType& score = made.scores[i];
      if (kind == 1) score = static_cast<TestType>(score / 64 * 64);
      if (kind == 2) score = 200;
      if (kind == 3) score = static_cast<TestType>(score >> random.below(8));
    }
    const auto members = [&](size_t w) { return made.active[w]; };
    for (const uint64_t wanted : {uint64_t{1}, uint64_t{700}, uint64_t{60000}, uint64_t{999999}}) {
      INFO("kind " << kind << ", wanted " << wanted);
      const size_t turn = random.below(2) * random.below(4096);
      CHECK(places_of(weakest.search(made.scores, wanted, members, turn)) ==
            sorted_by(made, wanted, turn, [](TestType a, TestType b) { return a < b; }));
      CHECK(places_of(strongest.search(made.scores, wanted, members, turn)) ==
            sorted_by(made, wanted, turn, [](TestType a, TestType b) { return a > b; }));
    }
  }
}
