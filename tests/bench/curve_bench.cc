// Steps a second of a count that gives all budgets, beside those of one fixed budget in a driver.
//
//   curve_bench [STEPS] [LAYERS] [THREADS]       default: 512 steps, 80 layers, 1 thread
//
// Bits of 70B's shape in memory, larger than the caches: 28,672 neurons a layer, 25 % active. Both
// read them once; the limit is the rate at which this machine's memory can be read.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "models/bit_sums.h"
#include "models/error.h"
#include "sim/policy_driver.h"
#include "traces/profile.h"

using namespace thermocline;

namespace {

constexpr uint32_t kWidth = 28672;
constexpr int kPasses = 5;

double seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

StepBlock made_steps(const NeuronPool& pool, uint64_t step_count) {
  StepBlock block{pool, 0, step_count, std::vector<uint64_t>(step_count * pool.words_per_step())};
  uint64_t state = 1;
  const auto next = [&state] {
    return state = state * 6364136223846793005ull + 1442695040888963407;
  };
  for (uint64_t& word : block.words) {
    const uint64_t a = next();
    word = (a ^ a >> 32) & next();
  }
  return block;
}

// The least seconds of several passes.
template <class Work>
double fastest(Work work) {
  double best = 1e300;
  for (int i = 0; i < kPasses; ++i) {
    const double begin = seconds();
    work();
    best = std::min(best, seconds() - begin);
  }
  return best;
}

void print(const char* what, const StepBlock& block, double took, double read_rate) {
  const double bytes = static_cast<double>(block.words.size()) * 8;
  const double rate = bytes * 1e-9 / took;
  std::printf("%-40s %9.0f steps/s %7.2f GB/s %5.1f %% of the read rate\n", what,
              static_cast<double>(block.step_count) / took, rate, 100 * rate / read_rate);
}

}  // namespace

int main(int argc, char** argv) {
  const auto option = [&](int i, int otherwise) {
    return static_cast<uint32_t>(argc > i ? std::max(1, std::atoi(argv[i])) : otherwise);
  };
  const NeuronPool pool{0, option(2, 80), 0, kWidth};
  const StepBlock block = made_steps(pool, option(1, 512));
  const uint32_t threads = option(3, 1);

  uint64_t needed = 0;
  const double reading =
      fastest([&] { needed = bit_sums().count(block.words.data(), block.words.size()); });
  const double read_rate = static_cast<double>(block.words.size()) * 8e-9 / reading;
  std::printf("memory read by one core: %.1f GB/s; a step has %.0f KiB, all steps %.0f MiB\n",
              read_rate, static_cast<double>(pool.words_per_step()) / 128,
              static_cast<double>(block.words.size()) / (1 << 17));

  ActivationProfile profile(pool);
  profile.add(block.step(0));
  const PolicySpec fixed = parse_policies("fixed-topk")[0];
  PolicyDriver driver(fixed, {pool, &profile, nullptr, pool.total() * 3 / 10, 0});
  const double one = fastest([&] {
    for (uint64_t i = 0; i < block.step_count; ++i) driver.step(block.step(i));
  });
  print("fixed-topk, one budget", block, one, read_rate);

  ProfileCounter counter(pool, threads);
  const double counting = fastest([&] { counter.add(block); });
  print("counting for all budgets", block, counting, read_rate);
  ProfileCounter by_step(pool);
  const double stepwise = fastest([&] {
    for (uint64_t i = 0; i < block.step_count; ++i) by_step.add(block.step(i));
  });
  print("the same, step by step", block, stepwise, read_rate);

  const ActivationProfile counted = counter.profile();
  uint64_t sum = 0;
  for (const uint32_t count : counted.counts) sum += count;
  TC_CHECK(sum == kPasses * needed && counted.counts == by_step.profile().counts, "counts differ");
  const double ranking = fastest([&] { sum += ranked_by_count(counted.counts)[0]; });
  std::printf("a ranking of all neurons: %.0f ms, once a policy\n", 1e3 * ranking);
  std::printf("counting takes %.2f times as long as one budget\n", counting / one);
}
