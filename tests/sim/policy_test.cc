// Policies against slow, obvious versions of themselves; the driver's bookkeeping; the parser.
#include "sim/policy.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <functional>
#include <set>

#include "tests/sim/tiny_traces.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// A rank-and-sort version of fill_hottest.
std::set<uint32_t> hottest(const ActivationProfile& profile, uint64_t count_max, double share_min) {
  std::vector<uint32_t> order(profile.counts.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return profile.counts[a] > profile.counts[b]; });
  std::set<uint32_t> set;
  for (const uint32_t flat : order) {
    const double share = profile.step_count == 0 ? 0.0
                                                 : static_cast<double>(profile.counts[flat]) /
                                                       static_cast<double>(profile.step_count);
    if (set.size() < count_max && share >= share_min) set.insert(flat);
  }
  return set;
}

std::set<uint32_t> members(const PoolSteps& steps, uint64_t i) {
  std::set<uint32_t> set;
  for (uint32_t flat = 0; flat < steps.pool.total(); ++flat) {
    const ActiveSet layer = steps.step(i).layer(flat / steps.pool.neuron_count);
    if (layer.contains(flat % steps.pool.neuron_count)) set.insert(flat);
  }
  return set;
}

HotSetStats reference_static(const PoolSteps& steps, const std::set<uint32_t>& hot) {
  HotSetStats stats;
  stats.loaded = stats.hot_count_peak = hot.size();
  for (uint64_t i = 0; i < steps.step_count; ++i) {
    ++stats.step_count;
    for (const uint32_t flat : members(steps, i)) {
      ++stats.needed;
      stats.hits += hot.count(flat);
    }
  }
  return stats;
}

// ewma as its file head describes it, one neuron at a time and everything sorted anew.
class ReferenceEwma {
 public:
  ReferenceEwma(const PoolSteps& steps, const PolicyContext& context, const PolicyValues& values)
      : steps_(steps), values_(values) {
    const double halflife = values.at("halflife");
    growth_ = std::exp2(1.0 / halflife);
    alpha_ = 1.0 - 1.0 / growth_;
    swaps_ = values.at("cap") == 0 ? context.admit_count_max
                                   : std::min<uint64_t>(static_cast<uint64_t>(values.at("cap")),
                                                        context.admit_count_max);
    const ActivationProfile& profile = *context.profile;
    const double step_count = std::max<double>(1.0, static_cast<double>(profile.step_count));
    for (const uint32_t count : profile.counts) {
      scores_.push_back(static_cast<uint32_t>(count * (weight_ / alpha_ / step_count)));
    }
    hot_ = hottest(profile, context.hot_count_max, 0.0);
    admitted_at_.assign(scores_.size(), -1e9);
    stats_.loaded = stats_.hot_count_peak = hot_.size();
    search();
  }

  HotSetStats run() {
    for (uint64_t i = 0; i < steps_.step_count; ++i) step(members(steps_, i));
    return stats_;
  }

 private:
  bool is_stronger(uint32_t a, uint32_t b) const {
    return scores_[a] != scores_[b] ? scores_[a] > scores_[b] : a < b;
  }

  void search() {
    next_search_ = now_ + values_.at("period");
    victims_.clear();
    for (const uint32_t flat : hot_) {
      if (admitted_at_[flat] + values_.at("residency") <= now_) victims_.push_back(flat);
    }
    std::sort(victims_.begin(), victims_.end(), [&](uint32_t a, uint32_t b) {
      return scores_[a] != scores_[b] ? scores_[a] < scores_[b] : a < b;
    });
    const auto wanted = std::clamp<size_t>(
        static_cast<size_t>(values_.at("period")) * std::min<size_t>(swaps_, scores_.size()), 64,
        65536);
    if (victims_.size() > wanted) victims_.resize(wanted);
    fired_since_.clear();
  }

  bool may_enter(uint32_t flat) const {
    const double gamma = std::round(values_.at("gamma") * 1024);
    const double floor = std::floor(values_.at("floor") * weight_ / alpha_);
    return scores_[flat] * gamma > scores_[victims_.front()] * 1024.0 && scores_[flat] >= floor;
  }

