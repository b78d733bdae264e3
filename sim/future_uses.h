// FutureUses from a trace: the bits of a pool turned around, all in memory.
//
// Goals: one pass over the trace. Non-goals: looking anything up (sim/policy_future.h).
// Thread-safety: uses the reader from the calling thread.
#pragma once

#include <cstdint>

#include "sim/policy_future.h"
#include "traces/trace.h"

namespace thermocline {

uint64_t future_uses_bytes(uint64_t neuron_count, uint64_t step_count);
FutureUses future_uses(const TraceReader& trace, const NeuronPool& pool, uint32_t thread_count);

}  // namespace thermocline
