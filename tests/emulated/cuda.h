// The CUDA backend and its kernels, compiled for the host: what tests run where there is no GPU.
//
// Every thread of every block runs (tests/emulated/on_host/thread_block.h), thousands of times
// slower
//   than on a GPU: for small shapes.
// Thread-safety: as Backend's; one such backend works at a time.
#pragma once

#include <memory>

#include "runtime/backend.h"

namespace thermocline::test {

std::unique_ptr<Backend> make_emulated_cuda_backend();

}  // namespace thermocline::test
