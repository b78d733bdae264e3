// The classical forms of the caches against hits that other people's simulators count.
#include <fstream>
#include <sstream>

#include "tests/policies/tiny_case.h"
#include "tests/support.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

const std::string kOracles = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/";

// A line of make_cache_counts.py.
struct CountedCache {
  uint64_t seed = 0;
  uint32_t layers = 0, neurons = 0;
  uint64_t steps = 0;
  uint32_t drift = 0;
  uint64_t requests = 0, capacity = 0;
  std::string policy, package;
  uint64_t hits = 0;
};

std::vector<CountedCache> read_counts(const std::string& path) {
  std::ifstream file(path);
  std::vector<CountedCache> all;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    CountedCache one;
    fields >> one.seed >> one.layers >> one.neurons >> one.steps >> one.drift >> one.requests >>
        one.capacity >> one.policy >> one.package >> one.hits;
    REQUIRE(fields);
    all.push_back(one);
  }
  return all;
}

HotSetStats count_ourselves(const CountedCache& counted) {
  Lcg random(counted.seed);
  const NeuronPool pool{0, counted.layers, 0, counted.neurons};
  const PoolSteps steps = random_steps(random, pool, counted.steps, counted.drift);
  const ActivationProfile future = steps.profile();
  const FutureUses uses = future_uses_of(steps);
  PolicyContext context{pool, &future, &future, counted.capacity, 0, &uses};
  PolicyDriver driver(parse_policies(counted.policy).at(0), context, Fill::demand);
  for (uint64_t i = 0; i < steps.step_count; ++i) driver.step(steps.step(i));
  return driver.stats();
}

// How many lines each package has.
std::map<std::string, int> check_counts(const std::string& path) {
  std::map<std::string, int> lines;
  for (const CountedCache& counted : read_counts(path)) {
    INFO(counted.package << ", " << counted.policy << ", seed " << counted.seed << ", capacity "
                         << counted.capacity);
    const HotSetStats stats = count_ourselves(counted);
    CHECK(stats.needed == counted.requests);
    CHECK(stats.hits == counted.hits);
    ++lines[counted.package];
  }
  return lines;
}

}  // namespace

TEST_CASE("caches count the hits that libcachesim and cachetools counted, to the last one") {
  const auto lines = check_counts(kOracles + "cache_counts/counts.txt");
  CHECK(lines.at("cachetools") == 180);
  CHECK(lines.at("libcachesim") == 378);
}

TEST_CASE("caches count the hits that cachetools counts now on other traces") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  const std::string path = folder / "counts.txt";
  const CommandResult made =
      run_command("'" + python + "' '" + kOracles + "make_cache_counts.py' '" + path + "' 100 4");
  INFO(made.output);
  REQUIRE(made.exit_code == 0);
  CHECK(check_counts(path).at("cachetools") == 120);
}
