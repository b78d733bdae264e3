// Kernels for AVX-512.
#include "runtime/kernels/instruction_sets.h"

#ifdef __AVX512F__
#include "runtime/kernels/cpu_avx512.h"

namespace thermocline {
namespace {

constexpr Kernels kKernels = CpuKernels<Lanes<kAskedAgain>>::kernels("avx512");

}  // namespace

const Kernels* avx512_kernels() { return &kKernels; }

}  // namespace thermocline

#else

const thermocline::Kernels* thermocline::avx512_kernels() { return nullptr; }

#endif
