// The AVX-512 kernels on instructions in plain C++, for machines that have AVX2 only.
#ifdef __AVX2__
#include "tests/emulated/avx512_instructions.h"

#ifndef __AVX512F__
#define __AVX512F__ 1
#endif
#define THERMOCLINE_ROLLED  // loops stay loops: these would take minutes to compile
#define avx512_kernels emulated_avx512_kernels
#include "runtime/kernels/cpu_avx512.cc"
#else
#include "tests/emulated/avx512.h"

const thermocline::Kernels* thermocline::emulated_avx512_kernels() { return nullptr; }
#endif
