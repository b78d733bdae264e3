// PolicyDriver: the one place that disposes of what a policy proposes.
//
// It owns the HotSet, counts, applies moves and enforces budget and migration limit. Replay and the
// live runtime run the same driver, so their counters are equal to the last integer.
// Order within a step: count hits against the HotSet as it stands; show the step to the policy;
//   apply its moves, which take effect from the next step. Fill::demand: every active neuron is a
//   request of its own, in (layer, neuron) order, and a miss is admitted at once.
// Groups: with group > 1, `group` neighbouring neurons of a layer move as one. A group is active
//   where one of its neurons is; hits stay counted by neuron; the last group of a layer may be
//   smaller and is charged as a whole one.
// Goals: integers only; deterministic. Non-goals: time and bytes (sim/cost.h), files.
// Thread-safety: one driver, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "sim/policy.h"

namespace thermocline {

enum class Fill : uint8_t { step, demand };

// What a run over a pool added up to. Counts are neurons (bundles), groups counted as all of
// theirs.
struct HotSetStats {
  uint64_t step_count = 0;
  uint64_t needed = 0;    // active neurons, summed over steps
  uint64_t hits = 0;      // of these, hot when needed
  uint64_t admitted = 0;  // bundles moved into the fast tier after the start
  uint64_t evicted = 0;
  uint64_t refused = 0;  // admissions that budget or migration limit did not allow
  uint64_t loaded = 0;   // bundles loaded at the start
  uint64_t wasted = 0;   // admitted bundles that left again without having been needed
  uint64_t hot_count_peak = 0;
  uint64_t hot_count_sum = 0;  // of the steps, as each ran; over step_count: the mean
  bool operator==(const HotSetStats&) const = default;
};

// Calls visit(name, count) for each counter, by the name that result rows give it.
template <class Stats, class Visit>
requires std::same_as<std::remove_const_t<Stats>, HotSetStats>
void for_each_counter(Stats& stats, Visit visit) {
  visit("step_count", stats.step_count);
  visit("needed", stats.needed);
  visit("hits", stats.hits);
  visit("admitted", stats.admitted);
  visit("evicted", stats.evicted);
  visit("refused", stats.refused);
  visit("loaded", stats.loaded);
  visit("wasted", stats.wasted);
  visit("hot_count_peak", stats.hot_count_peak);
  visit("hot_count_sum", stats.hot_count_sum);
}

double hit_ratio(const HotSetStats& stats);  // of 1; 1 where nothing was needed
double moved_bytes_per_token(const HotSetStats& stats, uint64_t bundle_bytes);

// Adds the stats of a pool to a sum over the pools of a model, which all go through the same steps
// (step_count is theirs, not added) and hold their sets at the same time (peaks add).
void add_pool(HotSetStats& sum, const HotSetStats& pool);
// What happened since `earlier`, of the same run; the peak stays that of the whole run.
HotSetStats since(const HotSetStats& now, const HotSetStats& earlier);

struct StepCounts {
  uint32_t needed = 0;
  uint32_t hits = 0;
  uint32_t admitted = 0;
};

// `group` a power of two up to kGroupMax.
inline constexpr uint32_t kGroupMax = 1024;
// Groups as the neurons of a smaller pool: counts added up, uses joined.
NeuronPool grouped(const NeuronPool& pool, uint32_t group);
ActivationProfile grouped(const ActivationProfile& profile, uint32_t group);
FutureUses grouped(const FutureUses& uses, uint32_t group);

class PolicyDriver {
 public:
  // `context` is in neurons where group is 1; else profile, future and uses are grouped() already,
  // while pool and limits still count neurons.
  PolicyDriver(const PolicySpec& spec, const PolicyContext& context, Fill fill = Fill::step,
               uint32_t group = 1);
  PolicyDriver(const PolicyDriver&) = delete;  // its policy points into it
  PolicyDriver& operator=(const PolicyDriver&) = delete;

  // Neurons, not groups.
  StepCounts step(const ActiveStep& active);
  const HotSetStats& stats() const { return stats_; }
  const HotSet& hot() const { return hot_; }  // of groups
  // Those of the neuron pool that are hot now: (layer_count, words_per_layer).
  std::span<const uint64_t> hot_neurons() const;
  // Neurons of `words` (of the neuron pool) that are hot now.
  uint64_t count_hot(std::span<const uint64_t> words) const;
  // Hot neurons of each layer, summed over the steps so far: (layer_count).
  const std::vector<uint64_t>& hot_sum_by_layer() const { return layer_sums_; }
  std::optional<double> hot_threshold() const;

 private:
  StepCounts step_moves(const ActiveStep& active);
  StepCounts step_requests(const ActiveStep& active);
  // Where a group is: a division by the pool's width, made once.
  struct Slot {
    uint32_t flat;
    uint32_t layer;
    uint64_t word;
    uint64_t bit;  // a mask
  };
  Slot slot_of(uint32_t flat) const;
  uint32_t apply();
  StepCounts request(const ActiveStep& active, const Slot& slot);
  void insert(const Slot& slot);
  void admit(const Slot& slot);  // after the start
  void erase(const Slot& slot);
  void note_use(std::span<const uint64_t> active);
  void add_to_layer_sums();
  void end_step(const StepCounts& counts, uint64_t hot_count);
  // Calls visit(word, mask) for the words of the neuron pool that a group's neurons are in.
  template <class Visit>
  void for_each_word(uint32_t flat, Visit visit) const;
  uint32_t size_of(uint32_t flat) const;  // neurons of a group
  uint64_t hot_count() const;             // neurons that are hot now
  ActiveStep folded(const ActiveStep& active);

  NeuronPool neurons_;  // the pool; context_.pool has its groups
  uint32_t group_;
  PolicyContext context_;
  std::unique_ptr<Policy> policy_;          // Fill::step
  std::unique_ptr<RequestPolicy> request_;  // Fill::demand
  HotSet hot_;
  std::vector<uint64_t> expanded_;  // hot neurons, where group_ > 1
  std::vector<uint64_t> folded_;    // active groups, where group_ > 1
  std::vector<uint64_t> unused_;    // admitted and not needed since
  bool any_unused_ = false;
  Moves moves_;
  HotSetStats stats_;
  std::vector<uint64_t> layer_counts_, layer_sums_;  // hot neurons: now; summed over steps
};

}  // namespace thermocline
