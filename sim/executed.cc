#include "sim/executed.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "models/bit_sums.h"
#include "models/error.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

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

nlohmann::json configuration_of(const TraceHeader& header) {
  nlohmann::json config = nlohmann::json::parse(header.config_json, nullptr, false);
  return config.is_object() ? config : nlohmann::json::object();
}

bool in_three_tiers(const nlohmann::json& config) {
  return config.value("ffn_tier", nlohmann::json()) == kDeviceHostDisk;
}

// Why the trace's neurons are not those that its times were measured with; empty where they are.
std::string other_neurons(const TraceHeader& header, const nlohmann::json& config) {
  if (header.activation_rule.starts_with("abs(act)>")) {
    return "the activation threshold was moved after the run";
  }
  const auto cut = config.value("cut", nlohmann::json());
  const bool fewer_layers = cut.is_object() && cut.value("layers", std::string()) != "";
  return fewer_layers ? "some of the layers that ran were cut out of the trace" : "";
}

// Why one tier does not tell how long the trace's run took; empty where it does.
std::string not_as_executed(const TraceHeader& header) {
  const nlohmann::json config = configuration_of(header);
  if (in_three_tiers(config)) {
    return "the FFN was in three tiers, whose rates a cluster file says: --cluster FILE --tiers "
           "device,host,disk, with the run's policy and budgets";
  }
  return other_neurons(header, config);
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
std::string missing(const RecordingConfig& config, const std::vector<uint64_t>& decode) {
  if (config.read_bandwidth.empty()) return "the trace holds no read bandwidth";
  for (const double rate : config.read_bandwidth) {
    if (rate <= 0.0) return "the trace holds a read bandwidth of zero";
  }
  if (decode.empty()) return "the trace holds no decode step";
  return "";
}

// Modelled milliseconds of reading, of each decode step: every neuron in the one tier.
std::vector<double> reading_ms(const TraceReader& trace, const RecordingConfig& config,
                               const std::vector<uint64_t>& decode) {
  const std::vector<NeuronPool>& pools = trace.header().pools;
  std::vector<StepCounts> counts(trace.step_count() * pools.size());  // (steps, ranks)
  for (size_t rank = 0; rank < pools.size(); ++rank) {
    for_each_block(trace, pools[rank], 0, trace.step_count(), [&](const StepBlock& block) {
      for (uint64_t i = 0; i < block.step_count; ++i) {
        const auto words = block.step(i).words;
        counts[(block.step_begin + i) * pools.size() + rank].needed =
            static_cast<uint32_t>(bit_sums().count(words.data(), words.size()));
      }
    });
  }
  RecordingConfig one_node_a_rank = config;
  one_node_a_rank.rank_node.clear();
  const CostModel model(trace.header(), one_node_a_rank, recording_machine(config),
                        GateReads::exact);
  const std::vector<uint64_t> none(pools.size());
  std::vector<double> reading;
  for (const uint64_t step : decode) {
    const auto of_step = std::span(counts).subspan(step * pools.size(), pools.size());
    reading.push_back(1e3 * model.step_seconds(of_step, none));
  }
  return reading;
}

}  // namespace

std::optional<ExecutedComparison> compare_executed(const TraceReader& trace,
                                                   const RecordingConfig& config,
                                                   std::string& reason) {
  const std::vector<uint64_t> decode = decode_steps_of(trace.steps());
  reason = not_as_executed(trace.header());
  if (reason.empty()) reason = missing(config, decode);
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
  std::vector<double> reading = reading_ms(trace, config, decode);
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

std::optional<ExecutedInTiers> executed_in_tiers(const TraceReader& trace,
                                                 const RecordingConfig& config,
                                                 const std::string& path) {
  const nlohmann::json json = configuration_of(trace.header());
  // In a part of a trace the policy begins where the run's had been at work for a while.
  const bool whole = !json.contains("cut") && !json.contains("merged") &&
                     other_neurons(trace.header(), json).empty();
  if (!in_three_tiers(json) || !json.contains("hot_policy") || !whole) return std::nullopt;
  const std::vector<uint64_t> decode = decode_steps_of(trace.steps());
  if (decode.empty() || passes_of(trace.steps(), decode) < decode.size()) return std::nullopt;
  ExecutedInTiers executed;
  try {
    executed.policy = json.at("hot_policy").get<std::string>();
    executed.device_bytes = json.at("hot_budgets").at(0).get<uint64_t>();
    executed.host_bytes = json.at("hot_budgets").at(1).get<uint64_t>();
    executed.migration_bytes = json.at("migration_bytes").get<uint64_t>();
  } catch (const nlohmann::json::exception& error) {
    throw bad_input(path, "config_json to name a policy, two budgets and a migration limit",
                    error.what());
  }
  executed.step_ms = distribution_of(measured_steps(trace, config, decode).executed).value();
  return executed.step_ms.mean > 0 ? std::optional(executed) : std::nullopt;
}

}  // namespace thermocline
