#include "models/activity_profile.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "models/error.h"

namespace thermocline {
namespace {

// P(gate > 0) of each layer of Llama-2-70B over 17,920 Alpaca tokens, counted from the histograms
// of SiLU(gate) that TEAL publishes (github.com/FasterDecoding/TEAL, MIT). Mean 0.2801.
constexpr double kLlama70b[] = {
    0.36643, 0.33126, 0.35728, 0.34326, 0.34108, 0.33108, 0.32349, 0.30784, 0.29348, 0.28217,
    0.28105, 0.28439, 0.27960, 0.26866, 0.26895, 0.25946, 0.27958, 0.24816, 0.25214, 0.25783,
    0.26791, 0.27527, 0.28242, 0.28776, 0.30014, 0.27755, 0.27483, 0.27787, 0.28165, 0.28633,
    0.28690, 0.29245, 0.29011, 0.28011, 0.27778, 0.27981, 0.28219, 0.28437, 0.28400, 0.29182,
    0.30713, 0.28637, 0.27939, 0.28211, 0.26571, 0.26594, 0.26418, 0.26184, 0.27239, 0.27555,
    0.27301, 0.27730, 0.27936, 0.27825, 0.27863, 0.28132, 0.28115, 0.28113, 0.27444, 0.27256,
    0.27264, 0.27151, 0.27475, 0.27119, 0.26992, 0.26826, 0.26362, 0.26704, 0.26004, 0.26180,
    0.26382, 0.25868, 0.25631, 0.24840, 0.24693, 0.22636, 0.23323, 0.23867, 0.26676, 0.33043,
};
constexpr uint32_t kLlama70bLayers = std::size(kLlama70b);

// The slope of the log odds over the depth of the model. PowerInfer's two pairs ask for nearly the
// same: 43 % of a block and 26 % of the model for 2.2, OPT's 26 % and 17 % for 2.0.
constexpr double kSpreadSlope = 2.2;

double scaled_odds(double share, double factor) {
  const double odds = factor * share / (1 - share);
  return odds / (1 + odds);
}

// The profile with the odds of every layer times the factor that gives it this mean. Odds, because
// a share scaled itself could pass 1.
std::vector<double> with_mean(const std::vector<double>& profile, double mean) {
  double low = 1e-9, high = 1e9;
  for (int i = 0; i < 200; ++i) {
    const double middle = std::sqrt(low * high);
    double sum = 0;
    for (const double share : profile) sum += scaled_odds(share, middle);
    (sum < mean * static_cast<double>(profile.size()) ? low : high) = middle;
  }
  std::vector<double> scaled;
  for (const double share : profile) scaled.push_back(scaled_odds(share, low));
  return scaled;
}

// Denser in its first layers, as LLaMA-2 is (ProSparse, appendix N).
std::vector<double> spread_profile(uint32_t layer_count) {
  std::vector<double> profile;
  for (uint32_t layer = 0; layer < layer_count; ++layer) {
    const double depth = (layer + 0.5) / layer_count;
    profile.push_back(scaled_odds(0.5, std::exp(kSpreadSlope * (1 - 2 * depth))));
  }
  return profile;
}

std::vector<double> whole_profile(const ActivityRegime& regime, uint32_t layer_count) {
  if (regime.profile == LayerProfile::spread) {
    return with_mean(spread_profile(layer_count), regime.mean);
  }
  if (regime.profile == LayerProfile::teal && layer_count == kLlama70bLayers) {
    return with_mean({std::begin(kLlama70b), std::end(kLlama70b)}, regime.mean);
  }
  return std::vector<double>(layer_count, regime.mean);
}

}  // namespace

std::vector<double> layer_activity(const ModelSpec& spec) {
  TC_CHECK(spec.synthetic(), "'" + spec.text + "' is a file");
  const uint32_t whole_count = spec.preset->shape.layer_count, count = spec.shape.layer_count;
  const std::vector<double> whole = whole_profile(spec.regime, whole_count);
  std::vector<double> activity;
  for (uint32_t layer = 0; layer < count; ++layer) {
    // Tests set shapes with more layers than the preset has: those repeat its last.
    const uint64_t even = (2 * uint64_t{layer} + 1) * whole_count / (2 * uint64_t{count});
    const uint64_t place = spec.take_even ? even : layer;
    activity.push_back(whole[std::min<uint64_t>(place, whole_count - 1)]);
  }
  return activity;
}

}  // namespace thermocline
