#include "sim/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

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

// Each rank a node with one tier, joined by a network that costs nothing: its cost was measured.
Cluster recording_machine(const RecordingConfig& config) {
  Cluster machine;
  machine.name = "recording machine";
  machine.measured = true;
  for (const double rate : config.read_bandwidth) {
    NodeProfile node;
    node.tiers[static_cast<int>(Tier::host)] = {UINT64_MAX, rate};
    machine.nodes.push_back(node);
  }
  return machine;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// Measured times of the decode steps, in milliseconds.
struct MeasuredSteps {
  std::vector<double> executed;  // longest account of a rank
  std::vector<double> compute;   // slowest rank of each stage, summed over stages
};

MeasuredSteps measured_steps(const TraceReader& trace, const RecordingConfig& config,
                             const std::vector<uint64_t>& decode) {
  const size_t stage_count =
      1 + *std::max_element(config.rank_stage.begin(), config.rank_stage.end());
  MeasuredSteps measured{std::vector<double>(decode.size()), std::vector<double>(decode.size())};
  std::vector<uint64_t> slowest(decode.size() * stage_count);
  for (uint32_t rank = 0; rank < config.rank_stage.size(); ++rank) {
    const std::vector<StepTimes> times = trace.times(rank);
    for (size_t i = 0; i < decode.size(); ++i) {
      const StepTimes& step = times.at(decode[i]);
      const uint64_t account = step.compute_ns + step.transfer_ns + step.comm_ns + step.wait_ns;
      measured.executed[i] = std::max(measured.executed[i], static_cast<double>(account) * 1e-6);
      uint64_t& compute = slowest[i * stage_count + config.rank_stage[rank]];
      compute = std::max(compute, step.compute_ns);
    }
  }
  for (size_t i = 0; i < decode.size(); ++i) {
    for (size_t stage = 0; stage < stage_count; ++stage) {
      measured.compute[i] += static_cast<double>(slowest[i * stage_count + stage]) * 1e-6;
    }
  }
  return measured;
}

// Why the trace's neurons are not those that its times were measured with; empty where they are.
std::string not_as_executed(const TraceHeader& header) {
  if (header.activation_rule.starts_with("abs(act)>")) {
    return "the activation threshold was moved after the run";
  }
  const auto config = nlohmann::json::parse(header.config_json, nullptr, false);
  const auto cut = config.is_object() ? config.value("cut", nlohmann::json()) : nlohmann::json();
  const bool fewer_layers = cut.is_object() && cut.value("layers", std::string()) != "";
  return fewer_layers ? "some of the layers that ran were cut out of the trace" : "";
}

// How many passes these steps took.
size_t passes_of(const std::vector<StepInfo>& steps, const std::vector<uint64_t>& decode) {
  std::set<uint32_t> passes;
  for (const uint64_t step : decode) passes.insert(steps[step].pass);
  return passes.size();
}

std::vector<uint64_t> decode_steps_of(const std::vector<StepInfo>& steps) {
  std::vector<uint64_t> decode;
  for (uint64_t i = 0; i < steps.size(); ++i) {
    if (steps[i].phase == Phase::decode) decode.push_back(i);
  }
  return decode;
}

// Why the recording machine cannot be compared; empty where it can.
std::string missing(const RecordingConfig& config, const std::vector<uint64_t>& decode,
                    const ReplayResult& replayed) {
  if (config.read_bandwidth.empty()) return "the trace holds no read bandwidth";
  for (const double rate : config.read_bandwidth) {
    if (rate <= 0.0) return "the trace holds a read bandwidth of zero";
  }
  if (decode.empty()) return "the trace holds no decode step";
  if (replayed.rows.empty()) return "nothing was replayed";
  return "";
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
  if (config.dense_bytes.empty()) config.dense_bytes = dense_bytes_of(header);
  if (config.rank_stage.empty()) config.rank_stage = stages_of(header.pools);
  return config;
}

// The bytes of one node in one stage.
struct CostModel::NodeShare {
  bool used = false;
  double dense = 0, hot = 0, cold = 0, moved = 0;
};

CostModel::CostModel(const TraceHeader& header, const RecordingConfig& config, Cluster cluster,
                     GateReads gate)
    : pools_(header.pools),
      bundle_bytes_(header.bundle_bytes()),
      width_bytes_(4.0 * header.shape.model_dim),
      config_(config),
      stage_count_(1 + *std::max_element(config.rank_stage.begin(), config.rank_stage.end())),
      cluster_(std::move(cluster)),
      gate_(gate) {
  TC_CHECK(!cluster_.nodes.empty() && config_.dense_bytes.size() == pools_.size() &&
               config_.rank_stage.size() == pools_.size(),
           "a cost model without nodes or ranks");
}

double CostModel::node_seconds(const NodeProfile& node, const NodeShare& share) const {
  const double hot = share.hot / node.fast().bytes_per_second;
  const double cold = share.cold / node.slow().bytes_per_second;
  const double ffn = cluster_.overlap && node.tiered() ? std::max(hot, cold) : hot + cold;
  const double moved = node.tiered() && share.moved > 0 ? node.migration.seconds(share.moved) : 0;
  return share.dense / node.fast().bytes_per_second + ffn + moved;
}

double CostModel::stage_seconds(uint32_t stage, std::span<const StepCounts> by_rank,
                                std::span<const uint64_t> hot_by_rank) const {
  std::vector<NodeShare> shares(cluster_.nodes.size());
  const double bundle = static_cast<double>(bundle_bytes_);
  const double row = bundle / 3;  // one of gate, up and down
  const double active_bytes = gate_ == GateReads::exact ? 2 * row : bundle;
  uint32_t layer_count = 0;
  for (size_t rank = 0; rank < pools_.size(); ++rank) {
    if (config_.rank_stage[rank] != stage) continue;
    NodeShare& share = shares[node_of(rank)];
    share.used = true;
    share.dense += static_cast<double>(config_.dense_bytes[rank]);
    share.hot += by_rank[rank].hits * active_bytes;
    share.cold += (by_rank[rank].needed - by_rank[rank].hits) * active_bytes;
    share.moved += by_rank[rank].admitted * bundle;
    if (gate_ == GateReads::exact) {
      const auto hot = static_cast<double>(hot_by_rank[rank]);
      share.hot += hot * row;
      share.cold += (static_cast<double>(pools_[rank].total()) - hot) * row;
    }
    layer_count = std::max(layer_count, pools_[rank].layer_count);
  }
  double slowest = 0;
  uint64_t node_count = 0;
  for (size_t node = 0; node < shares.size(); ++node) {
    if (!shares[node].used) continue;
    ++node_count;
    slowest = std::max(slowest, node_seconds(cluster_.nodes[node], shares[node]));
  }
  const int rounds = node_count > 1 ? std::bit_width(node_count - 1) : 0;
  return slowest + 2.0 * layer_count * rounds * cluster_.network.seconds(width_bytes_);
}

double CostModel::step_seconds(std::span<const StepCounts> by_rank,
                               std::span<const uint64_t> hot_by_rank) const {
  TC_CHECK(by_rank.size() == pools_.size() && hot_by_rank.size() == pools_.size(),
           "counters of other ranks");
  double seconds = 0;
  for (uint32_t stage = 0; stage < stage_count_; ++stage) {
    seconds += stage_seconds(stage, by_rank, hot_by_rank);
  }
  if (stage_count_ > 1 && cluster_.nodes.size() > 1) {
    seconds += (stage_count_ - 1) * cluster_.network.seconds(width_bytes_);
  }
  return seconds;
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

std::vector<double> decode_step_ms(const CostModel& model, const ReplayStats& row,
                                   const std::vector<StepInfo>& steps) {
  const size_t pool_count = row.by_pool.size();
  std::vector<double> times;
  for (const uint64_t step : decode_steps_of(steps)) {
    const auto counts = std::span(row.steps).subspan(step * pool_count, pool_count);
    times.push_back(1e3 * model.step_seconds(counts, row.hot_max));
  }
  return times;
}

std::optional<ExecutedComparison> compare_executed(const TraceReader& trace,
                                                   const RecordingConfig& config,
                                                   const ReplayResult& replayed,
                                                   std::string& reason) {
  const std::vector<uint64_t> decode = decode_steps_of(trace.steps());
  reason = not_as_executed(trace.header());
  if (reason.empty()) reason = missing(config, decode, replayed);
  if (!reason.empty()) return std::nullopt;
  if (passes_of(trace.steps(), decode) < decode.size()) {
    reason =
        "the run was batched: steps shared passes over the weights, which the model counts one "
        "by one";
    return std::nullopt;
  }
  const MeasuredSteps measured = measured_steps(trace, config, decode);
  if (mean_of(measured.compute) <= 0.0) {
    reason = "the trace holds no measured times";
    return std::nullopt;
  }
  // Which neurons were needed is the same whatever the policy: any row has it.
  const CostModel model(trace.header(), config, recording_machine(config), GateReads::exact);
  const std::vector<uint64_t> none(replayed.pool_count);
  std::vector<double> reading = {};
  for (const uint64_t step : decode) {
    const auto counts = std::span(replayed.rows.front().steps)
                            .subspan(step * replayed.pool_count, replayed.pool_count);
    reading.push_back(1e3 * model.step_seconds(counts, none));
  }
  ExecutedComparison result;
  result.step_count = decode.size();
  result.measured_overhead_ms = mean_of(measured.executed) - mean_of(measured.compute);
  result.compute_ratio = mean_of(reading) / mean_of(measured.compute);
  for (double& time : reading) time += result.measured_overhead_ms;
  result.executed_ms = distribution_of(measured.executed).value();
  result.predicted_ms = distribution_of(reading).value();
  result.predicted_over_executed = result.predicted_ms.mean / result.executed_ms.mean;
  return result;
}

}  // namespace thermocline
