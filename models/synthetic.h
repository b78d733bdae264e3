// Synthetic weights: random weights whose FFN neurons fire at rates that we choose.
//
// A counter-based generator (models/counter_random.h): every element is a function of (seed,
//   matrix, layer, row, block of 32 columns), so any rank makes just its own share, bit-identical
//   for every layout and thread count. One seed is one model: its f32 weights, or those rounded to
//   another type.
// Firing rates: neuron i of layer l fires with probability pi ~ Beta(m c, (1-m) c), m the layer's
//   mean activity (models/activity_profile.h), c the regime's concentration. LLaMA has no bias: 32
//   constant coordinates of the residual stream stand in for it (models/synthetic_plan.h), so that
//   gate = z + bias, z ~ N(0, 1) over tokens, and pi = Phi(bias). For SiLU, which has no exact
//   zeros, pi is P(gate > kSiluGateThreshold).
// Memory: what a neuron does is correlated over steps, and changes with the sequence, as the regime
//   says (models/activity_model.h). Tokens are taken as drawn uniformly: text that repeats few
//   tokens moves single rates and adds some memory, but leaves the mean over a layer.
// Goals: published activation statistics from a real forward pass; a 70B layer in seconds.
// Non-goals: meaning. Whatever carries these weights says "synthetic".
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <memory>
#include <vector>

#include "models/model_spec.h"
#include "models/weights.h"

namespace thermocline {

// The preset's shape needs a model_dim above 32; block types need multiples of their block.
std::unique_ptr<WeightSource> make_synthetic_weights(const ModelSpec& spec);

// The rate pi over all sequences that each neuron of `layer` is built for: in [1e-4, 1 - 1e-4].
std::vector<double> synthetic_firing_rates(const ModelSpec& spec, uint32_t layer);

}  // namespace thermocline
