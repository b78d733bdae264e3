// ActivityRegime: what the neurons of synthetic weights are to do, by name.
//
// The published measurements fall into camps that contradict each other (activations.md sections
//   3.4 and 3.6): adjacent tokens share 40-46 % of their neurons or over 90 %; hot sets last
//   across sequences or half of them changes. So a regime is a choice, and every number in it can
//   be overridden: preset:relullama-70b,regime=hermes,drift=0.5.
// Goals: one table of published numbers, each with its source.
// Non-goals: how weights bring them about (models/activity_model.h, models/synthetic_plan.h).
// Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace thermocline {

// How the mean activity runs over the layers of a model.
// flat: the same in all. teal: as in Llama-2-70B (TEAL's histograms), for models of 80 layers; flat
// in others. spread: falling with depth by a factor on the odds, so far that a whole model is as
// uneven as PowerInfer's figure 4 has it.
enum class LayerProfile : uint8_t { flat, teal, spread };

struct ActivityRegime {
  std::string_view name, summary;
  float mean;            // share of the neurons that are active for a token, over all layers
  float concentration;   // c of Beta(m c, (1-m) c) over the rates of a layer, unless share_80 says
  float share_80;        // of a layer's neurons, those that carry 80 % of its firings; 0: not held
  float whole_share_80;  // the same over all layers, where it is published; else 0
  float correlation;     // rho: of a neuron's activity at adjacent steps
  float drift;           // share of the most active fifth that changes with the sequence
  LayerProfile profile;
};

// Drift at which nothing of the most active fifth is left but chance would be 0.8.
inline constexpr double kDriftMax = 0.7;

const std::vector<ActivityRegime>& activity_regimes();
// Usage Errors with the valid names.
const ActivityRegime& activity_regime(std::string_view name);
LayerProfile layer_profile_by_name(std::string_view name);
std::string_view name_of(LayerProfile profile);

}  // namespace thermocline
