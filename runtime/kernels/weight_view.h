// WeightView: where the rows of a weight matrix lie, for kernels and backends alike.
//
// Thread-safety: plain data.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/dtype.h"

namespace thermocline {

// (rows, cols) weights; row r begins at data + r * stride and has bytes_of(dtype, cols) bytes, in
// the order of the file formats on a CPU, in a backend's own order elsewhere. A stride of more
// leaves room for the other rows of a neuron's bundle. It is a multiple of 2.
struct WeightView {
  DType dtype = DType::f32;
  int rows = 0;
  int cols = 0;
  uint64_t stride = 0;  // bytes
  const std::byte* data = nullptr;

  const std::byte* row(int r) const { return data + static_cast<uint64_t>(r) * stride; }
};

}  // namespace thermocline
