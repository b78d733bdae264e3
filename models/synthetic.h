// Synthetic weights: random weights whose FFN neurons fire at rates that we choose.
//
// A counter-based generator: every element is a function of (seed, matrix, layer, row, block), so
//   any rank makes just its own share, bit-identical for every layout and thread count.
// Firing rates: neuron i of layer l fires with probability pi ~ Beta(m c, (1-m) c), m the layer's
//   mean activity, c the concentration. LLaMA has no bias: a constant direction in the FFN input
//   stands in for it (activations.md section 3.6), so that gate = |w| z - s mu, z ~ N(0, 1), and
//   pi = Phi(-s mu / |w|).
// Goals: published activation statistics from a real forward pass; a 70B layer in seconds.
// Non-goals: meaning. Whatever carries these weights says "synthetic".
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <memory>

#include "models/model_spec.h"
#include "models/weights.h"

namespace thermocline {

std::unique_ptr<WeightSource> make_synthetic_weights(const ModelSpec& spec);

// The rate pi that neuron `index` of `layer` is built for.
double synthetic_firing_rate(const ModelSpec& spec, uint32_t layer, uint32_t index);

}  // namespace thermocline
