#include "models/synthetic_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <string>

#include "models/error.h"
#include "models/firing_rates.h"

namespace thermocline {
namespace {

// Positions after which the attention pattern no longer changes by more than a few percent.
constexpr int kHorizon = 128;

double apply(const ModelShape& shape, double gate) {
  switch (shape.activation) {
    case FfnActivation::relu:
      return std::max(gate, 0.0);
    case FfnActivation::fatrelu:
      return gate >= shape.fatrelu_threshold ? gate : 0.0;
    case FfnActivation::silu:
      return gate / (1 + std::exp(-gate));
  }
  return gate;
}

// E[act(z + bias)^2] over z ~ N(0, 1), by the trapezoidal rule.
double activation_power(const ModelShape& shape, double bias) {
  constexpr double kReach = 6, kStep = 0.125;
  double sum = 0;
  for (double z = -kReach; z <= kReach; z += kStep) {
    const double value = apply(shape, z + bias);
    sum += value * value * std::exp(-z * z / 2);
  }
  return sum * kStep / std::sqrt(2 * std::numbers::pi);
}

// Mean over the neurons of layers that are active at this mean share.
double activation_power(const ModelShape& shape, double activity, double concentration) {
  return FiringRates(activity, concentration).mean_of([&shape](double bias) {
    return activation_power(shape, bias + activation_threshold(shape));
  });
}

}  // namespace

SyntheticPlan::SyntheticPlan(const ModelShape& shape, const std::vector<double>& activity,
                             double concentration, const SyntheticDynamics& dynamics)
    : shape_(shape), dynamics_(dynamics) {
  TC_CHECK(shape.model_dim > kConstantDim, "model_dim " + std::to_string(shape.model_dim));
  TC_CHECK(activity.size() == shape.layer_count, std::to_string(activity.size()) + " layers");
  // head_dim / 2 pairs, their frequencies spread evenly over ln(rope_theta): about
  // (head_dim / 2) ln(d) / ln(rope_theta) of them have turned away at distance d, each taking
  // kappa^2 / sqrt(head_dim) off the score, which is to be exponent * ln(d) lower there.
  kappa_ = std::sqrt(2 * dynamics.recency_exponent * std::log(shape.rope_theta) /
                     std::sqrt(shape.head_dim));
  const double attended = attention_variance();
  std::map<double, double> power;  // by activity: most models have one value for all layers
  double variance = 1;
  for (uint32_t l = 0; l < shape.layer_count; ++l) {
    if (!power.contains(activity[l])) {
      power[activity[l]] = activation_power(shape, activity[l], concentration);
    }
    const double share = l == 0 ? dynamics.first_context_share : dynamics.context_share;
    SyntheticLayerPlan plan;
    plan.attention_input_variance = variance;
    plan.o_std_dev = std::sqrt(share * variance / (shape.q_dim() * attended));
    plan.ffn_input_variance = variance * (1 + share);
    plan.down_std_dev = std::sqrt(dynamics.ffn_share * plan.ffn_input_variance /
                                  (shape.ffn_dim * power[activity[l]]));
    variance = plan.ffn_input_variance * (1 + dynamics.ffn_share);
    layers_.push_back(plan);
  }
  output_variance_ = variance;
}

double SyntheticPlan::unit_std_dev() const {
  return 1 / std::sqrt(static_cast<double>(shape_.model_dim - kConstantDim));
}

double SyntheticPlan::rms(double variance) const {
  const double constant = kConstantDim, gaussian = shape_.model_dim - kConstantDim;
  return std::sqrt((constant + gaussian * variance) / shape_.model_dim);
}

double SyntheticPlan::theta(uint32_t pair) const {
  return std::pow(static_cast<double>(shape_.rope_theta), -2.0 * pair / shape_.head_dim);
}

RotaryPair SyntheticPlan::query_constant(uint32_t head, uint32_t pair) const {
  const double angle = reach(head) * theta(pair);
  return {kappa_ * std::cos(angle), -kappa_ * std::sin(angle)};
}

double SyntheticPlan::attention_variance(uint32_t reach) const {
  double scores[kHorizon];
  for (int distance = 0; distance < kHorizon; ++distance) {
    scores[distance] = 0;
    for (uint32_t pair = 0; pair < shape_.head_dim / 2; ++pair) {
      const double angle = (distance - static_cast<double>(reach)) * theta(pair);
      scores[distance] += kappa_ * kappa_ * std::cos(angle) / std::sqrt(shape_.head_dim);
    }
  }
  const double largest = *std::max_element(scores, scores + kHorizon);
  double sum = 0, squares = 0;
  for (const double score : scores) {
    const double weight = std::exp(score - largest);
    sum += weight;
    squares += weight * weight;
  }
  return squares / (sum * sum);
}

double SyntheticPlan::attention_variance() const {
  double sum = 0;
  for (uint32_t reach = 1; reach <= dynamics_.reach_max; ++reach) {
    sum += attention_variance(reach);
  }
  // Key scores that depend on content, Gaussian of variance s^2, multiply the sum of squares by
  // E[exp(2 s)] / E[exp(s)]^2 = exp(s^2).
  const double content = dynamics_.content_std_dev * dynamics_.content_std_dev;
  const double key_score_variance = content * content + content * kappa_ * kappa_ / 2;
  return sum / dynamics_.reach_max * std::exp(key_score_variance);
}

}  // namespace thermocline
