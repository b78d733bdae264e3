// ActivationRule: the nonlinearity of the FFN, and which neurons count as active.
//
// relu: active where g > 0. fatrelu: where g >= t. In both the others contribute nothing, and only
//   active neurons are computed. silu: every neuron contributes and is computed; the recorded bits
//   say |silu(g)| > t[layer], the activation threshold, which changes no result.
// Goals: one place for both, so that what is recorded is what was computed.
// Thread-safety: pure functions of plain data; MagnitudeHistogram belongs to one thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/shape.h"

namespace thermocline {

struct ActivationRule {
  FfnActivation activation = FfnActivation::relu;
  std::vector<float> thresholds;  // (layer_count) the activation threshold of each layer

  // Every neuron contributes to the result, so all are computed.
  bool dense() const { return activation == FfnActivation::silu; }
  std::string text() const;  // as traces name it: "relu>0", "fatrelu>=t", "abs(silu)>t[layer]"
};

// The rule of a shape; `silu_threshold` counts only for silu.
ActivationRule make_activation_rule(const ModelShape& shape, float silu_threshold);

// values[i] = act(values[i]) for i in [begin, end), or for the candidates among them if
// `candidates` is not null, and bit i of `words` says whether i is active. begin is a multiple of
// 64: the words that it writes belong to no other part. Bits of others, and beyond `end`, become
// zero.
void activate(FfnActivation activation, float threshold, float* values, int begin, int end,
              const uint64_t* candidates, uint64_t* words);

// How large |act(gate)| is, layer by layer, to place an activation threshold at a percentile.
// Bins are the upper 14 bits of the float: 64 to a power of two.
class MagnitudeHistogram {
 public:
  static constexpr uint32_t kBinCount = 1u << 14;

  explicit MagnitudeHistogram(uint32_t layer_count)
      : layer_count_(layer_count), counts_(uint64_t{layer_count} * kBinCount) {}

  void add(uint32_t layer, const float* values, int count);
  // The value that `percent` of the layer's magnitudes do not exceed, to a bin; 0 with no data.
  float percentile(uint32_t layer, double percent) const;
  uint32_t layer_count() const { return layer_count_; }
  std::vector<uint64_t>& counts() { return counts_; }  // (layer_count, kBinCount)

 private:
  uint32_t layer_count_;
  std::vector<uint64_t> counts_;
};

}  // namespace thermocline
