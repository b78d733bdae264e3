// CostModel: the time of a pass over the weights, from the bytes that it must read.
//
// A pass takes one position of each of some requests, or several of a prompt, through all layers.
// It reads each weight once and does two operations for each weight and position, with two
// bandwidths per node:
//   t(node)  = dense/fast + hot/fast + cold/slow + moved/migration     (cluster.overlap: the larger
//              of hot/fast and cold/slow instead of their sum); each of the first three at least
//              its operations over the tier's rate of computing, where that is known
//   t(stage) = max over the stage's nodes of t(node)
//            + 2 * layers * rounds * (latency + width/network),  rounds = ceil(log2 nodes)
//   t(pass)  = sum over stages of t(stage) + the transfers between stages on different nodes
// dense: attention and head weights, in the fast tier. hot, cold: bytes of the neurons that were
// active for a position of the pass and that the hot set held or missed. moved: bundles admitted,
// charged in full; `hidden` gives the time where they move while the node computes, so that only
// what takes longer counts. width: one f32 vector of model_dim for each position.
// Where the slow tier is a disk, which computes nothing, cold bundles come into the fast tier
// first,
//   while what is hot is computed as far as it goes without them (gate and up rows):
//   t(node)  = dense/fast + max(hot gate and up/fast, cold/slow) + the rest of hot and cold/fast
//   and migrations take the disk's time: hidden is at least (cold + moved)/slow.
// GateReads::exact: every gate row is read in its tier, up and down rows only where active; that is
//   how the runtime works. Over a disk, gate rows are all in the fast tier, and bundles there are
//   up and down rows alone. predicted: bundles of active neurons only, and the predictor that would
//   find them is not charged.
// Goals: a pure function of counts; the same for a trace's counters on any cluster ("modelled") and
//   for the machine that recorded it (sim/executed.h).
// Non-goals: the KV cache (its bytes are not charged), contention, what a predictor costs.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/node.h"
#include "sim/policy_driver.h"
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

// What one rank's neurons are in a pass.
struct RankLoad {
  double needed = 0;    // bundles that are read: active for some position of the pass
  double hits = 0;      // of these, hot
  double admitted = 0;  // bundles moved into the fast tier
  double work_hot = 0;  // hot active neurons, summed over the positions
  double work_cold = 0;
};

struct PassTime {
  double seconds = 0;
  double hidden = 0;  // with migrations behind the node's other work
};

class CostModel {
 public:
  // Ranks are spread over the cluster's nodes in order, as evenly as they go.
  CostModel(const TraceHeader& header, const RecordingConfig& config, Cluster cluster,
            GateReads gate);

  // hot_by_rank: bundles in the fast tier, read by GateReads::exact alone.
  PassTime pass_time(std::span<const RankLoad> by_rank, std::span<const uint64_t> hot_by_rank,
                     uint32_t position_count) const;
  // A pass of one position.
  double step_seconds(std::span<const StepCounts> by_rank,
                      std::span<const uint64_t> hot_by_rank) const;

  // Whether dense weights and hot bundles fit into the fast tier of every node, and what is cold
  // into the slow one.
  bool fits(std::span<const uint64_t> hot_by_rank) const;
  // What the fast tier of each node has left for hot bundles, split over its ranks by neurons.
  std::vector<uint64_t> room_by_rank() const;
  // Bytes of each node, split over its ranks by neurons, none above what a rank's bundles take.
  std::vector<uint64_t> over_ranks(std::span<const uint64_t> by_node) const;
  size_t node_count() const { return cluster_.nodes.size(); }
  // The rates of a rank's node, for policies that weigh them.
  TierRates rates(size_t rank) const { return tier_rates(cluster_.nodes[node_of(rank)]); }
  size_t rank_count() const { return pools_.size(); }

 private:
  struct NodeShare;
  PassTime staged_time(const NodeProfile& node, const NodeShare& share) const;
  PassTime node_time(const NodeProfile& node, const NodeShare& share) const;
  PassTime stage_time(uint32_t stage, std::span<const RankLoad> by_rank,
                      std::span<const uint64_t> hot_by_rank, uint32_t position_count) const;
  void add_rank(NodeShare& share, size_t rank, const RankLoad& load, uint64_t hot,
                uint32_t position_count) const;
  size_t node_of(size_t rank) const { return rank * cluster_.nodes.size() / pools_.size(); }

  std::vector<NeuronPool> pools_;  // by rank
  uint64_t bundle_bytes_;
  double bundle_operations_;  // of one active neuron at one position
  double width_bytes_;        // one vector of model_dim in f32
  RecordingConfig config_;
  uint32_t stage_count_;
  Cluster cluster_;
  GateReads gate_;
};

// The cluster as the border between `fast` and the next slower tier sees it: faster tiers are left
// out. Error: a node without that tier or a
// slower one.
Cluster at_border(Cluster cluster, Tier fast);

}  // namespace thermocline
