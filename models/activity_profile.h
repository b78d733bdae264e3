// How active each layer of a model is: the mean share of its FFN neurons that fire for a token.
//
// Goals: the published profile of Llama-2-70B for models of 80 layers, flat for the others.
// Non-goals: single neurons (models/firing_rates.h).
// Thread-safety: pure functions.
#pragma once

#include <vector>

#include "models/model_spec.h"

namespace thermocline {

// By layer. A model cut to its first N layers keeps the first N entries of the whole model's
// profile, whose mean over all layers is the model's activity mean.
std::vector<double> layer_activity(const ModelSpec& spec);

}  // namespace thermocline