  void drop_fired() {
    while (!victims_.empty() && fired_since_.count(victims_.front())) {
      victims_.erase(victims_.begin());
    }
  }

  void decay() {
    weight_ *= growth_;
    if (weight_ < 1048576) return;
    weight_ /= 256;
    for (uint32_t& score : scores_) score /= 256;
  }

  void step(const std::set<uint32_t>& active) {
    const std::set<uint32_t> hot = hot_;
    now_ += 1;
    decay();
    drop_fired();
    if (victims_.empty() || now_ >= next_search_) search();
    std::vector<uint32_t> cold;
    for (const uint32_t flat : active) {
      stats_.hits += hot.count(flat);
      scores_[flat] += static_cast<uint32_t>(weight_);
      fired_since_.insert(flat);
      if (!hot.count(flat)) cold.push_back(flat);
    }
    stats_.needed += active.size();
    ++stats_.step_count;
    std::sort(cold.begin(), cold.end(), [&](uint32_t a, uint32_t b) { return is_stronger(a, b); });
    for (size_t i = 0; i < std::min<size_t>(cold.size(), swaps_); ++i) {
      drop_fired();
      if (victims_.empty() || !may_enter(cold[i])) break;
      swap(cold[i]);
    }
  }

  void swap(uint32_t flat) {
    hot_.erase(victims_.front());
    victims_.erase(victims_.begin());
    hot_.insert(flat);
    admitted_at_[flat] = now_;
    ++stats_.admitted;
    ++stats_.evicted;
  }

  const PoolSteps& steps_;
  const PolicyValues& values_;
  double growth_, alpha_, weight_ = 4096, now_ = 0, next_search_ = 0;
  uint64_t swaps_;
  std::vector<uint32_t> scores_;
  std::set<uint32_t> hot_, fired_since_;
  std::vector<uint32_t> victims_;
  std::vector<double> admitted_at_;
  HotSetStats stats_;
};

struct TinyCase {
  PoolSteps profile_steps, steps;
  ActivationProfile profile, future;
  PolicyContext context;

  explicit TinyCase(uint64_t seed) {
    Lcg random(seed);
    const NeuronPool pool = random_pool(random);
    profile_steps = random_steps(random, pool, random.below(40), 0);
    steps = random_steps(random, pool, 1 + random.below(60), random.below(20));
    profile = profile_steps.profile();
    profile.pool = pool;
    future = steps.profile();
    context = {pool, &profile, &future, random.below(static_cast<uint32_t>(pool.total()) + 2),
               random.below(12)};
  }
  PolicySpec spec(const std::string& text) const { return parse_policies(text).at(0); }
  HotSetStats drive(const PolicySpec& spec) const {
    PolicyDriver driver(spec, context);
    for (uint64_t i = 0; i < steps.step_count; ++i) driver.step(steps.step(i));
    return driver.stats();
  }
};

