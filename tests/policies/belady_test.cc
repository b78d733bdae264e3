// belady against every choice that there is, and against the caches that do not know the future.
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// A few neurons and requests, so that every choice can be tried.
struct TinyRequests {
  PoolSteps steps;
  ActivationProfile future;
  FutureUses uses;
  PolicyContext context;

  explicit TinyRequests(uint64_t seed) {
    Lcg random(seed);
    const NeuronPool pool{0, 1 + random.below(2), 0, 1 + random.below(4)};
    steps = random_steps(random, pool, 1 + random.below(14), random.below(5));
    future = steps.profile();
    uses = future_uses_of(steps);
    context = {pool, &future, &future, random.below(5), 0, &uses};
  }

  std::vector<uint32_t> requests() const {
    std::vector<uint32_t> all;
    for (uint64_t i = 0; i < steps.step_count; ++i) {
      for (const uint32_t flat : members(steps, i)) all.push_back(flat);
    }
    return all;
  }
  uint64_t hits(const char* policy) const {
    PolicyDriver driver(parse_policies(policy)[0], context, Fill::demand);
    for (uint64_t i = 0; i < steps.step_count; ++i) driver.step(steps.step(i));
    return driver.stats().hits;
  }
};

// The most hits that any sequence of evictions has: every set of residents that can be reached, and
// its best past.
uint64_t most_hits(const std::vector<uint32_t>& requests, uint64_t capacity, bool bypass) {
  std::map<uint32_t, uint64_t> best = {{0, 0}};  // residents as bits -> hits
  if (capacity == 0) return 0;
  for (const uint32_t flat : requests) {
    const uint32_t bit = 1u << flat;
    std::map<uint32_t, uint64_t> then;
    const auto reach = [&](uint32_t residents, uint64_t hits) {
      uint64_t& known = then[residents];
      known = std::max(known, hits);
    };
    for (const auto& [residents, hits] : best) {
      if (residents & bit) {
        reach(residents, hits + 1);
        continue;
      }
      if (bypass) reach(residents, hits);
      if (static_cast<uint64_t>(std::popcount(residents)) < capacity) {
        reach(residents | bit, hits);
        continue;
      }
      for (uint32_t left = residents; left != 0; left &= left - 1) {
        reach((residents & ~(left & -left)) | bit, hits);
      }
    }
    best = std::move(then);
  }
  uint64_t most = 0;
  for (const auto& [residents, hits] : best) most = std::max(most, hits);
  return most;
}

// The set-valued form as its file head describes it.
class ReferenceBelady final : public SlowRun {
 public:
  ReferenceBelady(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), period_(static_cast<uint64_t>(values.at("period"))) {
    for (uint64_t i = 0; i < tiny.steps.step_count; ++i) steps_.push_back(members(tiny.steps, i));
  }

 private:
  FlatSet start() override { return hottest(tiny_.future, budget(), 0.0); }

  // The first step after this one; far away: never.
  uint64_t next_of(uint32_t flat) const {
    for (uint64_t i = now_ + 1; i < steps_.size(); ++i) {
      if (steps_[i].count(flat)) return i;
    }
    return UINT32_MAX;
  }

  void drop_used() {
    while (!victims_.empty() && victims_.front().first <= now_) victims_.erase(victims_.begin());
  }

  void search() {
    next_search_ = now_ + period_;
    victims_.clear();
    for (const uint32_t flat : hot_) victims_.push_back({next_of(flat), flat});
    std::stable_sort(victims_.begin(), victims_.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    const auto wanted = std::clamp<uint64_t>(period_ * std::min(admit_max(), budget()), 64, 65536);
    if (victims_.size() > wanted) victims_.resize(wanted);
  }

  void step(const FlatSet& active, Moves& moves) override {
    drop_used();
    if (now_ >= next_search_ || victims_.empty()) search();
    drop_used();
    std::vector<std::pair<uint64_t, uint32_t>> missed, soon;
    for (const uint32_t flat : active) {
      if (hot_.count(flat)) continue;
      (next_of(flat) == now_ + 1 ? soon : missed).push_back({next_of(flat), flat});
    }
    std::stable_sort(missed.begin(), missed.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    const auto from = std::find_if(soon.begin(), soon.end(),
                                   [&](const auto& use) { return use.second >= cursor_; });
    std::rotate(soon.begin(), from, soon.end());
    const size_t soon_count = soon.size();
    soon.insert(soon.end(), missed.begin(), missed.end());
    for (size_t i = 0; i < soon.size() && moves.admit.size() < admit_max(); ++i) {
      if (victims_.empty() || victims_.front().first <= soon[i].first) return;
      moves.evict.push_back(victims_.front().second);
      moves.admit.push_back(soon[i].second);
      victims_.erase(victims_.begin());
      if (i < soon_count) cursor_ = soon[i].second + 1;
    }
  }

  const uint64_t period_;
  std::vector<FlatSet> steps_;
  std::vector<std::pair<uint64_t, uint32_t>> victims_;  // next use, neuron; the farthest first
  uint64_t next_search_ = 0;
  uint32_t cursor_ = 0;
};

}  // namespace

TEST_CASE("no choice of evictions has more hits than belady's classical form") {
  uint64_t hits = 0;
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    const TinyRequests tiny(seed);
    INFO("seed " << seed);
    const uint64_t capacity = tiny.context.hot_count_max;
    const uint64_t most = most_hits(tiny.requests(), capacity, false);
    REQUIRE(tiny.hits("belady") == most);
    REQUIRE(tiny.hits("belady:bypass=yes") == most_hits(tiny.requests(), capacity, true));
    hits += most;
  }
  CHECK(hits > 5000);
}

TEST_CASE("no cache that does not know the future has more hits than belady") {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const TinyCase tiny(seed);
    for (uint64_t budget = 0; budget <= tiny.context.pool.total(); budget += 1 + budget / 3) {
      TinyCase at_budget = tiny;
      at_budget.context.hot_count_max = budget;
      at_budget.context.future_uses = &at_budget.uses;
      at_budget.context.profile = &at_budget.profile;
      at_budget.context.future = &at_budget.future;
      const uint64_t most = at_budget.drive(tiny.spec("belady"), Fill::demand).hits;
      CHECK(at_budget.drive(tiny.spec("belady:bypass=yes"), Fill::demand).hits >= most);
      for (const PolicyEntry* entry : policies().entries()) {
        if (entry->needs_future || entry->make_request == nullptr) continue;
        INFO(entry->name << ", seed " << seed << ", budget " << budget);
        CHECK(at_budget.drive(tiny.spec(entry->name), Fill::demand).hits <= most);
      }
    }
  }
}

TEST_CASE("belady equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const TinyCase tiny(seed);
    for (const char* variant : {"belady", "belady:period=1", "belady:period=1024"}) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceBelady(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 20000);
}

TEST_CASE("belady has more hits than any static set where what is active moves") {
  uint64_t clairvoyant = 0, fixed = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const TinyCase tiny(seed);
    clairvoyant += tiny.drive(tiny.spec("belady")).hits;
    fixed += tiny.drive(tiny.spec("oracle-static")).hits;
  }
  CHECK(clairvoyant > fixed + fixed / 50);
}
