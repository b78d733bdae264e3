// The kernels that touch little memory: one implementation serves every instruction set.
//
// Goals: the contracts of Kernels::rms_norm and Kernels::rope (runtime/kernels/kernels.h).
// Thread-safety: pure functions of their arguments.
#pragma once

namespace thermocline {

// The mean of squares is summed in f64, over 8 interleaved partial sums: the product of two f32 is
// exact in f64, so only the additions round.
void rms_norm(const float* x, const float* weight, int dim, float epsilon, float* y);

// Angles are computed in f64 and rounded once, as cosine and sine.
void rope(float* x, int head_count, int head_dim, int position, const double* frequencies);

}  // namespace thermocline
