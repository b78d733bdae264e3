// How often the neurons of one layer fire: rates from a Beta distribution, as gate thresholds.
//
// A neuron whose gate is z + bias, z ~ N(0, 1), fires (gate > 0) with probability pi = Phi(bias).
//   The biases of a layer are drawn so that pi ~ Beta(m c, (1-m) c) (activations.md section 3.6).
// Biases are multiples of 1/256 in [-3.72, 3.72]: exact in f16 and in block formats, and beyond the
//   reach of a mathematics library's last bit. So pi is clipped to [1e-4, 1 - 1e-4].
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <vector>

namespace thermocline {

double normal_cdf(double x);  // Phi

class FiringRates {
 public:
  // 0 < mean < 1, concentration > 0.
  FiringRates(double mean, double concentration);

  // The bias at quantile `uniform` in (0, 1).
  double bias(double uniform) const;

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

  std::vector<double> cumulative_;  // P(bias <= bias_of(index)); the last is 1
};

}  // namespace thermocline
