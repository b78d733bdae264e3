// Scaled rotary embedding: how models reach beyond the context that they were first trained on.
//
// Goals: each rule as the list of divisors that ModelShape::rope_divisors holds, (head_dim / 2).
// Non-goals: rules that change other things than frequencies (yarn, longrope), or change them with
//   the length of the text (dynamic).
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline {

// Llama-3.1's rule (Hugging Face transformers, modeling_rope_utils.py,
// _compute_llama3_parameters; llama-models, reference_impl/model.py, apply_scaling). A pair that
// turns fewer than `low_freq_factor` times within the original context is slowed by `factor`, one
// that turns more than `high_freq_factor` times is left, and those between are blended.
struct Llama3RopeScaling {
  double factor;
  double low_freq_factor;
  double high_freq_factor;  // above low_freq_factor
  double original_context;  // positions
};

// All numbers above 0.
std::vector<float> llama3_rope_divisors(const Llama3RopeScaling& scaling, double theta,
                                        uint32_t head_dim);

// Position interpolation (arXiv 2306.15595): every pair is slowed by `factor`.
std::vector<float> linear_rope_divisors(double factor, uint32_t head_dim);

}  // namespace thermocline
