// ActivityModel: what a regime asks of each layer, and of the Gaussian gates that bring it about.
//
// Rates: pi ~ Beta(m c, (1-m) c) in each layer, m from the layer profile.
// Memory: a neuron's activity at steps k apart has correlation rho^k, as a two-state Markov chain
//   has (activations.md section 3.6). Gates are Gaussian, so their correlations are those at which
//   the mean of P(both fire) over the neurons is the chain's; five of them hold unions of five
//   steps to the chain's within half a point.
// Drift: from layer 1 on, a share g of a gate's variance belongs to the sequence (its topic).
// Within
//   a sequence rates are as without drift: the lasting rates are drawn from a narrower Beta, so
//   that topic and lasting part together make up the first. g is the one at which `drift` of the
//   most active fifth of the neurons changes from one sequence to the next.
// Targets: the statistics that traces of the spec's layers are held to, from the formulas of
//   section 3.6; nothing in them is read off the weights.
// Thread-safety: const after construction.
#pragma once

#include <cstdint>
#include <vector>

#include "models/firing_rates.h"
#include "models/model_spec.h"

namespace thermocline {

class ActivityModel {
 public:
  static constexpr uint32_t kLagMax = 8;
  static constexpr uint32_t kFirstTopicLayer = 1;

  explicit ActivityModel(const ModelSpec& spec);

  uint32_t layer_count() const { return static_cast<uint32_t>(lasting_.size()); }
  // Within a sequence: the rates that the regime asks for.
  const FiringRates& within(uint32_t layer) const { return within_[layer]; }
  // Over all sequences: what gates' biases are drawn from. The same without drift.
  const FiringRates& lasting(uint32_t layer) const { return lasting_[layer]; }
  // Of gates within a sequence, at lags 1..kLagMax, beside what the topic keeps.
  const std::vector<double>& gate_correlation() const { return gate_correlation_; }
  double topic_share() const { return topic_share_; }  // g

  // Targets.
  double mean_activity() const;
  double overlap(uint32_t lag) const;
  double in_union(uint32_t window) const;  // share of neurons
  double fresh(uint32_t window) const { return in_union(window + 1) - in_union(window); }
  double share_80(uint32_t layer) const;
  double whole_share_80() const;
  double sequence_overlap() const;  // of most active fifths

 private:
  void add_drift(const FiringRates& typical, double drift);

  double correlation_;  // rho
  double drift_;
  double topic_share_ = 0;
  std::vector<double> gate_correlation_;
  std::vector<FiringRates> within_, lasting_;
};

}  // namespace thermocline
