// Kernels for AVX-512 that ask for memory as a Zen 5 wants it.
#include "runtime/kernels/instruction_sets.h"

#ifdef __AVX512F__
#include "runtime/kernels/cpu_avx512.h"

namespace thermocline {
namespace {

constexpr Kernels kKernels = CpuKernels<Lanes<kAskedNearby>>::kernels("avx512-zen5");

}  // namespace

const Kernels* avx512_zen5_kernels() { return &kKernels; }

}  // namespace thermocline

#else

const thermocline::Kernels* thermocline::avx512_zen5_kernels() { return nullptr; }

#endif
