// lfu in both forms against counts that are searched anew.
#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

bool halves(uint64_t step, uint64_t ageing) { return ageing > 0 && step > 0 && step % ageing == 0; }

class ReferenceLfu final : public SlowRun {
 public:
  ReferenceLfu(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), values_(values), counts_(profile().counts) {}

 private:
  FlatSet start() override { return hottest(profile(), budget(), 0.0); }

  void search() {
    next_search_ = now_ + static_cast<uint64_t>(values_.at("period"));
    victims_.assign(hot_.begin(), hot_.end());
    std::stable_sort(victims_.begin(), victims_.end(),
                     [&](uint32_t a, uint32_t b) { return counts_[a] < counts_[b]; });
    const auto wanted = std::clamp<uint64_t>(
        static_cast<uint64_t>(values_.at("period")) * std::min(admit_max(), budget()), 64, 65536);
    if (victims_.size() > wanted) victims_.resize(wanted);
    fired_since_.clear();
  }
  void drop_fired() {
    while (!victims_.empty() && fired_since_.count(victims_.front())) {
      victims_.erase(victims_.begin());
    }
  }

  void step(const FlatSet& active, Moves& moves) override {
    if (halves(now_, static_cast<uint64_t>(values_.at("ageing")))) {
      for (uint32_t& count : counts_) count /= 2;
      victims_.clear();
    }
    drop_fired();
    if (now_ >= next_search_ || victims_.empty()) search();
    std::vector<uint32_t> missed;
    for (const uint32_t flat : active) {
      ++counts_[flat];
      fired_since_.insert(flat);
      if (!hot_.count(flat)) missed.push_back(flat);
    }
    std::stable_sort(missed.begin(), missed.end(),
                     [&](uint32_t a, uint32_t b) { return counts_[a] > counts_[b]; });
    for (const uint32_t flat : missed) {
      drop_fired();
      if (moves.admit.size() == admit_max() || victims_.empty()) return;
      if (counts_[flat] <= counts_[victims_.front()]) return;
      moves.evict.push_back(victims_.front());
      moves.admit.push_back(flat);
      victims_.erase(victims_.begin());
    }
  }

  const PolicyValues& values_;
  std::vector<uint32_t> counts_, victims_;
  FlatSet fired_since_;
  uint64_t next_search_ = 0;
};

// The classical cache: residents with their counts and when they reached them.
uint64_t searched_hits(const TinyCase& tiny, uint64_t ageing) {
  struct Resident {
    uint32_t flat, count;
    uint64_t since;
  };
  const auto leaves_before = [](const Resident& a, const Resident& b) {
    return a.count != b.count ? a.count < b.count : a.since < b.since;
  };
  std::vector<Resident> residents;
  uint64_t hits = 0, time = 0;
  for (uint64_t i = 0; i < tiny.steps.step_count; ++i) {
    if (halves(i, ageing)) {
      // What had the smaller count counts as having been there first.
      std::sort(residents.begin(), residents.end(), leaves_before);
      for (Resident& resident : residents) resident.count /= 2, resident.since = time++;
    }
    for (const uint32_t flat : members(tiny.steps, i)) {
      const auto found = std::find_if(residents.begin(), residents.end(),
                                      [&](const Resident& r) { return r.flat == flat; });
      if (found != residents.end()) {
        ++hits;
        *found = {flat, found->count + 1, time++};
        continue;
      }
      if (tiny.context.hot_count_max == 0) continue;
      if (residents.size() == tiny.context.hot_count_max) {
        residents.erase(std::min_element(residents.begin(), residents.end(), leaves_before));
      }
      residents.push_back({flat, 1, time++});
    }
  }
  return hits;
}

}  // namespace

TEST_CASE("lfu equals its obvious version on random traces") {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const TinyCase tiny(seed);
    for (const char* variant : {"lfu", "lfu:ageing=1", "lfu:ageing=7,period=1",
                                "lfu:ageing=20,period=30", "lfu:period=1024"}) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceLfu(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 5000);
}

TEST_CASE("lfu's classical form equals a search over residents on random traces") {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const TinyCase tiny(seed);
    INFO("seed " << seed);
    REQUIRE(tiny.drive(tiny.spec("lfu"), Fill::demand).hits == searched_hits(tiny, 0));
    REQUIRE(tiny.drive(tiny.spec("lfu:ageing=5"), Fill::demand).hits == searched_hits(tiny, 5));
  }
}

TEST_CASE("lfu stays with what was hot for long, and with ageing does not") {
  const NeuronPool pool{0, 1, 0, 40};
  ActivationProfile profile(pool);
  PoolSteps steps{pool, 600, std::vector<uint64_t>(600)};
  for (uint64_t i = 0; i < 600; ++i) {
    for (uint32_t flat = 0; flat < 20; ++flat) steps.set(i, flat + (i < 400 ? 0 : 20));
  }
  const auto hits = [&](const char* spec) {
    PolicyDriver driver(parse_policies(spec)[0], {pool, &profile, nullptr, 20, 4});
    for (uint64_t i = 0; i < 600; ++i) driver.step(steps.step(i));
    return driver.stats().hits;
  };
  CHECK(hits("lfu") == 400 * 20);
  CHECK(hits("lfu:ageing=16") > 560 * 20);
}

TEST_CASE("lfu's 16-bit counts are halved before they overflow") {
  const NeuronPool pool{0, 1, 0, 3};
  ActivationProfile profile(pool);
  profile.step_count = 1u << 20;
  profile.counts = {1u << 20, 1u << 19, 0};
  PolicyDriver driver(parse_policies("lfu")[0], {pool, &profile, nullptr, 1, 1});
  PoolSteps steps{pool, 1, {0b100}};
  uint64_t admitted = 0;
  for (uint64_t i = 0; i < 70000; ++i) {
    driver.step(steps.step(0));
    if (driver.stats().admitted == 0) admitted = i + 1;
  }
  // 2^20 is shifted to 16384; the third neuron passes it with its 16,385th step and stays.
  CHECK(admitted == 16384);
  CHECK(driver.stats().admitted == 1);
  CHECK(driver.hot().contains(2));
}
