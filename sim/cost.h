// CostModel: the time of a decode step from the bytes that it must read.
//
// A decode step reads weights once and does two operations a weight, so the first model is bytes
// over bandwidth, with two bandwidths per node:
//   t(node)  = dense/fast + hot/fast + cold/slow + moved/migration     (cluster.overlap: the larger
//              of hot/fast and cold/slow instead of their sum)
//   t(stage) = max over the stage's nodes of t(node)
//            + 2 * layers * rounds * (latency + width/network),  rounds = ceil(log2 nodes)
//   t(step)  = sum over stages of t(stage) + the transfers between stages on different nodes
// dense: attention and head weights, in the fast tier. hot, cold: bytes of the active neurons that
// the hot set held or missed. moved: bundles admitted in the step, charged in full. width: one
// f32 vector of model_dim.
// GateReads::exact: every gate row is read in its tier, up and down rows only where active; that is
//   how the runtime works. predicted: bundles of active neurons only, and the predictor that would
//   find them is not charged.
// Goals: two uses. "modelled": the trace's counters on a cluster. "executed": the machine that
//   recorded the trace, beside the times that it measured.
// Non-goals: arithmetic limits, the KV cache (its bytes are not charged), prefill (a chunk reads
// the
//   union of its tokens' neurons once, which the counters do not hold: no TTFT yet), contention.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/distribution.h"
#include "models/node.h"
#include "sim/replay.h"
#include "traces/trace.h"

namespace thermocline {

enum class GateReads { exact, predicted };

// What the recording run says about itself (TraceHeader.config_json, written by the runtime).
struct RecordingConfig {
  std::vector<double> read_bandwidth;  // (ranks) bytes/s, all ranks measuring at once; may be empty
  std::vector<uint64_t> dense_bytes;   // (ranks) non-FFN weights that a rank reads per decode step
  std::vector<uint32_t> rank_stage;    // (ranks) pipeline stage
};

// Where config_json lacks a key (a trace that was generated), dense_bytes follow from the shape and
// the stages from the pools. Errors: an input Error naming `path` where a list has another length
// than the ranks or a value is out of range.
RecordingConfig recording_config(const TraceHeader& header, const std::string& path);

class CostModel {
 public:
  // Ranks are spread over the cluster's nodes in order, as evenly as they go.
  CostModel(const TraceHeader& header, const RecordingConfig& config, Cluster cluster,
            GateReads gate);

  // by_rank: the step's counters. hot_by_rank: bundles in the fast tier, read by GateReads::exact
  // alone.
  double step_seconds(std::span<const StepCounts> by_rank,
                      std::span<const uint64_t> hot_by_rank) const;

  // Whether dense weights and hot bundles fit into the fast tier of every node, and what is cold
  // into the slow one.
  bool fits(std::span<const uint64_t> hot_by_rank) const;

 private:
  struct NodeShare;
  double node_seconds(const NodeProfile& node, const NodeShare& share) const;
  double stage_seconds(uint32_t stage, std::span<const StepCounts> by_rank,
                       std::span<const uint64_t> hot_by_rank) const;
  size_t node_of(size_t rank) const { return rank * cluster_.nodes.size() / pools_.size(); }

  std::vector<NeuronPool> pools_;  // by rank
  uint64_t bundle_bytes_;
  double width_bytes_;  // one vector of model_dim in f32
  RecordingConfig config_;
  uint32_t stage_count_;
  Cluster cluster_;
  GateReads gate_;
};

// Modelled milliseconds of every decode step of a replay row.
std::vector<double> decode_step_ms(const CostModel& model, const ReplayStats& row,
                                   const std::vector<StepInfo>& steps);

// The model against the machine that recorded the trace, over decode steps.
// executed: of a step, the longest account of a rank (compute + comm + wait): a rank waits for what
//   it does not compute or transfer, so every account spans the step.
// predicted: modelled reading on that machine (its read bandwidth per rank, exact gate), plus the
//   measured mean of what is not computing: executed less the sum over stages of the slowest
//   rank's measured compute. So the residual judges the reading alone; compute_ratio shows it bare.
struct ExecutedComparison {
  uint64_t step_count = 0;
  Distribution executed_ms, predicted_ms;
  double predicted_over_executed = 0;  // of the means
  double compute_ratio = 0;            // modelled reading over measured compute, of the means
  double measured_overhead_ms = 0;     // communication and waiting, mean
};

// Nothing where the trace has no measured bandwidth, no times or no decode step; `reason` says so.
std::optional<ExecutedComparison> compare_executed(const TraceReader& trace,
                                                   const RecordingConfig& config,
                                                   const ReplayResult& replayed,
                                                   std::string& reason);

}  // namespace thermocline
