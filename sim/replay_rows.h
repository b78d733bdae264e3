// The result rows of a replay, as `thermocline replay --json` writes them.
//
// Row fields: models/cli.h has the envelope; every row carries trace and weight hashes, provenance
// and version, so that it can be read alone. kind "policy": one policy at one budget; its counters
// are exact, its times modelled. kind "executed": the model beside the recording machine.
// Goals: a pure function of the replay, so that the same input gives the same bytes.
// Non-goals: files, tables.
// Thread-safety: pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "sim/cost.h"
#include "sim/replay.h"

namespace thermocline {

struct ReplayReport {
  const TraceHeader& header;
  std::string trace_hash;
  std::string profile_hash;  // of the profile trace; "self" where the trace is its own profile
  const ReplayResult& result;
  const Cluster& cluster;
  // By row of the result; nothing where the trace has no decode step.
  std::vector<std::optional<Distribution>> tpot_ms;
  std::vector<bool> fits;
  std::optional<ExecutedComparison> executed;
};

// Models the times of every row on `cluster`. `trace_hash`: trace.hash(), which reads all steps.
ReplayReport report_of(const TraceReader& trace, const std::string& trace_hash,
                       const RecordingConfig& config, const ReplayResult& result,
                       const Cluster& cluster);

nlohmann::ordered_json replay_rows(const ReplayReport& report);

}  // namespace thermocline
