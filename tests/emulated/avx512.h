// The AVX-512 kernels on emulated instructions; null where there is no AVX2 to run the rest of
// them.
#pragma once

#include "runtime/kernels/kernels.h"

namespace thermocline {
const Kernels* emulated_avx512_kernels();
}  // namespace thermocline
