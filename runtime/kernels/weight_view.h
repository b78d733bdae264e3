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
// With `places`, row r lies where row places[r] would: those of tiers are in any order, and those
// that are not there must not be asked for. On a GPU only gate_and_up and sum_rows take such rows.
struct WeightView {
  DType dtype = DType::f32;
  int rows = 0;
  int cols = 0;
  uint64_t stride = 0;  // bytes
  const std::byte* data = nullptr;
  const uint32_t* places = nullptr;

  const std::byte* row(int r) const {
    const uint64_t place = places != nullptr ? places[r] : static_cast<uint64_t>(r);
    return data + place * stride;
  }
};

}  // namespace thermocline
