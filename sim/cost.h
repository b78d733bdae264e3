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
// With three tiers (device, host, disk) the two parts of the FFN wait for each other at each layer:
//   t(node)  = dense/device + sum over layers of
//              device part + host part (cluster.overlap: the larger of the two) + exchange
//   device part = hot/device; host part as over a disk, in host memory, for what is cold on the
//   device. exchange: each rank sends an f32 vector of model_dim for each position to the host, and
//   gets one back, over the migration link; none where the device has the whole layer.
//   Two sets move: bundles to the device over the migration link, up and down rows (with a
//   predictor: bundles) into host memory at the disk's rate, where those of bundles that go to the
//   device without being hot on the host pass through as well.
// GateReads::exact: every gate row is read in its tier, up and down rows only where active; that is
//   how the runtime works. Over a disk, gate rows are all in the fast tier, and bundles there are
//   up and down rows alone. predicted: bundles of active neurons only, and the predictor that would
//   find them is not charged. Of three tiers, the host keeps the gate rows that `exact` reads.
// Ranks lie on the nodes that the recording run had them on, where it says so and the cluster has
// as many nodes; else as nodes_of_ranks (models/node.h) says. Goals: a pure function of counts; the
// same for a trace's counters on any cluster ("modelled") and
//   for the machine that recorded it (sim/executed.h).
// Non-goals: the KV cache (its bytes are not charged), contention, what a predictor costs.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "models/budget.h"
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
  // (ranks) node of the cluster that the run was for, of `node_count` nodes; may be empty
  std::vector<uint32_t> rank_node = {};
  uint32_t node_count = 0;
};

// Where config_json lacks a key (a trace that was generated), dense_bytes follow from the shape and
// the stages from the pools. Errors: an input Error naming `path` where a list has another length
// than the ranks or a value is out of range.
RecordingConfig recording_config(const TraceHeader& header, const std::string& path);

// What one layer of a rank takes from each of three tiers in a pass.
struct LayerLoad {
  double device = 0, host = 0, disk = 0;                 // bundles that are read from there
  double work_device = 0, work_host = 0, work_disk = 0;  // the same, summed over the positions
  double on_device = 0;  // bundles that are hot there: GateReads::exact reads their gate rows
};

// What one rank's neurons are in a pass.
struct RankLoad {
  double needed = 0;    // bundles that are read: active for some position of the pass
  double hits = 0;      // of these, hot
  double admitted = 0;  // bundles moved into the fast tier; of three, into the device
  double work_hot = 0;  // hot active neurons, summed over the positions
  double work_cold = 0;
  // With three tiers: (layers of the rank), which then say all but what moves. Empty: two tiers.
  std::vector<LayerLoad> layers = {};
  double host_admitted = 0;  // bundles whose rows move into host memory
  double passed = 0;         // of `admitted`, not hot on the host: read from the disk on their way
};

struct PassTime {
  double seconds = 0;
  double hidden = 0;  // with migrations behind the node's other work
};

class CostModel {
 public:
  CostModel(const TraceHeader& header, const RecordingConfig& config, Cluster cluster,
            GateReads gate);

  // hot_by_rank: bundles in the fast tier, read by GateReads::exact alone. Loads with layers need a
  // cluster whose nodes have three tiers (require_three_tiers).
  PassTime pass_time(std::span<const RankLoad> by_rank, std::span<const uint64_t> hot_by_rank,
                     uint32_t position_count) const;
  // A pass of one position.
  double step_seconds(std::span<const StepCounts> by_rank,
                      std::span<const uint64_t> hot_by_rank) const;

  // Whether dense weights and hot bundles fit into the fast tier of every node, and what is cold
  // into the slow one.
  bool fits(std::span<const uint64_t> hot_by_rank) const;
  // The same of three tiers: dense weights and hot bundles on the device; gate rows, and rows of
  // what is hot there, in host memory; up and down rows of all on the disk.
  bool fits(std::span<const uint64_t> device_hot, std::span<const uint64_t> host_hot) const;
  // What budgets of single ranks or nodes are about.
  BudgetRanks budget_ranks() const;
  // The same of host memory between a device and a disk: beside gate rows and what a layer stages,
  // in whole bundles, as budgets count them.
  BudgetRanks host_budget_ranks() const;
  // The rates of a rank's node, for policies that weigh them.
  TierRates rates(size_t rank) const { return tier_rates(cluster_.nodes[node_of(rank)]); }
  size_t rank_count() const { return pools_.size(); }

 private:
  struct LayerShare;
  struct NodeShare;
  PassTime staged_time(const NodeProfile& node, const NodeShare& share) const;
  PassTime tiered_time(const NodeProfile& node, const NodeShare& share) const;
  void add_layers(NodeShare& share, size_t rank, const RankLoad& load,
                  uint32_t position_count) const;
  double first_rows() const;    // of the rows of an active neuron: all but the down row
  double active_bytes() const;  // that an active neuron's rows take, beside gates that all are read
  PassTime node_time(const NodeProfile& node, const NodeShare& share) const;
  PassTime stage_time(uint32_t stage, std::span<const RankLoad> by_rank,
                      std::span<const uint64_t> hot_by_rank, uint32_t position_count) const;
  void add_rank(NodeShare& share, size_t rank, const RankLoad& load, uint64_t hot,
                uint32_t position_count) const;
  size_t node_of(size_t rank) const { return rank_nodes_[rank]; }

  std::vector<NeuronPool> pools_;  // by rank
  uint64_t bundle_bytes_;
  uint64_t gate_bytes_;       // of a bundle
  double bundle_operations_;  // of one active neuron at one position
  double width_bytes_;        // one vector of model_dim in f32
  RecordingConfig config_;
  uint32_t stage_count_;
  Cluster cluster_;
  std::vector<uint32_t> rank_nodes_;  // node of each rank
  GateReads gate_;
};

// The cluster as the border between `fast` and the next slower tier sees it: faster tiers are left
// out. Error: a node without that tier or a
// slower one.
Cluster at_border(Cluster cluster, Tier fast);
// Usage Error where a node lacks one of device, host and disk.
void require_three_tiers(const Cluster& cluster);

}  // namespace thermocline
