// Everything that trace statistics count in one layer (definitions: traces/statistics.h).
//
// Goals: layers know nothing of each other, so that any of them can be counted by any thread or in
//   any pass over the trace; exact integers wherever the definition is one; memory for a few steps
//   and four counts a neuron for each sequence that is open.
// Non-goals: which step belongs to which sequence (traces/sequences.h); ratios
//   (traces/statistics.cc).
// Thread-safety: a counter belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "models/bit_sums.h"
#include "traces/sequences.h"
#include "traces/statistics.h"
#include "traces/top_fifth.h"

namespace thermocline {

// Firings of one sequence: that a top fifth carries, and all.
struct Carried {
  double own = 0, past = 0;
  uint64_t fired = 0;

  void add(const Carried& more) {
    own += more.own;
    past += more.past;
    fired += more.fired;
  }
};

// Sums of one layer, or of several.
struct LayerSums {
  explicit LayerSums(const StatisticsOptions& options);
  void add(const LayerSums& more);

  std::vector<uint64_t> both, first;                        // by lag: neurons
  std::vector<uint64_t> in_union, unions;                   // by window: neurons, windows
  std::vector<uint64_t> in_fresh, freshes;                  // the same
  std::array<double, kTaskDistances.size()> shared{};       // top fifths, over pairs of sequences
  std::array<double, kTaskDistances.size()> half_shared{};  // the same of halves
  std::array<uint64_t, kTaskDistances.size()> pairs{}, half_pairs{};
  double halves = 0;  // over sequences of two steps and more
  uint64_t half_count = 0;
  uint64_t predicted = 0, foreseen = 0;  // neurons, where predictions are counted
};

// Means over sequences, of one layer or of all layers together.
struct SequenceMeans {
  double share_80 = 0;  // over sequences with firings
  uint64_t shares = 0;
  double own = 0, past = 0;  // over later sequences with firings
  uint64_t coverages = 0;

  void add(const FiringHistogram& sequence);
  void add(const Carried& carried);
};

class LayerCounter {
 public:
  LayerCounter(uint32_t neuron_count, const StatisticsOptions& options);

  // Memory for slots [0, slot_count), which steps then find.
  void open_slots(uint32_t slot_count);
  // `words`: (words_per_layer) active; `predicted` the same or null.
  void step(const SequenceEvent& event, const uint64_t* words, const uint64_t* predicted);
  // What the sequence leaves to be joined with other layers; `carried` for the second and later
  // ones.
  struct Ended {
    FiringHistogram histogram;
    Carried carried;
  };
  Ended end(const SequenceEvent& event);

  const LayerSums& sums() const { return sums_; }
  const SequenceMeans& means() const { return means_; }
  std::span<const uint32_t> total() const { return total_; }  // (neuron_count) ended sequences

  // Memory of a counter, and of each slot for an open sequence.
  static uint64_t bytes_of(uint32_t neuron_count);
  static uint64_t slot_bytes_of(uint32_t neuron_count, const StatisticsOptions& options);

 private:
  struct Open {
    std::vector<uint64_t> recent;            // (memory, words_per_layer), a ring of steps
    std::vector<uint64_t> active;            // (memory) neurons of these steps
    std::vector<uint64_t> last_union;        // by window: neurons in the one that ended last
    std::array<BitCounter, 2> even_and_odd;  // steps
  };
  struct Tops {
    TopSet all, even;
  };

  const uint64_t* past(const Open& open, uint64_t steps, uint64_t lag) const;
  void compare(const Open& open, uint64_t steps, const uint64_t* words);
  void widen(Open& open, uint64_t steps, const uint64_t* words, uint64_t active);
  void foresee(const uint64_t* words, const uint64_t* predicted);
  void compare_tops(const Tops& tops, const TopSet* odd);
  Carried coverage(std::span<const uint32_t> counts) const;

  uint32_t neuron_count_, words_;
  StatisticsOptions options_;
  uint32_t memory_, widest_;  // steps that are remembered; the widest window
  LayerSums sums_;
  SequenceMeans means_;
  std::vector<Open> open_;        // by slot
  std::vector<uint64_t> joined_;  // (words_per_layer), while a window is widened
  std::vector<uint64_t> widths_;  // its neurons after 1, 2 ... steps
  std::vector<uint32_t> total_;   // (neuron_count)
  std::deque<Tops> earlier_;      // of sequences, the latest first
};

}  // namespace thermocline
