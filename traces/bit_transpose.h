// Bits turned around: from one row of neurons a step to one word of 64 steps a neuron, and back.
//
// Steps are recorded and replayed as rows (models/neuron.h); they are stored as columns, because
// what a neuron does at 64 steps compresses far better than what 64 neurons do at one step.
// Method: Warren, "Hacker's Delight", 7-3, on 64 x 64 bits.
// Goals: near memory speed on any machine: the version for the widest instructions that it has
// runs. Thread-safety: pure functions.
#pragma once

#include <cstdint>

namespace thermocline {

// columns[i] bit t = bit i % 64 of rows[t * stride + i / 64], for i < 64 * word_count and t < 64.
// Rows from row_count on count as zeros.
void columns_of_rows(const uint64_t* rows, uint64_t stride, uint32_t row_count, uint32_t word_count,
                     uint64_t* columns);

// The inverse, of rows [row_begin, row_begin + row_count) of the 64: written to rows[0..row_count).
void rows_of_columns(const uint64_t* columns, uint32_t word_count, uint32_t row_begin,
                     uint32_t row_count, uint64_t* rows, uint64_t stride);

}  // namespace thermocline
