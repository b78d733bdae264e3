// Statistics of activity: how much fires, how unevenly, and how alike steps and sequences are.
//
// Definitions (activations.md section 3; A_t is the set of active neurons at step t):
//   share_80: the smallest share of neurons, most active first, that carries 80 % of the firings
//     (PowerInfer, figure 4);
//   overlap(k) = sum |A_t & A_t+k| / sum |A_t|;
//   union(k): mean share of neurons that are active at least once in k consecutive steps, and
//   fresh(k): mean share that is active at a step and was not in the k before (LLM in a Flash);
//   task overlap(d): of the fifth of a layer's neurons that fires most, what one sequence shares
//     with the d-th after it; sequence overlap is that with the next. Neurons that tie for the last
//     places share them evenly (traces/top_fifth.h). Chance alone shares a fifth.
//   half overlap: the same between the even and the odd steps of one sequence, mean over sequences:
//     what sampling leaves of a hot set that was counted on half of the steps;
//   half task overlap(d): the same between the even steps of a sequence and the odd steps of the
//     d-th after it, half next overlap that of the next: as few steps, another text. What is
//     missing against the half overlap is at most due to the text: neighbouring steps are alike
//     too;
//   carried(p): the share of the firings that the most active p percent of neurons have;
//   recall: of the active neurons, the share that was predicted; precision: of the predicted, the
//     share that was active; false positives: of the neurons that were not active, the share that
//     was predicted.
//   own coverage: the share of a sequence's firings that its own top fifth of each layer carries,
//     mean over the sequences from the second on. Hindsight: no hot set of a fifth of each layer,
//     chosen anew for each sequence, can hit more;
//   past coverage: of the same firings, the share that the top fifth of all earlier sequences
//     carries: what a fixed set hits that was profiled on everything before. Never more than own.
//   For all layers together, overlaps of top fifths are means over layers, coverages weigh each
//   layer by its firings.
// Pairs and windows lie within one sequence, which is the steps of one task, wherever they stand
//   among those of other tasks; sequences follow each other in the order in which they end. Where
//   steps are left out, even and odd count from the first that is not.
// Goals: exact integers; memory for a few steps and counts of each neuron, whatever the length of
//   the trace; the same result for a trace on disk and for steps as they happen, for any number of
//   threads, and for tasks that alternate.
// Non-goals: what the numbers should be (runtime/synth_command.h).
// Thread-safety: a counter belongs to one thread; the rest are pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "models/neuron.h"
#include "traces/trace.h"

namespace thermocline {

// In tasks, from one top fifth to another.
inline constexpr std::array<uint32_t, 4> kTaskDistances = {1, 2, 4, 8};
// Of `carried`: by the most active 1 %, 2 % ... 100 % of neurons.
inline constexpr uint32_t kCarriedPoints = 100;

struct StatisticsOptions {
  uint32_t position_min = 0;  // earlier positions of each sequence are left out
  std::vector<uint32_t> lags = {1, 2, 3, 4, 5, 8, 10, 16, 25};
  std::vector<uint32_t> windows = {1, 2, 3, 4, 5, 8};
};

// How counting is done: nothing of it changes a result.
struct CountingLimits {
  uint32_t threads = 1;
  uint64_t bytes_max = uint64_t{512} << 20;  // of counts and remembered steps
};

// Of one layer, or of all. Nothing where the trace has no such pair, window or firing.
struct ActivityStatistics {
  using Shares = std::vector<std::optional<double>>;

  std::optional<double> mean_activity;
  std::optional<double> share_80;           // over all sequences
  std::optional<double> sequence_share_80;  // the mean over sequences of what each gives
  std::vector<double> carried;              // by percent of neurons, from 1 to 100; or empty
  Shares overlap;                           // by lag
  Shares unions, fresh;                     // by window
  Shares task_overlap, half_task_overlap;   // by task distance
  std::optional<double> sequence_overlap, half_next_overlap;  // those of distance 1
  std::optional<double> half_overlap;
  std::optional<double> own_coverage, past_coverage;
  // Where the trace has predictions.
  std::optional<double> predicted;  // share of neurons, as mean_activity
  std::optional<double> recall, precision, false_positives;
};

struct TraceStatistics {
  StatisticsOptions options;
  uint64_t step_count = 0;      // that were counted
  uint64_t sequence_count = 0;  // that they belong to
  bool has_predicted = false;
  std::vector<ActivityStatistics> layers;
  ActivityStatistics whole;
};

// Of steps as they happen: each task's come together, and a task ends where another begins.
class StatisticsCounter {
 public:
  StatisticsCounter(const NeuronPool& pool, const StatisticsOptions& options);
  ~StatisticsCounter();

  // words: (layer_count, words_per_layer) of the pool.
  void add(const StepInfo& info, std::span<const uint64_t> words);
  // Ends the last sequence. Call once, after the last step.
  TraceStatistics finish();

 private:
  class State;
  std::unique_ptr<State> state_;
};

// Of a whole trace, tasks as they are. Where the sequences that are open at once are too many for
// limits.bytes_max, layers take turns: the trace is read as often as it takes, each time other
// layers. Error{failed}: not even one layer fits.
// progress: called now and then with the steps that were read, of step_count(); may throw.
TraceStatistics statistics_of(const TraceReader& reader, const StatisticsOptions& options = {},
                              const std::function<void(uint64_t done)>& progress = {},
                              const CountingLimits& limits = {});

}  // namespace thermocline
