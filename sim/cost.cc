#include "sim/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/error.h"

namespace thermocline {
namespace {

using Json = nlohmann::json;

constexpr double kRateMax = 1e18;           // bytes/s
constexpr uint64_t kBytesMax = 1ull << 50;  // of one rank's dense weights

// Reads one list of config_json, an element per rank.
template <class T>
std::vector<T> rank_list(const Json& config, const char* key, size_t rank_count, T value_max,
                         const std::string& path) {
  if (!config.contains(key)) return {};
  const std::string expected =
      fmt::format("config_json.{} to be {} numbers from 0 to {}", key, rank_count, value_max);
  const Json& list = config[key];
  if (!list.is_array() || list.size() != rank_count) {
    throw bad_input(path, expected, list.dump().substr(0, 60));
  }
  std::vector<T> values;
  for (const Json& item : list) {
    const double value = item.is_number() ? item.get<double>() : -1.0;
    if (!(value >= 0.0 && value <= static_cast<double>(value_max))) {
      throw bad_input(path, expected, item.dump().substr(0, 60));
    }
    values.push_back(item.get<T>());
  }
  return values;
}

// Attention and head weights by shape, in the type of the FFN: each rank has its share by neurons.
std::vector<uint64_t> dense_bytes_of(const TraceHeader& header) {
  const ModelShape& shape = header.shape;
  const uint64_t attention =
      2 * bytes_of(header.ffn_types.gate, uint64_t{shape.q_dim()} * shape.model_dim) +
      2 * bytes_of(header.ffn_types.gate, uint64_t{shape.kv_dim()} * shape.model_dim);
  const uint64_t head =
      bytes_of(header.ffn_types.gate, uint64_t{shape.vocab_size} * shape.model_dim);
  const double whole = static_cast<double>(shape.layer_count * attention + head);
  std::vector<uint64_t> bytes;
  for (const NeuronPool& pool : header.pools) {
    const double share =
        static_cast<double>(pool.total()) / static_cast<double>(shape.neuron_count());
    bytes.push_back(static_cast<uint64_t>(whole * share));
  }
  return bytes;
}

// Ranks with the same layers are a stage; stages are numbered in the order of their layers.
std::vector<uint32_t> stages_of(const std::vector<NeuronPool>& pools) {
  std::vector<uint32_t> begins;
  for (const NeuronPool& pool : pools) begins.push_back(pool.layer_begin);
  std::sort(begins.begin(), begins.end());
  begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
  std::vector<uint32_t> stages;
  for (const NeuronPool& pool : pools) {
    const auto found = std::lower_bound(begins.begin(), begins.end(), pool.layer_begin);
    stages.push_back(static_cast<uint32_t>(found - begins.begin()));
  }
  return stages;
}

std::vector<uint32_t> recorded_or_spread(const RecordingConfig& config, const Cluster& cluster,
                                         size_t rank_count) {
  const bool recorded = !config.rank_node.empty() && config.node_count == cluster.nodes.size();
  return recorded ? config.rank_node : nodes_of_ranks(cluster, rank_count);
}

// Where the ranks of a run on a cluster were.
void read_nodes(const Json& json, size_t rank_count, const std::string& path,
                RecordingConfig& config) {
  if (!json.contains("node_count")) return;
  const Json& count = json["node_count"];
  constexpr uint32_t kNodesMax = 4096;
  if (!count.is_number_unsigned() || count.get<uint64_t>() - 1 >= kNodesMax) {
    throw bad_input(path, fmt::format("config_json.node_count from 1 to {}", kNodesMax),
                    count.dump().substr(0, 60));
  }
  config.node_count = count.get<uint32_t>();
  config.rank_node =
      rank_list<uint32_t>(json, "rank_node", rank_count, config.node_count - 1, path);
}

}  // namespace

RecordingConfig recording_config(const TraceHeader& header, const std::string& path) {
  const Json json =
      Json::parse(header.config_json.empty() ? "{}" : header.config_json, nullptr, false);
  if (!json.is_object()) {
    throw bad_input(path, "config_json to be a JSON object", header.config_json.substr(0, 60));
  }
  const size_t rank_count = header.pools.size();
  RecordingConfig config;
  config.read_bandwidth = rank_list<double>(json, "read_bandwidth", rank_count, kRateMax, path);
  config.dense_bytes = rank_list<uint64_t>(json, "dense_bytes", rank_count, kBytesMax, path);
  const auto stage_max = static_cast<uint32_t>(rank_count - 1);
  config.rank_stage = rank_list<uint32_t>(json, "rank_stage", rank_count, stage_max, path);
  read_nodes(json, rank_count, path, config);
  if (config.dense_bytes.empty()) config.dense_bytes = dense_bytes_of(header);
  if (config.rank_stage.empty()) config.rank_stage = stages_of(header.pools);
  return config;
}

// What one node does in one layer, with three tiers.
struct CostModel::LayerShare {
  double device = 0, gates = 0, host = 0, disk = 0;  // bytes; gates: of what is cold on the device
  double device_operations = 0, host_operations = 0, disk_operations = 0;
  double exchange = 0;  // seconds between host and device
};

// What one node does in one stage.
struct CostModel::NodeShare {
  bool used = false;
  double dense = 0, gates = 0, hot = 0, cold = 0, moved = 0;  // bytes; gates: that stay over a disk
  double dense_operations = 0, hot_operations = 0, cold_operations = 0;
  std::vector<LayerShare> layers;  // of the stage, with three tiers
  double moved_from_disk = 0;      // with three tiers, into host memory or through it
};

CostModel::CostModel(const TraceHeader& header, const RecordingConfig& config, Cluster cluster,
                     GateReads gate)
    : pools_(header.pools),
      bundle_bytes_(header.bundle_bytes()),
      gate_bytes_(bytes_of(header.ffn_types.gate, header.shape.model_dim)),
      bundle_operations_(2.0 * 3.0 * header.shape.model_dim),
      width_bytes_(4.0 * header.shape.model_dim),
      config_(config),
      stage_count_(1 + *std::max_element(config.rank_stage.begin(), config.rank_stage.end())),
      cluster_(std::move(cluster)),
      rank_nodes_(recorded_or_spread(config, cluster_, pools_.size())),
      gate_(gate) {
  TC_CHECK(!cluster_.nodes.empty() && config_.dense_bytes.size() == pools_.size() &&
               config_.rank_stage.size() == pools_.size(),
           "a cost model without nodes or ranks");
}

double CostModel::first_rows() const { return gate_ == GateReads::exact ? 1.0 / 2 : 2.0 / 3; }

double CostModel::active_bytes() const {
  const double bundle = static_cast<double>(bundle_bytes_);
  return gate_ == GateReads::exact ? bundle - bundle / 3 : bundle;
}

// Cold bundles are read while the first rows of the hot ones are computed.
PassTime CostModel::staged_time(const NodeProfile& node, const NodeShare& share) const {
  const TierProfile &fast = node.fast(), &disk = node.slow();
  const double ffn = staged_seconds(
      fast, disk,
      {share.hot, share.cold, share.hot_operations, share.cold_operations, first_rows()});
  const double still =
      fast.seconds(share.dense, share.dense_operations) + fast.seconds(share.gates, 0) + ffn;
  const double reading = disk.seconds(share.cold, 0);
  const double moved = share.moved > 0 ? node.migration.seconds(share.moved) : 0;
  return {still + moved, std::max(still, reading + moved)};
}

// The host's part of a layer begins with its gates, and the slower of the two parts is waited for.
PassTime CostModel::tiered_time(const NodeProfile& node, const NodeShare& share) const {
  const TierProfile &device = node.tier(Tier::device), &host = node.tier(Tier::host),
                    &disk = node.tier(Tier::disk);
  double ffn = 0, reading = 0;
  for (const LayerShare& layer : share.layers) {
    const double hot = device.seconds(layer.device, layer.device_operations);
    const double cold = host.seconds(layer.gates, 0) +
                        staged_seconds(host, disk,
                                       {layer.host, layer.disk, layer.host_operations,
                                        layer.disk_operations, first_rows()});
    ffn += (cluster_.overlap ? std::max(hot, cold) : hot + cold) + layer.exchange;
    reading += disk.seconds(layer.disk, 0);
  }
  const double still = device.seconds(share.dense, share.dense_operations) + ffn;
  const double to_device = share.moved > 0 ? node.migration.seconds(share.moved) : 0;
  const double to_host = disk.seconds(share.moved_from_disk, 0);
  return {still + to_device + to_host, std::max({still, to_device, reading + to_host})};
}

PassTime CostModel::node_time(const NodeProfile& node, const NodeShare& share) const {
  if (!share.layers.empty()) return tiered_time(node, share);
  if (node.stages_cold()) return staged_time(node, share);
  const TierProfile &fast = node.fast(), &slow = node.slow();
  const double dense = fast.seconds(share.dense, share.dense_operations);
  const double hot = fast.seconds(share.hot, share.hot_operations);
  const double cold = slow.seconds(share.cold, share.cold_operations);
  const double ffn = cluster_.overlap && node.tiered() ? std::max(hot, cold) : hot + cold;
  const double moved = node.tiered() && share.moved > 0 ? node.migration.seconds(share.moved) : 0;
  return {dense + ffn + moved, std::max(dense + ffn, moved)};
}

// Ranks of a node work at once: layer by layer, since they wait for each other's sums.
void CostModel::add_layers(NodeShare& share, size_t rank, const RankLoad& load,
                           uint32_t position_count) const {
  const double row = static_cast<double>(bundle_bytes_) / 3;
  const double neurons = pools_[rank].neuron_count;
  const LinkProfile& link = cluster_.nodes[node_of(rank)].migration;
  const double exchange = 2 * link.seconds(width_bytes_ * position_count);
  share.layers.resize(std::max(share.layers.size(), load.layers.size()));
  for (size_t i = 0; i < load.layers.size(); ++i) {
    const LayerLoad& layer = load.layers[i];
    LayerShare& sum = share.layers[i];
    sum.device += layer.device * active_bytes();
    sum.host += layer.host * active_bytes();
    sum.disk += layer.disk * active_bytes();
    sum.device_operations += layer.work_device * bundle_operations_;
    sum.host_operations += layer.work_host * bundle_operations_;
    sum.disk_operations += layer.work_disk * bundle_operations_;
    const double cold = neurons - layer.on_device;
    if (cold > 0) sum.exchange += exchange;
    if (gate_ != GateReads::exact) continue;
    sum.device += layer.on_device * row;
    sum.gates += cold * row;
  }
  share.moved_from_disk += (load.host_admitted + load.passed) * active_bytes();
}

void CostModel::add_rank(NodeShare& share, size_t rank, const RankLoad& load, uint64_t hot,
                         uint32_t position_count) const {
  const double bundle = static_cast<double>(bundle_bytes_);
  const double row = bundle / 3;  // one of gate, up and down
  const double operations_per_byte = bundle_operations_ / bundle;
  share.used = true;
  share.dense += static_cast<double>(config_.dense_bytes[rank]);
  share.dense_operations +=
      static_cast<double>(config_.dense_bytes[rank]) * operations_per_byte * position_count;
  if (!load.layers.empty()) {
    share.moved += load.admitted * bundle;
    add_layers(share, rank, load, position_count);
    return;
  }
  share.hot += load.hits * active_bytes();
  share.cold += (load.needed - load.hits) * active_bytes();
  share.hot_operations += load.work_hot * bundle_operations_;
  share.cold_operations += load.work_cold * bundle_operations_;
  const bool gates_stay = gate_ == GateReads::exact && cluster_.nodes[node_of(rank)].stages_cold();
  share.moved += load.admitted * (gates_stay ? active_bytes() : bundle);
  if (gate_ != GateReads::exact) return;
  const double gates = static_cast<double>(pools_[rank].total()) * row;
  const double hot_gates = static_cast<double>(hot) * row;
  if (gates_stay) {
    share.gates += gates;
  } else {
    share.hot += hot_gates;
    share.cold += gates - hot_gates;
  }
}

PassTime CostModel::stage_time(uint32_t stage, std::span<const RankLoad> by_rank,
                               std::span<const uint64_t> hot_by_rank,
                               uint32_t position_count) const {
  std::vector<NodeShare> shares(cluster_.nodes.size());
  uint32_t layer_count = 0;
  for (size_t rank = 0; rank < pools_.size(); ++rank) {
    if (config_.rank_stage[rank] != stage) continue;
    add_rank(shares[node_of(rank)], rank, by_rank[rank], hot_by_rank[rank], position_count);
    layer_count = std::max(layer_count, pools_[rank].layer_count);
  }
  PassTime slowest;
  uint64_t node_count = 0;
  for (size_t node = 0; node < shares.size(); ++node) {
    if (!shares[node].used) continue;
    ++node_count;
    const PassTime time = node_time(cluster_.nodes[node], shares[node]);
    slowest = {std::max(slowest.seconds, time.seconds), std::max(slowest.hidden, time.hidden)};
  }
  const int rounds = node_count > 1 ? std::bit_width(node_count - 1) : 0;
  const double sums =
      2.0 * layer_count * rounds * cluster_.network.seconds(width_bytes_ * position_count);
  return {slowest.seconds + sums, slowest.hidden + sums};
}

PassTime CostModel::pass_time(std::span<const RankLoad> by_rank,
                              std::span<const uint64_t> hot_by_rank,
                              uint32_t position_count) const {
  TC_CHECK(by_rank.size() == pools_.size() && hot_by_rank.size() == pools_.size(),
           "counters of other ranks");
  PassTime sum;
  for (uint32_t stage = 0; stage < stage_count_; ++stage) {
    const PassTime time = stage_time(stage, by_rank, hot_by_rank, position_count);
    sum = {sum.seconds + time.seconds, sum.hidden + time.hidden};
  }
  if (stage_count_ > 1 && cluster_.nodes.size() > 1) {
    const double sent =
        (stage_count_ - 1) * cluster_.network.seconds(width_bytes_ * position_count);
    sum = {sum.seconds + sent, sum.hidden + sent};
  }
  return sum;
}

double CostModel::step_seconds(std::span<const StepCounts> by_rank,
                               std::span<const uint64_t> hot_by_rank) const {
  std::vector<RankLoad> loads;
  for (const StepCounts& counts : by_rank) {
    const double cold = static_cast<double>(counts.needed) - counts.hits;
    loads.push_back({static_cast<double>(counts.needed), static_cast<double>(counts.hits),
                     static_cast<double>(counts.admitted), static_cast<double>(counts.hits), cold});
  }
  return pass_time(loads, hot_by_rank, 1).seconds;
}

bool CostModel::fits(std::span<const uint64_t> hot_by_rank) const {
  std::vector<uint64_t> fast(cluster_.nodes.size()), slow(cluster_.nodes.size());
  for (size_t rank = 0; rank < pools_.size(); ++rank) {
    fast[node_of(rank)] += config_.dense_bytes[rank] + hot_by_rank[rank] * bundle_bytes_;
    slow[node_of(rank)] += (pools_[rank].total() - hot_by_rank[rank]) * bundle_bytes_;
  }
  for (size_t i = 0; i < cluster_.nodes.size(); ++i) {
    const NodeProfile& node = cluster_.nodes[i];
    const uint64_t beside = node.tiered() ? 0 : slow[i];
    if (fast[i] + beside > node.fast().memory_bytes) return false;
    if (slow[i] > node.slow().memory_bytes) return false;
  }
  return true;
}

bool CostModel::fits(std::span<const uint64_t> device_hot,
                     std::span<const uint64_t> host_hot) const {
  struct Taken {
    double device = 0, host = 0, disk = 0;
  };
  std::vector<Taken> taken(cluster_.nodes.size());
  const double bundle = static_cast<double>(bundle_bytes_), gate = bundle / 3;
  for (size_t rank = 0; rank < pools_.size(); ++rank) {
    const double neurons = static_cast<double>(pools_[rank].total());
    Taken& node = taken[node_of(rank)];
    node.device += static_cast<double>(config_.dense_bytes[rank]) +
                   static_cast<double>(device_hot[rank]) * bundle;
    node.host += neurons * gate + static_cast<double>(host_hot[rank]) * (bundle - gate);
    node.disk += neurons * (bundle - gate);
  }
  const auto room = [&](size_t node, Tier tier) {
    return static_cast<double>(cluster_.nodes[node].tier(tier).memory_bytes);
  };
  for (size_t i = 0; i < taken.size(); ++i) {
    if (taken[i].device > room(i, Tier::device) || taken[i].host > room(i, Tier::host) ||
        taken[i].disk > room(i, Tier::disk)) {
      return false;
    }
  }
  return true;
}

BudgetRanks CostModel::budget_ranks() const {
  BudgetRanks ranks;
  for (const NeuronPool& pool : pools_) ranks.neurons.push_back(pool.total());
  ranks.dense_bytes = config_.dense_bytes;
  ranks.nodes = rank_nodes_;
  for (const NodeProfile& node : cluster_.nodes) {
    ranks.fast_bytes.push_back(node.fast().memory_bytes);
  }
  ranks.bundle_bytes = bundle_bytes_;
  return ranks;
}

// In budgets a bundle counts whole, while its gate row is in memory already.
BudgetRanks CostModel::host_budget_ranks() const {
  BudgetRanks ranks = budget_ranks();
  const uint64_t rows = bundle_bytes_ - gate_bytes_;
  std::vector<uint64_t> left;
  for (const NodeProfile& node : cluster_.nodes) left.push_back(node.tier(Tier::host).memory_bytes);
  for (size_t rank = 0; rank < pools_.size(); ++rank) {
    uint64_t& of_node = left[node_of(rank)];
    const uint64_t staged = pools_[rank].neuron_count * rows;
    of_node -= std::min(of_node, pools_[rank].total() * gate_bytes_ + staged);
  }
  ranks.dense_bytes.assign(pools_.size(), 0);
  for (uint64_t& bytes : left) bytes = bytes / rows * bundle_bytes_;
  ranks.fast_bytes = left;
  return ranks;
}

void require_three_tiers(const Cluster& cluster) {
  for (const NodeProfile& node : cluster.nodes) {
    const bool all = std::ranges::all_of(node.tiers, &TierProfile::present);
    if (all) continue;
    throw bad_usage(fmt::format(
        "--tiers {}: expected all three on every node of cluster '{}', but not so on '{}'; "
        "--cluster FILE names a machine that has them",
        kDeviceHostDisk, cluster.name, node.name));
  }
}

Cluster at_border(Cluster cluster, Tier fast) {
  for (NodeProfile& node : cluster.nodes) {
    for (int tier = 0; tier < static_cast<int>(fast); ++tier) node.tiers[tier] = {};
    const bool any = std::any_of(node.tiers.begin(), node.tiers.end(),
                                 [](const TierProfile& tier) { return tier.present(); });
    if (any && node.tiered() && node.tiers[static_cast<int>(fast)].present()) continue;
    throw bad_usage(fmt::format(
        "--tier {}: expected it and a slower one on every node of cluster '{}', but not so on '{}'",
        name_of(fast), cluster.name, node.name));
  }
  return cluster;
}

}  // namespace thermocline
