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
//   half overlap: the same between the even and the odd steps of one sequence, mean over sequences:
//     what sampling leaves of a hot set that was counted on half of the steps;
//   half next overlap: the same between the even steps of a sequence and the odd steps of the next:
//     as few steps, another text. What is missing against the half overlap is at most due to the
//     text: neighbouring steps are alike too;
//   own coverage: the share of a sequence's firings that its own top fifth of each layer carries,
//     mean over the sequences from the second on. Hindsight: no hot set of a fifth of each layer,
//     chosen anew for each sequence, can hit more;
//   past coverage: of the same firings, the share that the top fifth of all earlier sequences
//     carries: what a fixed set hits that was profiled on everything before. Never more than own.
//   For all layers together, overlaps of top fifths are means over layers, coverages weigh each
//   layer by its firings.
// Pairs and windows lie within one sequence (task), except where another is named. Where steps are
//   left out, even and odd count from the first that is not.
// Goals: exact integers, one pass, memory for a few steps and six counts a neuron, whatever the
//   length of the trace; the same result for a trace on disk and for steps as they happen.
// Non-goals: what the numbers should be (runtime/synth_command.h).
// Thread-safety: a counter belongs to one thread; the rest are pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
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
  std::optional<double> half_overlap, half_next_overlap;
  std::optional<double> own_coverage, past_coverage;
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

// Of the firings in `counts`, how many belong to the most active fifth by `choice`. A quotient only
// where neurons tie for the last places, so that no choice gives more than `counts` itself.
double top_fifth_firings(std::span<const uint32_t> choice, std::span<const uint32_t> counts);

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
    double halves = 0, half_next = 0;          // the same of halves
    double share_80 = 0;                       // over sequences with firings
    uint64_t shares = 0;                       // how many those are
    double own = 0, past = 0;                  // coverages, over later sequences with firings
    uint64_t coverages = 0;                    // how many those are
  };
  // Firings of one sequence that a top fifth carries, and all.
  struct Carried {
    double own = 0, past = 0;
    uint64_t fired = 0;
  };

  const uint64_t* past(uint32_t lag) const;
  void compare(uint32_t layer, std::span<const uint64_t> words);
  void widen(uint32_t layer, std::span<const uint64_t> words);
  void end_sequence();
  void add_share(LayerSums& sums, std::span<const uint32_t> counts) const;
  void compare_halves();
  void compare_with_previous();
  void cover();
  static void add_coverage(LayerSums& sums, const Carried& carried);
  std::span<const uint32_t> layer_of(const std::vector<uint32_t>& counts, uint32_t layer) const;
  ActivityStatistics ratios(const LayerSums& sums, std::vector<uint32_t> counts,
                            uint32_t layer_count) const;

  NeuronPool pool_;
  StatisticsOptions options_;
  uint32_t memory_;  // steps that are remembered
  std::vector<LayerSums> sums_;
  LayerSums whole_;  // what is no sum over layers: share_80, coverages
  std::vector<uint64_t> pair_counts_, union_counts_, fresh_counts_;  // by lag and window: steps
  std::vector<uint64_t> recent_;  // (memory, words_per_step), a ring
  std::vector<uint64_t> scratch_;
  // (layer_count, neuron_count) each: of all sequences that ended; of this one's even and odd
  // steps, and of both; of the sequence before it, and of its even steps.
  std::vector<uint32_t> total_;
  std::array<std::vector<uint32_t>, 2> halves_;
  std::vector<uint32_t> sequence_, previous_, previous_even_;
  uint64_t step_count_ = 0, sequence_steps_ = 0, sequence_count_ = 0;
  uint64_t half_count_ = 0, half_next_count_ = 0;  // pairs of halves
  std::optional<uint32_t> task_;
};

// progress: called now and then with the steps that were read.
TraceStatistics statistics_of(const TraceReader& reader, const StatisticsOptions& options = {},
                              const std::function<void(uint64_t done)>& progress = {});

}  // namespace thermocline
