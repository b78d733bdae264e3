// oracle-general: libCacheSim's binary trace of requests, one for each active neuron.
//
// A record is 24 bytes, little-endian, packed (libCacheSim, oracleGeneralBin.h):
//   u32 clock_time         the step, from 0
//   u64 obj_id             1 + layer * ffn_dim + neuron: some readers take 0 for no object
//   u32 obj_size           bytes of a bundle
//   i64 next_access_vtime  the number of the next record of this object, counted from 1 as
//                          libCacheSim's traceConv does; -1: there is none
// Goals: written from the end, because the next access is known there; read with everything
//   checked, next_access_vtime included (counted from 1 or from 0, the same in all records).
// Non-goals: sampled traces, traces of anything but neurons.
// Thread-safety: a source belongs to one thread.
#pragma once

#include <memory>
#include <string>

#include "traces/trace_format.h"

namespace thermocline {

inline constexpr uint64_t kOracleRecordBytes = 24;

// Needs options.layer_count and ffn_dim: a usage Error without them.
std::unique_ptr<TraceSource> parse_oracle_records(const MappedFile& file, const std::string& path,
                                                  const ImportOptions& options);

}  // namespace thermocline
