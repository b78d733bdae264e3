// The scales of synthetic weights: what makes the firing rates come out of a real forward pass.
//
// The residual stream of model_dim coordinates is split in two:
//   coordinates 0..31 hold the constant 1 at every token and layer: embeddings put it there, the
//     output rows of W_o and the columns of W_down for these coordinates are zero. This constant
//     direction stands in for the bias that LLaMA's gate lacks (activations.md section 3.6);
//   the others are Gaussian over tokens, of a variance that the plan knows at every layer: 1 from
//     the embedding, plus a chosen share from each attention and each FFN, whose inputs are
//     normalised and whose output variances follow from the scales of their weights.
// Norm weights undo the growth: every matrix sees unit variance, and the constant as 1.
// So gate = z + bias with z ~ N(0, 1) for every neuron. Its sign depends on the ratio of the two
//   parts alone: RMSNorm scales both alike.
// Attention looks back by position: the constant part of query and key gives the score
//   kappa^2 sum_i cos((distance - reach) theta_i) / sqrt(head_dim), whose softmax falls off around
//   `reach` as a power of the distance. Its output variance is then known whatever the text, and
//   the same token at another position meets another context.
// Goals: one place for the numbers that temporal statistics depend on. Non-goals: elements.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "models/shape.h"

namespace thermocline {

// Variances are relative to the stream's at that point.
struct SyntheticDynamics {
  double first_context_share = 0.4;  // what the first attention adds: the token's neighbours
  double context_share = 0.003;      // what each later attention adds
  double ffn_share = 0.02;           // what each FFN adds
  double recency_exponent = 2.0;     // attention falls off as distance^-exponent
  uint32_t reach_max = 8;            // head h looks back around 1 + h mod reach_max positions
  double content_std_dev = 0.25;     // of query and key elements that depend on content
  double logit_std_dev = 2.0;
};

// The gate value at which a neuron fires: 0, or FATReLU's threshold.
inline double activation_threshold(const ModelShape& shape) {
  return shape.activation == FfnActivation::fatrelu ? shape.fatrelu_threshold : 0.0;
}

// Elements of query and key in one rotary pair: q = (cosine, -sine), k = (amplitude, 0).
struct RotaryPair {
  double even, odd;
};

struct SyntheticLayerPlan {
  double attention_input_variance, ffn_input_variance;  // of the stream's Gaussian coordinates
  double o_std_dev, down_std_dev;                       // of an element
};

class SyntheticPlan {
 public:
  // activity: mean share of active neurons by layer; concentration: c of their Beta.
  SyntheticPlan(const ModelShape& shape, const std::vector<double>& activity, double concentration,
                const SyntheticDynamics& dynamics = {});

  // Coordinates of the constant: one block of a quantised type, with a scale of its own.
  static constexpr uint32_t kConstantDim = 32;

  const SyntheticDynamics& dynamics() const { return dynamics_; }
  const SyntheticLayerPlan& layer(uint32_t layer) const { return layers_[layer]; }
  double output_variance() const { return output_variance_; }
  // Of an element that makes a unit Gaussian out of a normalised stream.
  double unit_std_dev() const;
  // RMS of a stream whose Gaussian coordinates have this variance.
  double rms(double variance) const;
  // The constant part of pair `pair` of query head `head`, and of every key head.
  RotaryPair query_constant(uint32_t head, uint32_t pair) const;
  RotaryPair key_constant() const { return {kappa_, 0.0}; }

 private:
  // Mean over heads of the sum of squared attention weights: the variance that averaging leaves.
  double attention_variance() const;
  double attention_variance(uint32_t reach) const;
  double theta(uint32_t pair) const;
  uint32_t reach(uint32_t head) const { return 1 + head % dynamics_.reach_max; }

  ModelShape shape_;
  SyntheticDynamics dynamics_;
  double kappa_;
  double output_variance_;
  std::vector<SyntheticLayerPlan> layers_;
};

}  // namespace thermocline
