// How often the neurons of one layer fire: rates from a Beta distribution, as gate thresholds.
//
// A neuron whose gate is z + bias, z ~ N(0, 1), fires (gate > 0) with probability pi = Phi(bias).
//   The biases of a layer are drawn so that pi ~ Beta(m c, (1-m) c) (activations.md section 3.6).
// Two gates of one neuron at two steps are jointly Gaussian: how often it fires at both follows
// from
//   their correlation alone.
// Biases are multiples of 1/256 in [-3.72, 3.72]: exact in f16 and in block formats, and beyond the
//   reach of a mathematics library's last bit. So pi is clipped to [1e-4, 1 - 1e-4].
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <vector>

namespace thermocline {

double normal_cdf(double x);  // Phi

// P(z1 + bias > 0 and z2 + bias > 0) of unit Gaussians with this correlation, from 0 to below 1.
double joint_rate(double bias, double correlation);

class FiringRates {
 public:
  // 0 < mean < 1, concentration > 0.
  FiringRates(double mean, double concentration);

  // The bias at quantile `uniform` in (0, 1).
  double bias(double uniform) const;

  // The same distribution from its mean and the share of neurons that carries 80 % of the firings.
  // Shares that no layer of this mean can have are moved to the nearest that it can.
  static FiringRates with_share(double mean, double share_80);

  double concentration() const { return concentration_; }
  double mean() const { return mean_; }

  // Calls visit(bias, share of neurons) from the most active neurons to the least.
  template <class Visit>
  void each(Visit visit) const {
    for (int i = static_cast<int>(cumulative_.size()) - 1; i >= 0; --i) {
      visit(bias_of(i), cumulative_[i] - (i == 0 ? 0 : cumulative_[i - 1]));
    }
  }

  // The mean of value(bias) over the neurons; `value` is smooth on the scale of 1/32.
  template <class Function>
  double mean_of(Function value) const {
    double sum = 0, done = 0;
    const int size = static_cast<int>(cumulative_.size());
    for (int begin = 0; begin < size; begin += kStride) {
      const int end = begin + kStride < size ? begin + kStride : size;
      sum += (cumulative_[end - 1] - done) * value((bias_of(begin) + bias_of(end - 1)) / 2);
      done = cumulative_[end - 1];
    }
    return sum;
  }

 private:
  static constexpr int kStepsPerUnit = 256;
  static constexpr int kStepMax = 952;  // Phi(-952 / 256) = 1.0e-4
  static constexpr int kStride = 8;

  static double bias_of(int index) { return static_cast<double>(index - kStepMax) / kStepsPerUnit; }

  double mean_, concentration_;
  std::vector<double> cumulative_;  // P(bias <= bias_of(index)); the last is 1
};

// The smallest share of all these layers' neurons that carries 80 % of their firings.
double share_of_80_percent(const std::vector<FiringRates>& layers);

}  // namespace thermocline
