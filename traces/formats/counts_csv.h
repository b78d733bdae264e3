// counts-csv: how often each neuron fired, a line for each; readable by pandas and by eye.
//
// layer,neuron,active_count,step_count
// 0,0,17,150
// Every neuron has a line, layer by layer. With --by-task a first column task_id, and the whole
// table again for each task, with its own step_count.
// Goals: parse(bytes) for the fuzz target, apart from open(path); one task's counts in memory.
// Thread-safety: a source belongs to one thread.
#pragma once

#include <memory>
#include <string>

#include "traces/trace_format.h"

namespace thermocline {

// Error{input}: a line out of order, a neuron left out, a count above its step_count.
std::unique_ptr<TraceSource> parse_counts_csv(const MappedFile& file, const std::string& path,
                                              const ImportOptions& options);

}  // namespace thermocline
