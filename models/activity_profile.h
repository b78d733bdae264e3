// How active each layer of a model is: the mean share of its FFN neurons that fire for a token.
//
// Goals: the published profile of Llama-2-70B; layers as far apart as PowerInfer found them.
// Non-goals: single neurons (models/firing_rates.h).
// Thread-safety: pure functions.
#pragma once

#include <vector>

#include "models/model_spec.h"

namespace thermocline {

// By layer of the spec. The mean over all layers of the whole model is the regime's; a model cut
// to N layers has the entries that it stands for (take=first or take=even).
std::vector<double> layer_activity(const ModelSpec& spec);

}  // namespace thermocline