// How a child process that runs `work` ends: a failed TC_CHECK aborts.
int signal_of(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(2);
    std::signal(SIGABRT, SIG_DFL);
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

// Plays a script of moves; starts with `start` neurons hot.
class Scripted final : public Policy {
 public:
  Scripted(uint32_t start, Moves moves) : start_(start), moves_(std::move(moves)) {}
  void start(const PolicyContext&, HotSet& hot) override {
    for (uint32_t flat = 0; flat < start_; ++flat) hot.insert(flat);
  }
  void step(const ActiveStep&, const HotSet&, Moves& moves) override { moves = moves_; }

 private:
  uint32_t start_;
  Moves moves_;
};

uint32_t scripted_start = 0;
Moves scripted_moves;
const PolicyEntry kScripted{
    "scripted", "", false, {}, [](const PolicyValues&) {
      return std::unique_ptr<Policy>(std::make_unique<Scripted>(scripted_start, scripted_moves));
    }};

HotSetStats play(uint32_t start, const Moves& moves, uint64_t hot_max, uint64_t admit_max) {
  scripted_start = start;
  scripted_moves = moves;
  PolicyContext context{{0, 2, 0, 70}, nullptr, nullptr, hot_max, admit_max};
  PolicyDriver driver({&kScripted, {}}, context);
  const PoolSteps steps{context.pool, 1, std::vector<uint64_t>(4)};
  driver.step(steps.step(0));
  return driver.stats();
}

std::string message_of(const std::string& policies_text) {
  try {
    parse_policies(policies_text);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::usage);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("fixed and oracle-static equal rank-and-sort on random traces") {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const TinyCase tiny(seed);
    const uint64_t budget = tiny.context.hot_count_max;
    for (const double share : {0.0, 0.07, 0.5}) {
      PolicySpec fixed = tiny.spec("fixed");
      fixed.values["threshold"] = share;
      CHECK(tiny.drive(fixed) ==
            reference_static(tiny.steps, hottest(tiny.profile, budget, share)));
    }
    CHECK(tiny.drive(tiny.spec("oracle-static")) ==
          reference_static(tiny.steps, hottest(tiny.future, budget, 0.0)));
  }
}

TEST_CASE("ewma equals its obvious version on random traces") {
  const std::string variants[] = {
      "ewma", "ewma:halflife=1,residency=0,gamma=1", "ewma:halflife=3,cap=2,period=1,residency=5",
      "ewma:halflife=8,floor=0.3,gamma=0.8", "ewma:halflife=5,residency=0,period=3,gamma=0.9"};
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const TinyCase tiny(seed);
    for (const std::string& variant : variants) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == ReferenceEwma(tiny.steps, tiny.context, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 10000);  // or the comparison says little
}

TEST_CASE("ewma follows a hot set that moves, and its threshold moves with it") {
  const NeuronPool pool{0, 1, 0, 100};
  ActivationProfile profile(pool);
  profile.step_count = 10;
  for (uint32_t i = 0; i < 50; ++i) profile.counts[i] = 9;
  PoolSteps steps{pool, 200, std::vector<uint64_t>(200 * pool.words_per_step())};
  for (uint64_t i = 0; i < 200; ++i) {
    for (uint32_t flat = 50; flat < 100; ++flat) steps.set(i, flat);
  }
  PolicyDriver driver(parse_policies("ewma:halflife=8")[0], {pool, &profile, nullptr, 50, 4});
  std::set<double> thresholds;
  for (uint64_t i = 0; i < 200; ++i) {
    driver.step(steps.step(i));
    CHECK(driver.hot().count() == 50);
    thresholds.insert(driver.hot_threshold().value());
  }
  for (uint32_t flat = 50; flat < 100; ++flat) CHECK(driver.hot().contains(flat));
  CHECK(driver.stats().admitted == 50);
  CHECK(thresholds.size() > 10);
}

TEST_CASE("the driver counts moves, and refuses what budget and limit do not allow") {
  const HotSetStats stats = play(3, {{0}, {10, 11, 12, 13}}, 4, 3);
  CHECK(stats.loaded == 3);
  CHECK(stats.evicted == 1);
  CHECK(stats.admitted == 2);
  CHECK(stats.refused == 2);
  CHECK(stats.hot_count_peak == 4);
  CHECK(play(0, {{}, {10, 11, 12, 13}}, 100, 3).refused == 1);
  CHECK(play(0, {{}, {10}}, 0, 3).refused == 1);
}

TEST_CASE("a policy that breaks the rules is a bug") {
  CHECK(signal_of([] { play(3, {{}, {}}, 3, 1); }) == 0);
  CHECK(signal_of([] { play(4, {{}, {}}, 3, 1); }) == SIGABRT);      // above the budget
  CHECK(signal_of([] { play(3, {{3}, {}}, 3, 1); }) == SIGABRT);     // not hot
  CHECK(signal_of([] { play(3, {{1, 1}, {}}, 3, 1); }) == SIGABRT);  // twice
  CHECK(signal_of([] { play(3, {{}, {1}}, 9, 1); }) == SIGABRT);     // hot already
  CHECK(signal_of([] { play(3, {{}, {9, 9}}, 9, 2); }) == SIGABRT);  // twice
  CHECK(signal_of([] { play(3, {{}, {140}}, 9, 2); }) == SIGABRT);   // outside the pool
}

TEST_CASE("hits are the active neurons that are hot, before the step's own moves") {
  const NeuronPool pool{0, 2, 0, 70};
  scripted_start = 2;
  scripted_moves = {{}, {75}};
  PolicyDriver driver({&kScripted, {}}, {pool, nullptr, nullptr, 3, 1});
  PoolSteps steps{pool, 1, std::vector<uint64_t>(4)};
  for (const uint32_t flat : {0u, 5u, 69u, 75u}) steps.set(0, flat);
  const StepCounts counts = driver.step(steps.step(0));
  CHECK(counts.needed == 4);
  CHECK(counts.hits == 1);
  CHECK(counts.admitted == 1);
  CHECK(driver.hot().contains(75));
}

TEST_CASE("policy lists parse into labels and resolved parameters") {
  const auto specs = parse_policies("ewma:halflife=16,cap=200,fixed,oracle-static");
  REQUIRE(specs.size() == 3);
  CHECK(specs[0].label() == "ewma:halflife=16,cap=200");
  CHECK(specs[0].resolved() == "ewma:halflife=16,gamma=0.5,floor=0,residency=16,cap=200,period=8");
  CHECK(specs[0].parameters() == "halflife=16,gamma=0.5,floor=0,residency=16,cap=200,period=8");
  CHECK(specs[2].parameters() == "");
  CHECK(specs[1].label() == "fixed");
  CHECK(specs[2].entry->needs_future);
  CHECK(parse_policies(specs[0].resolved())[0].values == specs[0].values);
}

TEST_CASE("wrong policies, parameters and values are usage errors that say what is valid") {
  using Catch::Matchers::Contains;
  CHECK_THAT(message_of("emwa"), Contains("did you mean 'ewma'") && Contains("oracle-static"));
  CHECK_THAT(message_of("ewma:halflive=3"), Contains("did you mean 'halflife'"));
  CHECK_THAT(message_of("ewma:halflife=0"), Contains("from 1 to 1024, found 0"));
  CHECK_THAT(message_of("ewma:halflife=1.5"), Contains("whole number"));
  CHECK_THAT(message_of("oracle-static:x=1"), Contains("no parameters"));
  CHECK_THAT(message_of("ewma:gamma=1,gamma=1"), Contains("set twice"));
  CHECK_THAT(message_of("fixed,fixed:threshold=0"), Contains("given twice"));
  for (const char* bad : {"", ",", "fixed,", "x=1", "ewma:", "ewma:gamma", "ewma:gamma=", "fixed,,",
                          "ewma:gamma=nan", "ewma:gamma=inf", "ewma:gamma=1e999", "=", ":"}) {
    INFO(bad);
    CHECK(message_of(bad) != "");
  }
}

TEST_CASE("a pool's bundles are its share of the budget, rounded down") {
  const NeuronPool pool{0, 80, 0, 7168};
  CHECK(bundles_of_pool(13824 * 100, 13824, pool, 80 * 28672) == 25);
  CHECK(bundles_of_pool(13824 * 100 - 1, 13824, pool, 80 * 28672) == 24);
  CHECK(bundles_of_pool(UINT64_MAX, 13824, pool, 80 * 28672) == pool.total());
  CHECK(bundles_of_pool(0, 13824, pool, 80 * 28672) == 0);
  CHECK(bundles_of_pool(48, 48, {0, 1, 0, 3}, 10) == 0);
}

TEST_CASE("stats of pools add up, and the steps are the same for all") {
  HotSetStats sum;
  add_pool(sum, {5, 10, 4, 3, 2, 1, 7, 8});
  add_pool(sum, {5, 1, 1, 1, 1, 1, 1, 1});
  CHECK(sum == HotSetStats{5, 11, 5, 4, 3, 2, 8, 9});
  CHECK(signal_of([&] { add_pool(sum, {6, 1, 1, 1, 1, 1, 1, 1}); }) == SIGABRT);
}
