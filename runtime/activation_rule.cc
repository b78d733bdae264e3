#include "runtime/activation_rule.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "runtime/set_bits.h"

namespace thermocline {
namespace {

// Calls act(value, active) for each element, or for the candidates, and packs the bits.
template <class Act>
void activate_with(float* values, int begin, int end, const uint64_t* candidates, uint64_t* words,
                   Act act) {
  for (int first = begin; first < end; first += 64) {
    uint64_t word = 0;
    const auto visit = [&](int i) {
      bool active = false;
      values[first + i] = act(values[first + i], active);
      word |= uint64_t{active} << i;
    };
    const int count = std::min(64, end - first);
    if (candidates == nullptr) {
      for (int i = 0; i < count; ++i) visit(i);
    } else {
      for_each_bit(candidates, first, first + count, [&](int i) { visit(i - first); });
    }
    words[first / 64] = word;
  }
}

constexpr int kBinShift = 32 - 1 - 14;  // below the sign, 14 bits: exponent and 6 of mantissa

}  // namespace

std::string ActivationRule::text() const {
  switch (activation) {
    case FfnActivation::relu:
      return "relu>0";
    case FfnActivation::fatrelu:
      return "fatrelu>=t";
    case FfnActivation::silu:
      return "abs(silu)>t[layer]";
  }
  return "";
}

ActivationRule make_activation_rule(const ModelShape& shape, float silu_threshold) {
  float threshold = 0.0f;
  if (shape.activation == FfnActivation::fatrelu) threshold = shape.fatrelu_threshold;
  if (shape.activation == FfnActivation::silu) threshold = silu_threshold;
  return {shape.activation, std::vector<float>(shape.layer_count, threshold)};
}

void activate(FfnActivation activation, float threshold, float* values, int begin, int end,
              const uint64_t* candidates, uint64_t* words) {
  switch (activation) {
    case FfnActivation::relu:
      return activate_with(values, begin, end, candidates, words, [](float g, bool& active) {
        active = g > 0.0f;
        return active ? g : 0.0f;
      });
    case FfnActivation::fatrelu:
      return activate_with(values, begin, end, candidates, words,
                           [threshold](float g, bool& active) {
                             active = g >= threshold;
                             return active ? g : 0.0f;
                           });
    case FfnActivation::silu:
      return activate_with(values, begin, end, candidates, words,
                           [threshold](float g, bool& active) {
                             const float value = g / (1.0f + std::exp(-g));
                             active = std::fabs(value) > threshold;
                             return value;
                           });
  }
}

void MagnitudeHistogram::add(uint32_t layer, const float* values, int count) {
  uint64_t* bins = counts_.data() + uint64_t{layer} * kBinCount;
  for (int i = 0; i < count; ++i) {
    const float magnitude = std::fabs(values[i]);
    ++bins[std::bit_cast<uint32_t>(magnitude) >> kBinShift];
  }
}

float MagnitudeHistogram::percentile(uint32_t layer, double percent) const {
  const uint64_t* bins = counts_.data() + uint64_t{layer} * kBinCount;
  const uint64_t total = std::accumulate(bins, bins + kBinCount, uint64_t{0});
  if (total == 0) return 0.0f;
  const double wanted = percent / 100.0 * static_cast<double>(total);
  uint64_t below = 0;
  for (uint32_t bin = 0; bin < kBinCount; ++bin) {
    if (static_cast<double>(below + bins[bin]) > wanted) {
      return std::bit_cast<float>(bin << kBinShift);
    }
    below += bins[bin];
  }
  return std::bit_cast<float>((kBinCount - 1) << kBinShift);
}

}  // namespace thermocline
