// The most active fifth of a layer's neurons: whom it holds, what two of them share, what it
// carries; and how firings spread over neurons.
//
// Neurons that tie for the last places share them evenly, so that no figure depends on an order.
// Goals: exact integers up to the last division; linear in the neurons.
// Non-goals: whose counts they are (traces/layer_counter.h).
// Thread-safety: pure functions and plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace thermocline {

inline constexpr double kTopShare = 0.2;  // a fifth

// Who holds the top places of counts.
struct TopFifth {
  uint32_t last = 0;             // count of the last place
  uint64_t tied = 0;             // neurons with just that count
  uint64_t places_for_tied = 0;  // that they share
};

TopFifth top_fifth(std::span<const uint32_t> counts);

// The same as bits: 2 bits a neuron, to be kept for later.
class TopSet {
 public:
  TopSet() = default;
  explicit TopSet(std::span<const uint32_t> counts);

  // Of the places of one, the share that the same neurons hold in the other.
  double overlap(const TopSet& other) const;

  static uint64_t bytes_of(uint32_t neuron_count);

 private:
  double tied_share_ = 0;  // of a place, that each of the tied holds
  uint64_t places_ = 0;
  std::vector<uint64_t> above_, tied_;  // (words_per_layer)
};

// Of the most active fifth of one sequence's neurons, the share that is so in the other.
double top_fifth_overlap(std::span<const uint32_t> a, std::span<const uint32_t> b);

// Of the firings in `counts`, how many belong to the most active fifth by `choice`. A quotient only
// where neurons tie for the last places, so that no choice gives more than `counts` itself.
double top_fifth_firings(std::span<const uint32_t> choice, std::span<const uint32_t> counts);

// How many neurons fired 0, 1, 2 ... times.
class FiringHistogram {
 public:
  void add(std::span<const uint32_t> counts);
  void add(const FiringHistogram& more);

  uint64_t neurons() const { return neurons_; }
  uint64_t firings() const { return firings_; }
  // The smallest share of neurons, most active first, that has 80 % of the firings; nothing where
  // none fired.
  std::optional<double> share_of_80_percent() const;
  // Of the firings, the share that the most active 1/points, 2/points ... 1 of the neurons has;
  // empty where none fired.
  std::vector<double> carried(uint32_t points) const;

 private:
  std::vector<uint32_t> neurons_by_count_;
  uint64_t neurons_ = 0, firings_ = 0;
};

}  // namespace thermocline
