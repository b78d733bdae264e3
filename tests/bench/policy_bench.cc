// Steps a second of each policy on a trace of 70B's shape in memory, beside this machine's memory.
//
//   policy_bench [POLICIES] [STEPS] [LAYERS]       default: all policies, 64 steps, 80 layers
//
// The trace: 28,672 neurons a layer, 20 % active, rates as uneven as published (80 % of the firings
// by 43 % of the neurons), half of a step's bits kept from the step before it in the same ring of
// kMadeSteps. One core, one budget of 30 %, 2,427 bundles a step (32 MiB of 4-bit bundles).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "models/bit_sums.h"
#include "sim/policy_driver.h"

using namespace thermocline;

namespace {

constexpr uint32_t kWidth = 28672, kMadeSteps = 96;
constexpr double kBudgetShare = 0.3;

double seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

class Random {
 public:
  uint32_t next() {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<uint32_t>(state_ >> 32);
  }

 private:
  uint64_t state_ = 1;
};

// (kMadeSteps, layer_count, words): the rate of a neuron falls along a curve over a shuffled order.
std::vector<uint64_t> made_bits(const NeuronPool& pool) {
  Random random;
  std::vector<uint64_t> bits(kMadeSteps * pool.words_per_step());
  for (uint64_t flat = 0; flat < pool.total(); ++flat) {
    const double place = random.next() * 0x1p-32;
    const double rate = std::min(0.9, 0.46 * (1 - place) * (1 - place) * (1.1 - place) + 0.08);
    const auto limit = static_cast<uint32_t>(rate * 0x1p32);
    const uint64_t word = flat / kWidth * pool.words_per_layer() + flat % kWidth / 64;
    bool on = random.next() < limit;
    for (uint32_t step = 0; step < kMadeSteps; ++step) {
      if (random.next() & 1) on = random.next() < limit;
      if (on) bits[step * pool.words_per_step() + word] |= uint64_t{1} << (flat % 64);
    }
  }
  return bits;
}

FutureUses uses_of(const NeuronPool& pool, const std::vector<uint64_t>& bits, uint64_t steps) {
  FutureUses uses{pool, steps, std::vector<uint64_t>((steps + 63) / 64 * pool.total())};
  for (uint64_t i = 0; i < steps; ++i) {
    const uint64_t* row = bits.data() + i % kMadeSteps * pool.words_per_step();
    for_each_bit(pool, {row, pool.words_per_step()}, [&](uint32_t flat) {
      uses.words[i / 64 * pool.total() + flat] |= uint64_t{1} << (i % 64);
    });
  }
  return uses;
}

// GB/s of one core that counts the bits of all made steps.
double read_rate(const std::vector<uint64_t>& bits) {
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double begin = seconds();
    const uint64_t sum = bit_sums().count(bits.data(), bits.size());
    const double rate = static_cast<double>(bits.size()) * 8e-9 / (seconds() - begin);
    if (sum > 0) best = std::max(best, rate);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string names = argc > 1 ? argv[1] : "all";
  const uint64_t steps = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 64;
  const NeuronPool pool{0, argc > 3 ? static_cast<uint32_t>(std::atoi(argv[3])) : 80, 0, kWidth};
  const std::vector<uint64_t> bits = made_bits(pool);
  const uint64_t stride = pool.words_per_step();
  const auto step = [&](uint64_t i) {
    return ActiveStep{&pool,
                      {bits.data() + i % kMadeSteps * stride, stride},
                      static_cast<uint32_t>(i / 48),
                      i % 48 < 16};
  };
  ActivationProfile profile(pool);
  for (uint64_t i = 0; i < 16; ++i) profile.add(step(i));
  const FutureUses uses = uses_of(pool, bits, steps);
  const uint64_t hot_max = static_cast<uint64_t>(kBudgetShare * static_cast<double>(pool.total()));
  const double limit = read_rate(bits);
  std::printf("memory read by one core: %.1f GB/s; a step has %.0f KiB\n", limit,
              static_cast<double>(stride) / 128);
  for (const PolicySpec& spec : parse_policies(names)) {
    for (const Fill fill : {Fill::step, Fill::demand}) {
      if (fill == Fill::demand && spec.entry->make_request == nullptr) continue;
      const uint64_t admit_max = 2427ull * pool.layer_count / 80;
      PolicyDriver driver(
          spec, {pool, &profile, &profile, hot_max, admit_max, &uses, 13824, {936e9, 67e9, 2e-5}},
          fill);
      const double begin = seconds();
      for (uint64_t i = 0; i < steps; ++i) driver.step(step(i));
      const double took = seconds() - begin;
      const double rate = static_cast<double>(steps) / took;
      const double gigabytes = rate * static_cast<double>(stride) * 8e-9;
      std::printf("%-28s %-6s %9.0f steps/s %7.2f GB/s %5.1f %% of the read rate, hits %.1f %%\n",
                  spec.label().c_str(), fill == Fill::step ? "step" : "demand", rate, gigabytes,
                  100 * gigabytes / limit, 100 * hit_ratio(driver.stats()));
    }
  }
}
