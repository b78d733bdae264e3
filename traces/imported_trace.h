// A trace made from a foreign file: its header, its shards, its master.
//
// Goals: a header that says where the steps are from and what in them is not real; no file of a
//   trace that did not become whole.
// Non-goals: formats (traces/formats), what the user says of the model (traces/trace_origin.h).
// Thread-safety: one trace, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "traces/trace_format.h"
#include "traces/trace_origin.h"

namespace thermocline {

// `rank_count` pools split the neurons of all layers, at multiples of 8. Times are zero.
// Errors: a shape that no model has, more ranks than pieces.
TraceHeader imported_header(const SourceFacts& facts, const TraceOrigin& origin,
                            const std::string& from, const TraceFormat& format,
                            uint32_t rank_count);

// Writes the trace at `path`. Whatever fails, no file of it is left.
void write_imported(const TraceSource& source, const TraceHeader& header, const std::string& path,
                    const std::function<void(uint64_t steps)>& progress);

}  // namespace thermocline
