// A trace whose activation threshold is moved afterwards: bits anew from recorded magnitudes.
//
// A neuron is active where |act(gate)| > t. t is one value for all; or each layer's percentile of
//   its magnitudes, as CATS (Lee et al. 2024) and TEAL (Liu et al. 2024) choose it; or each
//   neuron's own, as CHESS (He et al. 2024) has a threshold for each channel. CHESS and TEAL also
//   look at the up projection, which no trace has: these are rules like theirs, not theirs.
// Goals: any command sees the result as a trace of its own: fewer steps (those whose magnitudes
//   were recorded), other bits, another hash; nothing is written.
// Non-goals: predicted bits, which belong to the threshold that they were predicted for.
// Percentiles of layers are exact to 1/128 octave, those of neurons to the codes of log8.
// Thread-safety: as a TraceReader.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "traces/trace.h"

namespace thermocline {

struct ActivationCut {
  float value = 0;
  std::optional<double> percent;  // then value counts for nothing
  bool by_neuron = false;

  std::string text() const;  // "0.1", "p90", "p90/neuron"
};

// Usage Error for anything but these three forms.
ActivationCut parse_activation_cut(std::string_view text);

// `path` is for messages. Error{input}: the trace has no magnitudes.
std::unique_ptr<TraceReader> rethreshold(std::unique_ptr<TraceReader> trace,
                                         const std::string& path, const ActivationCut& cut);

}  // namespace thermocline
