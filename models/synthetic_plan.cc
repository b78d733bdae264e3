#include "models/synthetic_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <string>

#include "models/error.h"

namespace thermocline {
namespace {

// A rung looks back around `reach`, with the pairs whose theta is below theta_max: its window is
// about 1 / theta_max wide.
struct LadderRung {
  double theta_max, reach;
};
constexpr LadderRung kLadder[kLadderSize] = {{2.0, 1}, {0.7, 2}, {0.45, 3}, {0.3, 4}, {0.2, 6}};

// Positions after which no rung looks.
constexpr int kHorizon = 160;

// Of the softmax over some hundred saliences of this standard deviation, by sampling: the sum of
// squared weights is 0.93 over 64 positions and 0.90 over 1,024.
constexpr double kTopicVariance = 0.91;

// What the token's own embedding keeps at least, so that the others have a finite multiple of it.
constexpr double kOwnShareMin = 0.01;

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

// Mean over the neurons of layers with these rates.
double activation_power(const ModelShape& shape, const FiringRates& rates) {
  return rates.mean_of([&shape](double bias) {
    return activation_power(shape, bias + activation_threshold(shape));
  });
}

// The nearest point whose coordinates are not negative and sum to 1 (Held, Wolfe and Crowder,
// "Validation of subgradient optimization", 1974).
template <size_t N>
std::array<double, N> onto_simplex(const std::array<double, N>& point) {
  std::array<double, N> sorted = point;
  std::sort(sorted.rbegin(), sorted.rend());
  double sum = 0, excess = 0;
  for (size_t i = 0; i < N; ++i) {
    sum += sorted[i];
    const double candidate = (sum - 1) / static_cast<double>(i + 1);
    if (sorted[i] > candidate) excess = candidate;
  }
  std::array<double, N> result;
  for (size_t i = 0; i < N; ++i) result[i] = std::max(point[i] - excess, 0.0);
  return result;
}

}  // namespace

SyntheticPlan::SyntheticPlan(const ModelShape& shape, const ActivityModel& activity,
                             const SyntheticDynamics& dynamics)
    : shape_(shape), dynamics_(dynamics), topic_share_(activity.topic_share()) {
  TC_CHECK(shape.model_dim > kConstantDim, "model_dim " + std::to_string(shape.model_dim));
  TC_CHECK(activity.layer_count() == shape.layer_count,
           std::to_string(activity.layer_count()) + " layers");
  // head_dim / 2 pairs, their frequencies spread evenly over ln(rope_theta): about
  // (head_dim / 2) ln(d) / ln(rope_theta) of them have turned away at distance d, each taking
  // kappa^2 / sqrt(head_dim) off the score, which is to be exponent * ln(d) lower there.
  kappa_ = std::sqrt(2 * dynamics.recency_exponent * std::log(shape.rope_theta) /
                     std::sqrt(shape.head_dim));
  const bool whole_blocks =
      shape.head_dim % kConstantDim == 0 || kConstantDim % shape.head_dim == 0;
  unit_ = whole_blocks ? std::max(kConstantDim / shape.head_dim, 1u) : shape.head_count;
  measure_ladder();
  mix(activity.gate_correlation());
  plan_layers(activity);
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

// The widest rung first: small models may have fewer heads than the ladder has rungs, and the
// token's own embedding can do for the narrowest.
uint32_t SyntheticPlan::head_class(uint32_t layer, uint32_t head) const {
  const uint32_t unit = head / unit_;
  if (layer == ActivityModel::kFirstTopicLayer && topic_share_ > 0 && unit % 2 == 0) {
    return kTopicClass;
  }
  return kLadderSize - 1 - unit % kLadderSize;
}

// Pairs faster than the window are left out; the one at its edge in part, so that two shapes with
// other pairs have the same window.
double SyntheticPlan::pair_amplitude(uint32_t rung, uint32_t pair) const {
  if (pair == topic_pair()) return 0;
  const double pairs_below = (std::log(kLadder[rung].theta_max) - std::log(theta(pair))) *
                             shape_.head_dim / (2 * std::log(shape_.rope_theta));
  return kappa_ * std::clamp(1 + pairs_below, 0.0, 1.0);
}

RotaryPair SyntheticPlan::query_constant(uint32_t layer, uint32_t head, uint32_t pair) const {
  const uint32_t head_class = this->head_class(layer, head);
  if (head_class == kTopicClass) {
    // Keys' content in this pair has unit variance (key_content).
    const double amplitude = dynamics_.salience_std_dev * std::sqrt(shape_.head_dim);
    return {pair == topic_pair() ? amplitude : 0, 0};
  }
  // The slowest pair takes the score of the window's middle off all scores. Else they would be some
  // thirty there, and a percent that a key's token is longer or shorter than the mean would show.
  if (pair == topic_pair()) {
    double level = 0;
    for (uint32_t other = 0; other < pair; ++other) level += pair_amplitude(head_class, other);
    return {0, -level * kappa_};
  }
  const double amplitude = pair_amplitude(head_class, pair);
  const double angle = kLadder[head_class].reach * theta(pair);
  return {amplitude * std::cos(angle), -amplitude * std::sin(angle)};
}

RotaryPair SyntheticPlan::key_constant(uint32_t pair) const {
  if (pair == topic_pair()) return {0, 1};
  return {kappa_, 0};
}

double SyntheticPlan::query_content(uint32_t layer, uint32_t row) const {
  const bool topic = head_class(layer, row / shape_.head_dim) == kTopicClass;
  return topic || row % shape_.head_dim / 2 == topic_pair() ? 0 : dynamics_.content_std_dev;
}

double SyntheticPlan::key_content(uint32_t row) const {
  if (row % shape_.head_dim / 2 != topic_pair()) return dynamics_.content_std_dev;
  return row % 2 == 0 ? 1 : 0;  // turned by less than a radian over the whole context
}

void SyntheticPlan::measure_ladder() {
  for (uint32_t head = 0; head < shape_.head_count; ++head) {
    ++rungs_[head_class(0, head)].head_count;
  }
  for (uint32_t r = 0; r < kLadderSize; ++r) {
    double weights[kHorizon], sum = 0, noise = 0;
    for (int distance = 0; distance < kHorizon; ++distance) {
      double score = 0;
      for (uint32_t pair = 0; pair < shape_.head_dim / 2; ++pair) {
        const double angle = (distance - kLadder[r].reach) * theta(pair);
        score += pair_amplitude(r, pair) * kappa_ * (std::cos(angle) - 1);
      }
      sum += weights[distance] = std::exp(score / std::sqrt(shape_.head_dim));
    }
    for (double& weight : weights) weight /= sum;
    const auto product = [&](int lag) {
      double total = 0;
      for (int d = 0; d + lag < kHorizon; ++d) total += weights[d] * weights[d + lag];
      return total;
    };
    for (uint32_t pair = 0; pair < shape_.head_dim / 2; ++pair) {
      const double element = pair_amplitude(r, pair) * dynamics_.content_std_dev;
      noise += element * element / shape_.head_dim;
    }
    // Key scores that depend on content, Gaussian of variance s^2, multiply the sum of squares by
    // E[exp(2 s)] / E[exp(s)]^2 = exp(s^2).
    rungs_[r].variance = product(0) * std::exp(noise);
    for (int lag = 1; lag <= static_cast<int>(ActivityModel::kLagMax); ++lag) {
      rungs_[r].autocorrelation.push_back(product(lag) / product(0));
    }
  }
}

// The mixture of the token's own embedding (place 0) and of the rungs whose autocorrelation is
// nearest to the target, by projected gradient with momentum (Beck and Teboulle 2009). Small lags
// count most: they carry overlaps and unions of a few steps.
void SyntheticPlan::mix(const std::vector<double>& target) {
  constexpr double kLagWeights[ActivityModel::kLagMax] = {30, 8, 3, 2, 1, 1, 1, 1};
  constexpr int kRounds = 3000;
  using Point = std::array<double, kLadderSize + 1>;
  const auto correlation_of = [&](size_t place, size_t lag) {
    if (place == 0 || rungs_[place - 1].head_count == 0) return 0.0;
    return rungs_[place - 1].autocorrelation[lag];
  };
  double steepest = 0;  // the trace bounds the largest eigenvalue
  for (size_t lag = 0; lag < target.size(); ++lag) {
    for (size_t i = 0; i <= kLadderSize; ++i) {
      steepest += kLagWeights[lag] * correlation_of(i, lag) * correlation_of(i, lag);
    }
  }
  Point point{}, ahead{};
  point[0] = ahead[0] = 1;
  double momentum = 1;
  for (int round = 0; round < kRounds && steepest > 0; ++round) {
    Point next = ahead;
    for (size_t lag = 0; lag < target.size(); ++lag) {
      double error = -target[lag];
      for (size_t i = 0; i <= kLadderSize; ++i) error += ahead[i] * correlation_of(i, lag);
      for (size_t i = 0; i <= kLadderSize; ++i) {
        next[i] -= kLagWeights[lag] * error * correlation_of(i, lag) / steepest;
      }
    }
    next = onto_simplex(next);
    const double following = (1 + std::sqrt(1 + 4 * momentum * momentum)) / 2;
    for (size_t i = 0; i <= kLadderSize; ++i) {
      ahead[i] = next[i] + (momentum - 1) / following * (next[i] - point[i]);
    }
    point = next;
    momentum = following;
  }
  for (size_t i = 1; i <= kLadderSize; ++i) {
    if (rungs_[i - 1].head_count > 0) continue;  // as good as the token's own
    point[0] += point[i];
    point[i] = 0;
  }
  double sum = 0;
  for (size_t i = 0; i <= kLadderSize; ++i) {
    // In steps of 1/4096, so that no library's last bit shows.
    mixture_[i] = std::round(std::max(point[i], i == 0 ? kOwnShareMin : 0.0) * 4096) / 4096;
    sum += mixture_[i];
  }
  for (double& share : mixture_) share /= sum;
}

std::vector<double> SyntheticPlan::autocorrelation() const {
  std::vector<double> result(ActivityModel::kLagMax);
  for (size_t lag = 0; lag < result.size(); ++lag) {
    for (size_t r = 0; r < kLadderSize; ++r) {
      result[lag] += mixture_[r + 1] * rungs_[r].autocorrelation[lag];
    }
  }
  return result;
}

// What is left of the variance of the values that a head averages. Those of later layers resemble
// their neighbours.
double SyntheticPlan::attended_variance(uint32_t layer, uint32_t head_class) const {
  if (head_class == kTopicClass) return kTopicVariance;
  const Rung& rung = rungs_[head_class];
  if (layer == 0) return rung.variance;
  double sum = 1;
  const std::vector<double> values = autocorrelation();
  for (size_t lag = 0; lag < values.size(); ++lag) {
    sum += 2 * rung.autocorrelation[lag] * values[lag];
  }
  return rung.variance * sum;
}

SyntheticLayerPlan SyntheticPlan::plan_attention(uint32_t layer, double variance) const {
  std::array<uint32_t, kHeadClassCount> heads{};
  for (uint32_t head = 0; head < shape_.head_count; ++head) ++heads[head_class(layer, head)];
  const uint32_t ladder_heads = shape_.head_count - heads[kTopicClass];
  SyntheticLayerPlan plan{};
  plan.attention_input_variance = variance;
  double added = 0;
  for (uint32_t c = 0; c < kHeadClassCount; ++c) {
    if (heads[c] == 0) continue;
    double share = topic_share_ / (1 - topic_share_);
    if (c != kTopicClass) {
      share = layer == 0 ? mixture_[c + 1] / mixture_[0]
                         : dynamics_.context_share * heads[c] / ladder_heads;
    }
    added += share;
    const double columns = static_cast<double>(heads[c]) * shape_.head_dim;
    plan.o_std_dev[c] = std::sqrt(share * variance / (columns * attended_variance(layer, c)));
  }
  plan.ffn_input_variance = variance * (1 + added);
  return plan;
}

void SyntheticPlan::plan_layers(const ActivityModel& activity) {
  std::map<std::pair<double, double>, double> powers;  // many models have one value for all layers
  double variance = 1;
  for (uint32_t l = 0; l < shape_.layer_count; ++l) {
    SyntheticLayerPlan plan = plan_attention(l, variance);
    const FiringRates& rates = activity.lasting(l);
    const auto [found, absent] = powers.try_emplace({rates.mean(), rates.concentration()}, 0);
    if (absent) found->second = activation_power(shape_, rates);
    plan.down_std_dev =
        std::sqrt(dynamics_.ffn_share * plan.ffn_input_variance / (shape_.ffn_dim * found->second));
    variance = plan.ffn_input_variance * (1 + dynamics_.ffn_share);
    layers_.push_back(plan);
  }
  output_variance_ = variance;
}

}  // namespace thermocline
