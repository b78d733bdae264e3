// PartitionForecast: what a partition takes of each node, in bytes and in time, before it runs.
//
// The time of a decode pass is that of sim/cost.h with GateReads::exact, from the same figures:
//   t(node)  = bytes that its ranks read in the stage / bandwidth of where they lie, at least their
//              operations / rate of computing, where that is known
//   t(stage) = max over nodes of t(node)
//            + 2 * layers * ceil(log2 nodes) * (latency + width/network)
//   t(pass)  = sum over stages of t(stage) + (stages - 1) * (latency + width/network)
// With the FFN on disk the rows of cold active neurons come from there first (staged_seconds in
//   models/node.h), and of the active neurons a share is hot that is the hot share of all: policies
//   do better.
// With a device tier the device computes what is hot there and the host what is cold, at once where
//   the cluster file says so (cluster.overlap), and never with --backend cpu, where the host is the
//   device too. With the FFN on disk as well the smaller of both hot sets is in the larger, and the
//   host's part is as above, but for the exchange of sim/cost.h. Of ranks of one node whose shares
//   differ, each counts the larger of its own two parts, where sim/cost.h adds the parts first.
// Goals: the same figures for the solver, for what people print and for tests. Bytes are those that
//   the runtime allocates: weights, KV cache, buffers. Non-goals: choosing (partition_solver.h); as
//   in sim/cost.h the KV cache's bytes are not charged as time.
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/node.h"
#include "models/weights.h"
#include "runtime/partition.h"
#include "runtime/stage_split.h"

namespace thermocline {

struct AttentionTypes {
  DType q, k, v, o;
};

// Element types of all matrices, from which all bytes follow.
struct ModelTypes {
  std::vector<AttentionTypes> attention;  // (layers)
  BundleTypes ffn = DType::f32;
  DType embedding = DType::f32, head = DType::f32, longest_o = DType::f32;
};
ModelTypes model_types(const WeightSource& source);

struct PartitionProblem {
  ModelShape shape;
  ModelTypes types;
  Cluster cluster;
  std::vector<uint32_t> rank_nodes;  // (ranks of the job) node of the cluster
  uint32_t slot_count = 1;           // tasks in flight: the positions of a decode pass
  uint32_t position_max = 1;         // of each of them, in the KV cache
  uint32_t row_max = 32;             // of one forward
  double active_share = 1.0;         // of a layer's neurons, at one position
  bool host_only = false;            // weights lie in host memory even where there is a device
  bool ffn_on_disk = false;          // up and down rows
  double hot_share = 0.0;            // of the bundles: their up and down rows are in memory, too
  bool device_tier = false;          // hot bundles are on the device, the FFN is on the host
  double device_share = 0.0;         // of the bundles: on the device
  // (ranks of a layout) for its forecast, where budgets give ranks unlike shares; empty: those
  // above
  std::vector<double> hot_shares = {}, device_shares = {};
  // (nodes) bytes set aside, of budgets of single nodes; of the host's beside a device tier
  std::vector<uint64_t> node_reserve = {}, host_reserve = {};
};

// The tier that a node's weights lie in, with a device tier the dense ones; absent (present() is
// false) where it has none.
const TierProfile& weight_tier(const PartitionProblem& problem, const NodeProfile& node);
// Why a node cannot hold any rank; empty: it can.
std::string refusal_of_node(const PartitionProblem& problem, const NodeProfile& node);

// What a stage of `layer_count` layers is about, but for its nodes. The bytes of a unit are those
// of the layer that takes most.
StageTask stage_task(const PartitionProblem& problem, uint32_t tensor, uint32_t layer_count,
                     bool first, bool last);
// Costs of such units on a node, but for the exchange of a device tier, which no split changes;
// memory as far as the weight tier goes.
StageNode stage_node(const PartitionProblem& problem, const NodeProfile& node, uint32_t tensor,
                     uint32_t layer_count, bool last);
// Units of neurons for which a device tier's host has room; without one, any number.
uint32_t host_neuron_units(const PartitionProblem& problem, uint32_t tensor, uint32_t layer_count,
                           uint64_t host_memory);
// What is set aside of a node's memory; the rest.
uint64_t reserve_of(const PartitionProblem& problem, uint32_t node);
uint64_t memory_of(const PartitionProblem& problem, uint32_t node);
// What there is for the host's part beside a device tier; without one there is no such part, and no
// limit.
uint64_t host_memory_of(const PartitionProblem& problem, uint32_t node);
// The sums of a stage over its nodes.
double exchange_seconds(const PartitionProblem& problem, uint32_t layer_count, uint32_t node_count);
// From stage to stage.
double handover_seconds(const PartitionProblem& problem, uint32_t stage_count);

struct RankForecast {
  uint64_t weight_bytes = 0;  // that it holds
  uint64_t dense_bytes = 0;   // of these, what each step reads whatever is active
  uint64_t memory_bytes = 0;  // with KV cache and buffers
  uint64_t host_bytes = 0;    // of a device tier's host: the FFN
  double seconds = 0;         // of a decode pass, reading and computing
};

struct PartitionForecast {
  std::vector<RankForecast> ranks;    // of the layout
  std::vector<uint64_t> node_bytes;   // (nodes)
  std::vector<uint64_t> host_bytes;   // (nodes) beside them, of a device tier's host
  std::vector<double> stage_seconds;  // of the slowest node of each
  double exchange_seconds = 0;
  double seconds = 0;  // of a decode pass
  bool fits = false;
};
// job_ranks: which rank of the job each rank of the layout is.
PartitionForecast forecast(const PartitionProblem& problem, const Partition& partition,
                           const std::vector<uint32_t>& job_ranks);

// Non-FFN weights that the rank reads per decode step, exactly.
uint64_t dense_bytes_of(const ModelShape& shape, const ModelTypes& types,
                        const Partition& partition, uint32_t rank);

}  // namespace thermocline
