// Statistics of activity: how much fires, how unevenly, and how alike steps and sequences are.
//
// Definitions (activations.md section 3; A_t is the set of active neurons at step t):
//   share_80: the smallest share of neurons, most active first, that carries 80 % of the firings
//     (PowerInfer, figure 4);
//   overlap(k) = sum |A_t & A_t+k| / sum |A_t|;
//   union(k): mean share of neurons that are active at least once in k consecutive steps, and
//   fresh(k): mean share that is active at a step and was not in the k before (LLM in a Flash);
//   sequence overlap: of the fifth of a layer's neurons that fires most, what one sequence shares
//     with the next. Neurons that tie for the last places share them evenly.
// Pairs and windows lie within one sequence (task).
// Goals: exact integers, one pass, memory for a few steps and three counts a neuron, whatever the
//   length of the trace; the same result for a trace on disk and for steps as they happen.
// Non-goals: what the numbers should be (runtime/synth_command.h).
// Thread-safety: a counter belongs to one thread; the rest are pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "models/neuron.h"
#include "traces/trace.h"

namespace thermocline {

struct StatisticsOptions {
  uint32_t position_min = 0;  // earlier positions of each sequence are left out
  std::vector<uint32_t> lags = {1, 2, 3, 4, 5, 8, 10, 16, 25};
  std::vector<uint32_t> windows = {1, 2, 3, 4, 5, 8};
};

// Of one layer, or of all. Nothing where the trace has no such pair, window or firing.
struct ActivityStatistics {
  std::optional<double> mean_activity;
  std::optional<double> share_80;              // over all sequences
  std::optional<double> sequence_share_80;     // the mean over sequences of what each gives
  std::vector<std::optional<double>> overlap;  // by lag
  std::vector<std::optional<double>> unions;   // by window
  std::vector<std::optional<double>> fresh;    // by window
  std::optional<double> sequence_overlap;
};

struct TraceStatistics {
  StatisticsOptions options;
  uint64_t step_count = 0;      // that were counted
  uint64_t sequence_count = 0;  // that they belong to
  std::vector<ActivityStatistics> layers;
  ActivityStatistics whole;
};

// The smallest share of `counts` that sums to 80 % of them; nothing for zeros alone.
std::optional<double> share_of_80_percent(std::vector<uint32_t> counts);

// Of the most active fifth of one sequence's neurons, the share that is so in the other.
double top_fifth_overlap(std::span<const uint32_t> a, std::span<const uint32_t> b);

class StatisticsCounter {
 public:
  StatisticsCounter(const NeuronPool& pool, const StatisticsOptions& options);

  // Consecutive steps. words: (layer_count, words_per_layer) of the pool.
  void add(const StepInfo& info, std::span<const uint64_t> words);
  // Ends the last sequence. Call once, after the last step.
  TraceStatistics finish();

 private:
  // Sums over steps of one layer.
  struct LayerSums {
    std::vector<uint64_t> both, first;         // by lag
    std::vector<uint64_t> in_union, in_fresh;  // by window
    double shared = 0;                         // top fifths, over pairs of sequences
    double share_80 = 0;                       // over sequences with firings
    uint64_t shares = 0;                       // how many those are
  };

  const uint64_t* past(uint32_t lag) const;
  void compare(uint32_t layer, std::span<const uint64_t> words);
  void widen(uint32_t layer, std::span<const uint64_t> words);
  void end_sequence();
  std::span<const uint32_t> layer_of(const std::vector<uint32_t>& counts, uint32_t layer) const;
  ActivityStatistics ratios(const LayerSums& sums, std::vector<uint32_t> counts,
                            uint32_t layer_count) const;

  NeuronPool pool_;
  StatisticsOptions options_;
  uint32_t memory_;  // steps that are remembered
  std::vector<LayerSums> sums_;
  LayerSums whole_;  // what is no sum over layers: share_80
  std::vector<uint64_t> pair_counts_, union_counts_, fresh_counts_;  // by lag and window: steps
  std::vector<uint64_t> recent_;  // (memory, words_per_step), a ring
  std::vector<uint64_t> scratch_;
  std::vector<uint32_t> total_, sequence_, previous_;  // (layer_count, neuron_count)
  uint64_t step_count_ = 0, sequence_steps_ = 0, sequence_count_ = 0;
  std::optional<uint32_t> task_;
};

TraceStatistics statistics_of(const TraceReader& reader, const StatisticsOptions& options = {});

}  // namespace thermocline
