#include "models/activity_regime.h"

#include <array>
#include <string>

#include "models/registry.h"

namespace thermocline {
namespace {

constexpr auto kProfileNames = std::to_array<std::string_view>({"flat", "teal", "spread"});

}  // namespace

// Sources and derivations: activations.md section 3.6.
// flash-opt: LLM in a Flash, appendix C: five tokens use 24 % of the FFN, each new one 2.4 %.
// hermes: Hermes: adjacent tokens share over 90 %, distant ones 70 %; 20 % of the neurons do 80 %
//   of the work. Its fifty percent of hot neurons that change are drift=0.5.
// powerinfer: PowerInfer, figure 4 (ReGLU-70B): 43 % of a block and 26 % of a model carry 80 % of
//   the firings, at about one active neuron in ten; top neurons are the same on any text.
// prosparse: ProSparse, 88.8 % sparse, layers of Llama-2-70B's relative densities; no time was
//   published: rho is flash-opt's.
// relullama-dynamicinfer: DynamicInfer: adjacent tokens share 40-46 %.
// relullama-teal: P(gate > 0) of Llama-2-70B by layer (TEAL), PowerInfer's 43 % in each.
// swiglu: the larger half by magnitude (CATS-50); PowerInfer's 69 % of a SwiGLU-70B block.
const std::vector<ActivityRegime>& activity_regimes() {
  static const std::vector<ActivityRegime> regimes = {
      {"flash-opt", "sparse, a window of five tokens holds 24 % (LLM in a Flash, OPT)", 0.10f,
       3.16f, 0, 0, 0.35f, 0, LayerProfile::flat},
      {"hermes", "persistent: adjacent tokens share 90 %, distant ones 70 % (Hermes)", 0.28f,
       0.714f, 0, 0, 0.65f, 0, LayerProfile::flat},
      {"powerinfer", "layers far apart: 43 % of a layer, 26 % of the model (PowerInfer)", 0.10f,
       8.46f, 0.43f, 0.26f, 0.1f, 0, LayerProfile::spread},
      {"prosparse", "sparse, FATReLU (ProSparse)", 0.11f, 7.6f, 0.43f, 0, 0.35f, 0,
       LayerProfile::teal},
      {"relullama-dynamicinfer", "changing: adjacent tokens share 40-46 % (DynamicInfer)", 0.20f,
       3.66f, 0.43f, 0, 0.1f, 0, LayerProfile::flat},
      {"relullama-teal", "Llama-2-70B's density by layer (TEAL), little memory", 0.28f, 2.26f,
       0.43f, 0, 0.1f, 0, LayerProfile::teal},
      {"swiglu", "no zeros: the larger half of the magnitudes is active (SwiGLU)", 0.5f, 9.6f,
       0.69f, 0, 0.1f, 0, LayerProfile::flat},
  };
  return regimes;
}

const ActivityRegime& activity_regime(std::string_view name) {
  std::vector<std::string> valid;
  for (const ActivityRegime& regime : activity_regimes()) {
    if (regime.name == name) return regime;
    valid.emplace_back(regime.name);
  }
  throw unknown_name("activity regime", name, valid);
}

LayerProfile layer_profile_by_name(std::string_view name) {
  for (size_t i = 0; i < kProfileNames.size(); ++i) {
    if (kProfileNames[i] == name) return static_cast<LayerProfile>(i);
  }
  throw unknown_name("layer profile", name, {kProfileNames.begin(), kProfileNames.end()});
}

std::string_view name_of(LayerProfile profile) {
  return kProfileNames[static_cast<size_t>(profile)];
}

}  // namespace thermocline
