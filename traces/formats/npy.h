// npy: the bits as a NumPy array of bytes, with a table of steps beside it.
//
// x.npy: uint8 (steps, layers, ceil(ffn_dim / 8)), C order; neuron n of a layer is bit n % 8 of
//   byte n / 8: numpy.unpackbits(x, axis=2, bitorder="little")[:, :, :ffn_dim].
// x.steps.csv: traces/step_table.h. Without it, all steps are decode steps of one task.
// Goals: parse(bytes) for the fuzz target, apart from open(path).
// Thread-safety: a source belongs to one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "traces/step_table.h"
#include "traces/trace_format.h"

namespace thermocline {

// Error{input}: another type or order, a size that the file does not have, spare bits that are set
// (found while reading), a table of other steps.
std::unique_ptr<TraceSource> parse_npy_bits(const MappedFile& file, const std::string& path,
                                            std::optional<StepTable> table,
                                            const ImportOptions& options);

}  // namespace thermocline
