// The kernels of each instruction set, as kernels.cc sees them.
//
// Each returns null where the compiler's target has no such instructions; whether this machine
// can run them is for kernels.cc to find out. Thread-safety: constants only.
#pragma once

#include "runtime/kernels/kernels.h"

namespace thermocline {

const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* avx512_zen5_kernels();

}  // namespace thermocline
