// The down projection by neuron: columns of a stored matrix as rows, in a type of choice.
//
// A file has ffn_down as (model_dim, ffn_dim). There a quantised block holds 32 or 256 neurons of
// one
//   output, so that no neuron has bytes of its own: each is decoded, and encoded with blocks along
//   model_dim. Blocks do not depend on each other, so every slice of the result is the same bytes
//   whoever asks for it. Types without blocks keep their bits.
// Goals: one pass over the stored bytes, a tile at a time. Non-goals: which type to choose
//   (models/weights.cc, models/convert.cc).
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "models/checkpoint.h"
#include "models/weights.h"

namespace thermocline {

// May throw at values that the caller does not want; `neuron` is their column in the file, and the
// i-th lies in row col_begin + i.
using CheckNeuron = std::function<void(uint64_t neuron, std::span<const float> values)>;

// Row i of `out` = elements [col_begin, col_end) of column row_begin + i of `stored`, in
// `delivered`. slice: of the result, (columns of `stored`, rows of `stored`). out_stride: bytes
// from one row of the result to the next; 0: they lie end to end.
void transpose(const TensorView& stored, const MatrixSlice& slice, DType delivered, std::byte* out,
               uint64_t out_stride = 0, const CheckNeuron& check = {});

}  // namespace thermocline
