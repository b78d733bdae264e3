// The driver's bookkeeping, and what it takes for a bug.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "tests/policies/tiny_case.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

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

}  // namespace

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
  add_pool(sum, {5, 10, 4, 3, 2, 1, 7, 1, 8, 40});
  add_pool(sum, {5, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  CHECK(sum == HotSetStats{5, 11, 5, 4, 3, 2, 8, 2, 9, 41});
  CHECK(signal_of([&] { add_pool(sum, {6, 1, 1, 1, 1, 1, 1, 1, 1, 1}); }) == SIGABRT);
}
