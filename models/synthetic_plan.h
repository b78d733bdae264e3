// The scales of synthetic weights: what makes rates and memory come out of a real forward pass.
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
// Memory comes from the first attention. Its heads form a ladder (kLadder): each looks back by
//   position over a window of its own, since the constant part of query and key gives the score
//   sum_i a_i cos((distance - reach) theta_i), over the rotary pairs slower than the window is
//   wide. The mean over a window changes slowly, and its autocorrelation follows from the softmax
//   of the scores. How much each rung adds beside the token's own embedding is chosen so that the
//   sum has the autocorrelation that the gates need (models/activity_model.h). Later layers add
//   little, and keep it.
// Topics come from the second attention: a key's content in the slowest rotary pair is a salience,
//   Gaussian over positions, and half of the heads read the most salient position so far. That
//   position seldom changes within a text, and is another one in another text.
// Goals: one place for the numbers that temporal statistics depend on. Non-goals: elements.
// Thread-safety: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "models/activity_model.h"
#include "models/shape.h"

namespace thermocline {

// Variances are relative to the stream's at that point.
struct SyntheticDynamics {
  double context_share = 0.001;    // what each attention after the first adds, beside topics
  double ffn_share = 0.005;        // what each FFN adds
  double recency_exponent = 4.0;   // attention falls off as distance^-exponent past its window
  double content_std_dev = 0.1;    // of query and key elements that depend on content
  double salience_std_dev = 32.0;  // of the score of the topic heads
  double logit_std_dev = 2.0;
};

// The gate value at which a neuron is active: 0, or FATReLU's threshold. SiLU has no zeros: there
// it is the value whose |silu| is that of the most negative one, 0.27846. So the neurons above it
// are those of the largest |silu|, and a magnitude rule finds just them.
inline constexpr double kSiluGateThreshold = 0.45511541646536147;
inline constexpr float kSiluMagnitudeThreshold = 0.27846454f;
inline double activation_threshold(const ModelShape& shape) {
  switch (shape.activation) {
    case FfnActivation::relu:
      return 0;
    case FfnActivation::fatrelu:
      return shape.fatrelu_threshold;
    case FfnActivation::silu:
      return kSiluGateThreshold;
  }
  return 0;
}

// Elements of query and key in one rotary pair: q = (cosine, -sine), k = (amplitude, 0).
struct RotaryPair {
  double even, odd;
};

// Heads look back over kLadder[0..4]; those of kTopicClass read the most salient position.
inline constexpr uint32_t kLadderSize = 5;
inline constexpr uint32_t kTopicClass = kLadderSize;
inline constexpr uint32_t kHeadClassCount = kLadderSize + 1;

struct SyntheticLayerPlan {
  double attention_input_variance, ffn_input_variance;  // of the stream's Gaussian coordinates
  std::array<double, kHeadClassCount> o_std_dev;        // of an element, by class of its column
  double down_std_dev;
};

class SyntheticPlan {
 public:
  SyntheticPlan(const ModelShape& shape, const ActivityModel& activity,
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

  // Columns of heads in one block of 32 are of one class.
  uint32_t head_class(uint32_t layer, uint32_t head) const;
  // The constant part of pair `pair` of a query head, and of every key head.
  RotaryPair query_constant(uint32_t layer, uint32_t head, uint32_t pair) const;
  RotaryPair key_constant(uint32_t pair) const;
  // Standard deviation over content of row `row` of q or k, for unit inputs.
  double query_content(uint32_t layer, uint32_t row) const;
  double key_content(uint32_t row) const;

  // Share of the first FFN input's variance: the token's own embedding, then each rung's.
  const std::array<double, kLadderSize + 1>& mixture() const { return mixture_; }
  // Of the first FFN input, at lags 1..ActivityModel::kLagMax.
  std::vector<double> autocorrelation() const;

 private:
  struct Rung {
    uint32_t head_count = 0;
    double variance = 0;                  // that averaging leaves of a unit variance
    std::vector<double> autocorrelation;  // of the average, at lags 1..kLagMax
  };

  void measure_ladder();
  void mix(const std::vector<double>& target);
  void plan_layers(const ActivityModel& activity);
  SyntheticLayerPlan plan_attention(uint32_t layer, double variance) const;
  double attended_variance(uint32_t layer, uint32_t head_class) const;
  double pair_amplitude(uint32_t rung, uint32_t pair) const;  // of the query
  double theta(uint32_t pair) const;
  uint32_t topic_pair() const { return shape_.head_dim / 2 - 1; }  // the slowest

  ModelShape shape_;
  SyntheticDynamics dynamics_;
  double topic_share_;
  double kappa_;   // amplitude of keys, and of queries in the pairs that they use
  uint32_t unit_;  // heads side by side that are of one class
  double output_variance_ = 0;
  std::array<Rung, kLadderSize> rungs_;
  std::array<double, kLadderSize + 1> mixture_{};
  std::vector<SyntheticLayerPlan> layers_;
};

}  // namespace thermocline
