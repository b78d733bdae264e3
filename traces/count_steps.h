// CountSteps: steps whose sum is a given count for each neuron. Counts of a selection.
//
// Neuron i with c of N steps is active at step s where an error term that grows by c passes N
//   (Bresenham's line): exactly c of N steps, as evenly as integers can be. Where each neuron's
//   term begins is hashed from its index, so that neurons of one count do not fire in unison.
// Goals: counts that other tools collected can serve as a profile (replay --profile).
// Non-goals: an order of steps that means anything; whoever stores such steps says so.
// Thread-safety: one object, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/neuron.h"
#include "traces/trace_format.h"

namespace thermocline {

class CountSteps {
 public:
  // `counts` (pool.total()) were collected over `counted_steps`, which none of them passes. Where
  // `step_count` differs, they are scaled to it and rounded to the nearest.
  CountSteps(const NeuronPool& pool, std::vector<uint32_t> counts, uint64_t counted_steps,
             uint64_t step_count);

  std::span<const uint64_t> next();  // (layer_count, words_per_layer); valid until the next call
  const std::vector<uint32_t>& counts() const { return counts_; }  // over step_count

 private:
  NeuronPool pool_;
  uint64_t step_count_;
  std::vector<uint32_t> counts_, terms_;
  std::vector<uint64_t> words_;
};

// How many steps are made of a task of `counted_steps`, of `counted_total` in all: the same, or its
// share of options.profile_steps, at least one.
uint64_t steps_to_make(uint64_t counted_steps, uint64_t counted_total,
                       const ImportOptions& options);

// Says in `facts` that steps were made, and how.
void note_made_steps(SourceFacts& facts, uint64_t counted_total);

// Firing counts of the selected steps, of one of its tasks or of all (-1).
ActivationProfile count_selected(const Selection& selection, int64_t task,
                                 const std::function<void(uint64_t steps)>& progress);

}  // namespace thermocline
