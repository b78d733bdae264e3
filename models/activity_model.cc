#include "models/activity_model.h"

#include <cmath>
#include <map>

#include "models/activity_profile.h"
#include "models/error.h"

namespace thermocline {
namespace {

double square(double x) { return x * x; }

// E[pi^2]: how often two independent steps both fire.
double joint_mean(const FiringRates& rates) {
  return rates.mean_of([](double bias) { return square(normal_cdf(bias)); });
}

// E[P(both fire)] at this correlation of the gates.
double joint_mean(const FiringRates& rates, double gate_correlation) {
  return rates.mean_of([=](double bias) { return joint_rate(bias, gate_correlation); });
}

double rate_mean(const FiringRates& rates) {
  return rates.mean_of([](double bias) { return normal_cdf(bias); });
}

// The value in [low, high] at which the growing `function` reaches `target`, or the nearer end.
template <class Function>
double solve(double low, double high, double target, Function function) {
  for (int i = 0; i < 30; ++i) {
    const double middle = (low + high) / 2;
    (function(middle) < target ? low : high) = middle;
  }
  return low;
}

// Rates of this mean whose neurons, with a topic of share g in their gates, share as much between
// distant steps of one sequence as neurons with the rates `within` do.
FiringRates lasting_rates(const FiringRates& within, double topic_share) {
  const double target = joint_mean(within);
  const double mean = within.mean();
  // A narrower Beta has a larger c and a smaller joint mean.
  const double log_c = -solve(-std::log(4096.0), -std::log(within.concentration()), target,
                              [&](double negative_log_c) {
                                return joint_mean({mean, std::exp(-negative_log_c)}, topic_share);
                              });
  return {mean, std::exp(log_c)};
}

// Of the most active fifth within one sequence, the share that is so in another. A neuron's score
// is bias + sqrt(g) n with n ~ N(0, 1) drawn anew for each sequence.
double fifth_overlap(const FiringRates& lasting, double topic_share) {
  const auto above = [&](double threshold) {
    return lasting.mean_of(
        [&](double bias) { return normal_cdf((bias - threshold) / std::sqrt(topic_share)); });
  };
  const double threshold = solve(-6, 6, -0.2, [&](double x) { return -above(x); });
  return lasting.mean_of([&](double bias) {
    return square(normal_cdf((bias - threshold) / std::sqrt(topic_share)));
  }) / 0.2;
}

FiringRates rates_of(const ActivityRegime& regime, double mean) {
  if (regime.share_80 > 0) return FiringRates::with_share(mean, regime.share_80);
  return {mean, regime.concentration};
}

}  // namespace

ActivityModel::ActivityModel(const ModelSpec& spec)
    : correlation_(spec.regime.correlation), drift_(spec.regime.drift) {
  std::map<double, FiringRates> known;  // many models have one value for all layers
  for (const double mean : layer_activity(spec)) {
    auto found = known.find(mean);
    if (found == known.end()) found = known.emplace(mean, rates_of(spec.regime, mean)).first;
    within_.push_back(found->second);
  }
  lasting_ = within_;
  // One stream serves all layers: its correlations are those that a typical layer asks for.
  const FiringRates typical = rates_of(spec.regime, spec.regime.mean);
  const double mean = rate_mean(typical), independent = joint_mean(typical);
  for (uint32_t lag = 1; lag <= kLagMax; ++lag) {
    const double target = independent + std::pow(correlation_, lag) * (mean - independent);
    gate_correlation_.push_back(
        solve(0, 0.9999, target, [&](double r) { return joint_mean(typical, r); }));
  }
  if (drift_ > 0) add_drift(typical, drift_);
}

void ActivityModel::add_drift(const FiringRates& typical, double drift) {
  topic_share_ = solve(1e-4, 0.9, drift,
                       [&](double g) { return 1 - fifth_overlap(lasting_rates(typical, g), g); });
  std::map<double, FiringRates> known;
  for (uint32_t layer = kFirstTopicLayer; layer < layer_count(); ++layer) {
    const double mean = within_[layer].mean();
    auto found = known.find(mean);
    if (found == known.end()) {
      found = known.emplace(mean, lasting_rates(within_[layer], topic_share_)).first;
    }
    lasting_[layer] = found->second;
  }
}

double ActivityModel::mean_activity() const {
  double sum = 0;
  for (const FiringRates& layer : within_) sum += rate_mean(layer);
  return sum / layer_count();
}

double ActivityModel::overlap(uint32_t lag) const {
  const double memory = std::pow(correlation_, lag);
  double both = 0, first = 0;
  for (const FiringRates& layer : within_) {
    const double mean = rate_mean(layer), independent = joint_mean(layer);
    both += independent + memory * (mean - independent);
    first += mean;
  }
  return both / first;
}

// U(k) = 1 - E[(1 - pi) (1 - pi (1 - rho))^(k-1)].
double ActivityModel::in_union(uint32_t window) const {
  double sum = 0;
  for (const FiringRates& layer : within_) {
    sum += 1 - layer.mean_of([&](double bias) {
      const double rate = normal_cdf(bias);
      return (1 - rate) * std::pow(1 - rate * (1 - correlation_), window - 1);
    });
  }
  return sum / layer_count();
}

double ActivityModel::share_80(uint32_t layer) const {
  return share_of_80_percent({within_[layer]});
}

double ActivityModel::whole_share_80() const { return share_of_80_percent(within_); }

double ActivityModel::sequence_overlap() const {
  double sum = 0;
  for (uint32_t layer = 0; layer < layer_count(); ++layer) {
    const bool drifts = topic_share_ > 0 && layer >= kFirstTopicLayer;
    sum += drifts ? fifth_overlap(lasting_[layer], topic_share_) : 1;
  }
  return sum / layer_count();
}

}  // namespace thermocline
