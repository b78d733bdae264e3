// A LLaMA decoder in plain double-precision loops: what the runtime's f32 arithmetic is held to.
//
// Goals: independent of kernels, partition and cache; every neuron computed.
// Thread-safety: pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "models/weights.h"

namespace thermocline::test {

struct DoubleRun {
  std::vector<double> logits;  // (token, vocab_size)
  std::vector<double> gate;    // (token, layer, neuron) W_gate n, before the nonlinearity
};

DoubleRun run_in_double(const WeightSource& source, const std::vector<int32_t>& tokens);

}  // namespace thermocline::test
