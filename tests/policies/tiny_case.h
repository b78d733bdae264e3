// What the tests of policies share: random tiny cases, and a slow driver on std::set to hold a
// policy's obvious version against the real one.
//
// Thread-safety: none needed.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

#include "sim/policy_driver.h"
#include "tests/policies/tiny_traces.h"

namespace thermocline::test {

using FlatSet = std::set<uint32_t>;

inline FlatSet members(const PoolSteps& steps, uint64_t i) {
  FlatSet set;
  for (uint32_t flat = 0; flat < steps.pool.total(); ++flat) {
    const ActiveSet layer = steps.step(i).layer(flat / steps.pool.neuron_count);
    if (layer.contains(flat % steps.pool.neuron_count)) set.insert(flat);
  }
  return set;
}

// A rank-and-sort version of fill_hottest.
inline FlatSet hottest(const ActivationProfile& profile, uint64_t count_max, double share_min) {
  std::vector<uint32_t> order(profile.counts.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return profile.counts[a] > profile.counts[b]; });
  FlatSet set;
  for (const uint32_t flat : order) {
    const double share = profile.step_count == 0 ? 0.0
                                                 : static_cast<double>(profile.counts[flat]) /
                                                       static_cast<double>(profile.step_count);
    if (set.size() < count_max && share >= share_min) set.insert(flat);
  }
  return set;
}

inline FutureUses future_uses_of(const PoolSteps& steps) {
  FutureUses uses{steps.pool, steps.step_count, {}};
  uses.words.resize((steps.step_count + 63) / 64 * steps.pool.total());
  for (uint64_t i = 0; i < steps.step_count; ++i) {
    for (const uint32_t flat : members(steps, i)) {
      uses.words[i / 64 * steps.pool.total() + flat] |= uint64_t{1} << (i % 64);
    }
  }
  return uses;
}

// A pool, a profile and some steps with drift. Tasks of 10 steps, of which 4 are the prompt.
struct TinyCase {
  PoolSteps profile_steps, steps;
  ActivationProfile profile, future;
  FutureUses uses;
  PolicyContext context;
  uint32_t task_steps = 10, prompt_steps = 4;
  uint32_t at_once = 1;  // tasks whose steps alternate

  explicit TinyCase(uint64_t seed) {
    Lcg random(seed);
    const NeuronPool pool = random_pool(random);
    profile_steps = random_steps(random, pool, random.below(40), 0);
    steps = random_steps(random, pool, 1 + random.below(60), random.below(20));
    profile = profile_steps.profile();
    profile.pool = pool;
    future = steps.profile();
    uses = future_uses_of(steps);
    context = {pool,
               &profile,
               &future,
               random.below(static_cast<uint32_t>(pool.total()) + 2),
               random.below(12),
               &uses,
               384,
               {900e9, 60e9, 1e-5}};
  }
  PolicySpec spec(const std::string& text) const { return parse_policies(text).at(0); }
  ActiveStep step(uint64_t i) const {
    ActiveStep active = steps.step(i);
    const uint64_t round = uint64_t{task_steps} * at_once;
    active.task = static_cast<uint32_t>(i / round * at_once + i % at_once);
    active.prompt = i % round / at_once < prompt_steps;
    return active;
  }
  HotSetStats drive(const PolicySpec& spec, Fill fill = Fill::step) const {
    PolicyDriver driver(spec, context, fill);
    for (uint64_t i = 0; i < steps.step_count; ++i) driver.step(step(i));
    return driver.stats();
  }
};

// The driver of Fill::step again, on sets. Derive, say how the policy starts and what it proposes.
class SlowRun {
 public:
  explicit SlowRun(const TinyCase& tiny) : tiny_(tiny) {}
  virtual ~SlowRun() = default;

  HotSetStats run() {
    hot_ = start();
    FlatSet unused;
    HotSetStats stats;
    stats.loaded = stats.hot_count_peak = hot_.size();
    for (now_ = 0; now_ < tiny_.steps.step_count; ++now_) {
      const FlatSet active = members(tiny_.steps, now_);
      ++stats.step_count;
      stats.hot_count_sum += hot_.size();
      for (const uint32_t flat : active) {
        ++stats.needed;
        stats.hits += hot_.count(flat);
        unused.erase(flat);
      }
      Moves moves;
      step(active, moves);
      for (const uint32_t flat : moves.evict) {
        REQUIRE(hot_.erase(flat) == 1);
        stats.wasted += unused.erase(flat);
        ++stats.evicted;
      }
      uint64_t admitted = 0;
      for (const uint32_t flat : moves.admit) {
        REQUIRE(hot_.count(flat) == 0);
        if (hot_.size() >= budget() || admitted >= admit_max()) {
          ++stats.refused;
          continue;
        }
        hot_.insert(flat);
        unused.insert(flat);
        ++admitted;
      }
      stats.admitted += admitted;
      stats.hot_count_peak = std::max<uint64_t>(stats.hot_count_peak, hot_.size());
    }
    return stats;
  }

 protected:
  virtual FlatSet start() = 0;
  virtual void step(const FlatSet& active, Moves& moves) = 0;

  uint64_t budget() const { return std::min(tiny_.context.hot_count_max, total()); }
  uint64_t admit_max() const { return tiny_.context.admit_count_max; }
  uint64_t total() const { return tiny_.context.pool.total(); }
  const ActivationProfile& profile() const { return tiny_.profile; }
  ActiveStep active_step() const { return tiny_.step(now_); }  // task and prompt of this step

  const TinyCase& tiny_;
  FlatSet hot_;
  uint64_t now_ = 0;
};

}  // namespace thermocline::test
