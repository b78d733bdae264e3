#include "runtime/partition_forecast.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>

#include "models/error.h"
#include "runtime/kv_cache.h"

namespace thermocline {
namespace {

constexpr uint64_t kFloat = sizeof(float);

// Query rows that go with one kv head.
uint64_t query_rows(const ModelShape& shape) { return shape.q_dim() / shape.kv_head_count; }

// q, k, v and o of `heads` kv heads and the query heads that go with them.
uint64_t attention_bytes(const ModelShape& shape, const AttentionTypes& types, uint64_t heads) {
  const uint64_t rows = heads * query_rows(shape);
  return rows * bytes_of(types.q, shape.model_dim) +
         heads * shape.head_dim *
             (bytes_of(types.k, shape.model_dim) + bytes_of(types.v, shape.model_dim)) +
         shape.model_dim * bytes_of(types.o, rows);
}

uint64_t gate_bytes(const PartitionProblem& problem) {
  return bytes_of(problem.types.ffn.gate, problem.shape.model_dim);
}

// The up and the down row of a neuron.
uint64_t others_bytes(const PartitionProblem& problem) {
  return bundle_bytes(problem.shape, problem.types.ffn) - gate_bytes(problem);
}

// Whether what is hot lies in another memory than what is cold.
bool two_memories(const PartitionProblem& problem) {
  return problem.device_tier && !problem.host_only;
}

// In host memory, of a neuron in all of `layer_count` layers; with the FFN on disk the staging of
// one layer, too.
uint64_t host_neuron_bytes(const PartitionProblem& problem, uint64_t layer_count) {
  const uint64_t gate = gate_bytes(problem), others = others_bytes(problem);
  if (!problem.ffn_on_disk) return layer_count * (gate + others);
  const double hot = problem.hot_share * static_cast<double>(layer_count * others);
  return layer_count * gate + others + static_cast<uint64_t>(std::ceil(hot));
}

// On the device, likewise: hot bundles, and where each neuron lies (tiers/device_tier.h).
uint64_t device_neuron_bytes(const PartitionProblem& problem, uint64_t layer_count) {
  const double bundles =
      static_cast<double>(layer_count * bundle_bytes(problem.shape, problem.types.ffn));
  const uint64_t index = layer_count * sizeof(uint32_t) + (layer_count + 7) / 8;
  return static_cast<uint64_t>(std::ceil(problem.device_share * bundles)) + index;
}

// The same in the tier that the weights lie in.
uint64_t neuron_bytes(const PartitionProblem& problem, uint64_t layer_count) {
  const uint64_t on_device = problem.device_tier ? device_neuron_bytes(problem, layer_count) : 0;
  if (two_memories(problem)) return on_device;
  return on_device + host_neuron_bytes(problem, layer_count);
}

// Rows of the vocabulary: the embedding of the first stage, the head of the last; tied, they are
// one.
uint64_t vocab_bytes(const ModelShape& shape, const ModelTypes& types, bool first, bool last) {
  const bool shared = shape.tied_embeddings && first;
  return (first ? bytes_of(types.embedding, shape.model_dim) : 0) +
         (last && !shared ? bytes_of(types.head, shape.model_dim) : 0);
}

uint64_t head_bytes(const ModelShape& shape, const ModelTypes& types, bool last) {
  return last ? bytes_of(shape.tied_embeddings ? types.embedding : types.head, shape.model_dim) : 0;
}

// KV cache of one kv head in all layers.
uint64_t cache_bytes(const PartitionProblem& problem, uint64_t layer_count) {
  return problem.slot_count *
         kv_slot_bytes(layer_count, problem.shape.head_dim, problem.position_max);
}

// Rows of the decoder's buffers (decoder.h), f32: those of every rank; of a kv head; of a neuron,
// with its bits; of a vocabulary row.
uint64_t rank_buffer_bytes(const PartitionProblem& problem, uint64_t layer_count) {
  const uint64_t vectors = 2 * layer_count + 1;  // norms
  constexpr uint64_t kRows = 5;                  // x, normed, partial, two of what sums take
  return (kRows * problem.row_max + vectors) * problem.shape.model_dim * kFloat;
}
uint64_t head_buffer_bytes(const PartitionProblem& problem) {
  return 2 * (query_rows(problem.shape) + problem.shape.head_dim) * problem.row_max * kFloat;
}
uint64_t neuron_buffer_bytes(const PartitionProblem& problem, uint64_t layer_count) {
  return problem.row_max * (kFloat + (2 * layer_count + 7) / 8);
}
uint64_t vocab_buffer_bytes(const PartitionProblem& problem, bool last) {
  return last ? 2 * problem.row_max * kFloat : 0;
}

// Of a decode pass, on one node.
class Rates {
 public:
  Rates(const PartitionProblem& problem, const NodeProfile& node)
      : problem_(problem),
        memory_(weight_tier(problem, node)),
        host_(node.tier(Tier::host)),
        disk_(node.tier(Tier::disk)),
        link_(node.migration) {}

  // Weights that every position meets.
  double dense(double bytes) const {
    const ModelShape& shape = problem_.shape;
    const double per_byte = bundle_operations() / bundle_bytes(shape, problem_.types.ffn);
    return memory_.seconds(bytes, bytes * per_byte * problem_.slot_count);
  }

  // A neuron in one layer: all gate rows, the others where a position wants them.
  double neuron() const {
    if (!problem_.device_tier) {
      return problem_.ffn_on_disk ? staged(memory_, 1, problem_.hot_share) : whole(memory_, 1);
    }
    const double on_device = problem_.device_share, cold = 1 - on_device;
    const double device = whole(memory_, on_device);
    const double hot_below = std::max(problem_.hot_share - on_device, 0.0);
    const double host = problem_.ffn_on_disk ? staged(host_, cold, hot_below) : whole(host_, cold);
    const bool at_once = problem_.cluster.overlap && two_memories(problem_);
    return at_once ? std::max(device, host) : device + host;
  }

  // Between device and host, of a rank in one layer; as in sim/cost.h, of three tiers alone.
  double exchange() const {
    const bool any = two_memories(problem_) && problem_.ffn_on_disk && problem_.device_share < 1;
    return any ? 2 * link_.seconds(4.0 * problem_.shape.model_dim * problem_.slot_count) : 0;
  }

 private:
  // Bytes of a neuron's up and down rows that some position wants, and operations on them.
  double wanted() const {
    const double any =
        1 - std::pow(1 - problem_.active_share, static_cast<double>(problem_.slot_count));
    return any * static_cast<double>(others_bytes(problem_));
  }
  double work() const { return problem_.active_share * problem_.slot_count * bundle_operations(); }

  // A share of the neurons all of whose rows lie in one tier.
  double whole(const TierProfile& tier, double share) const {
    const double gate = static_cast<double>(gate_bytes(problem_));
    return tier.seconds(share * (gate + wanted()), share * work());
  }

  // A share of the neurons whose gates lie in memory; `hot` of all have their other rows there, the
  // rest of the share has them on the disk.
  double staged(const TierProfile& memory, double share, double hot) const {
    const double gate = static_cast<double>(gate_bytes(problem_)), cold = share - hot;
    return memory.seconds(share * gate, 0) +
           staged_seconds(memory, disk_,
                          {hot * wanted(), cold * wanted(), hot * work(), cold * work(), 1.0 / 2});
  }

  double bundle_operations() const { return 2.0 * 3.0 * problem_.shape.model_dim; }

  const PartitionProblem& problem_;
  const TierProfile& memory_;
  const TierProfile& host_;
  const TierProfile& disk_;
  const LinkProfile& link_;
};

// The problem as it is for one rank of a layout, whose budgets may be its own.
PartitionProblem problem_of_rank(const PartitionProblem& problem, uint32_t rank) {
  PartitionProblem of_rank = problem;
  if (!problem.hot_shares.empty()) of_rank.hot_share = problem.hot_shares[rank];
  if (!problem.device_shares.empty()) of_rank.device_share = problem.device_shares[rank];
  return of_rank;
}

RankForecast rank_forecast(const PartitionProblem& problem, const Partition& partition,
                           uint32_t rank, const NodeProfile& node) {
  const RankShare& share = partition.ranks[rank];
  const bool first = partition.first_stage(rank), last = partition.last_stage(rank);
  const uint64_t layers = share.layers.count, neurons = share.neurons.count;
  const uint64_t heads = share.kv_heads.count, rows = share.vocab.count;
  RankForecast result;
  result.dense_bytes = dense_bytes_of(problem.shape, problem.types, partition, rank);
  uint64_t attention = 0;
  for (uint32_t layer = share.layers.begin; layer < share.layers.end(); ++layer) {
    attention += attention_bytes(problem.shape, problem.types.attention[layer], heads);
  }
  const bool stages_here = problem.ffn_on_disk && !two_memories(problem);
  const uint64_t staged = stages_here ? neurons * others_bytes(problem) : 0;
  const uint64_t ffn = neurons * neuron_bytes(problem, layers);
  const uint64_t vocab = rows * vocab_bytes(problem.shape, problem.types, first, last);
  result.weight_bytes = attention + ffn - staged + vocab;
  result.memory_bytes = result.weight_bytes + staged + rank_buffer_bytes(problem, layers) +
                        heads * (cache_bytes(problem, layers) + head_buffer_bytes(problem)) +
                        neurons * neuron_buffer_bytes(problem, layers) +
                        rows * vocab_buffer_bytes(problem, last);
  if (two_memories(problem)) {
    result.host_bytes = neurons * host_neuron_bytes(problem, layers);
    result.weight_bytes += result.host_bytes;
    if (problem.ffn_on_disk) result.weight_bytes -= neurons * others_bytes(problem);  // staging
  }
  const Rates rates(problem, node);
  result.seconds = rates.dense(static_cast<double>(result.dense_bytes)) +
                   static_cast<double>(layers * neurons) * rates.neuron() +
                   static_cast<double>(layers) * rates.exchange();
  return result;
}

}  // namespace

ModelTypes model_types(const WeightSource& source) {
  ModelTypes types;
  for (uint32_t layer = 0; layer < source.shape().layer_count; ++layer) {
    types.attention.push_back({source.dtype(Matrix::q, layer), source.dtype(Matrix::k, layer),
                               source.dtype(Matrix::v, layer), source.dtype(Matrix::o, layer)});
  }
  types.ffn = bundle_types(source);
  types.embedding = source.dtype(Matrix::token_embedding, 0);
  types.head = source.dtype(Matrix::head, 0);
  types.longest_o = longest_block(source, Matrix::o);
  return types;
}

const TierProfile& weight_tier(const PartitionProblem& problem, const NodeProfile& node) {
  const TierProfile& device = node.tiers[static_cast<int>(Tier::device)];
  const bool over_disk = problem.ffn_on_disk && !problem.device_tier;
  const bool on_host = problem.host_only || over_disk || !device.present();
  return on_host ? node.tiers[static_cast<int>(Tier::host)] : device;
}

std::string refusal_of_node(const PartitionProblem& problem, const NodeProfile& node) {
  if (two_memories(problem) && !node.tier(Tier::device).present()) {
    return fmt::format("node '{}' has no device, which --tiers keeps hot bundles on", node.name);
  }
  if (two_memories(problem) && !node.tier(Tier::host).present()) {
    return fmt::format("node '{}' has no host memory, which --tiers keeps the FFN in", node.name);
  }
  if (!weight_tier(problem, node).present()) {
    return fmt::format("node '{}' has no host memory, which {}", node.name,
                       problem.ffn_on_disk ? "--disk-tier works from" : "--backend cpu works from");
  }
  if (problem.ffn_on_disk && !node.tiers[static_cast<int>(Tier::disk)].present()) {
    return fmt::format("node '{}' has no disk, where --disk-tier keeps the FFN", node.name);
  }
  return "";
}

StageTask stage_task(const PartitionProblem& problem, uint32_t tensor, uint32_t layer_count,
                     bool first, bool last) {
  const ModelShape& shape = problem.shape;
  const StageUnits units = stage_units(shape, problem.types.longest_o, tensor);
  uint64_t attention = 0;
  for (const AttentionTypes& types : problem.types.attention) {
    attention = std::max(attention, attention_bytes(shape, types, units.heads_per_unit));
  }
  StageTask task;
  task.units = {units.head_units, units.neuron_units, shape.vocab_size};
  task.unit_bytes[kHeadUnits] =
      layer_count * attention +
      units.heads_per_unit * (cache_bytes(problem, layer_count) + head_buffer_bytes(problem));
  task.unit_bytes[kNeuronUnits] =
      units.neurons_per_unit *
      (neuron_bytes(problem, layer_count) + neuron_buffer_bytes(problem, layer_count));
  task.unit_bytes[kVocabUnits] =
      vocab_bytes(shape, problem.types, first, last) + vocab_buffer_bytes(problem, last);
  task.rank_bytes = rank_buffer_bytes(problem, layer_count);
  // Heads that fill no unit: whoever is last has them.
  const uint64_t rest = shape.kv_head_count - units.head_units * units.heads_per_unit;
  if (rest > 0) task.rank_bytes += task.unit_bytes[kHeadUnits];
  return task;
}

StageNode stage_node(const PartitionProblem& problem, const NodeProfile& node, uint32_t tensor,
                     uint32_t layer_count, bool last) {
  const ModelShape& shape = problem.shape;
  const StageUnits units = stage_units(shape, problem.types.longest_o, tensor);
  double attention = 0;  // of a layer, mean: which layers the stage has is not known yet
  for (const AttentionTypes& types : problem.types.attention) {
    attention += static_cast<double>(attention_bytes(shape, types, units.heads_per_unit));
  }
  attention /= static_cast<double>(problem.types.attention.size());
  const Rates rates(problem, node);
  StageNode result;
  result.memory_bytes = weight_tier(problem, node).memory_bytes;
  result.seconds[kHeadUnits] = rates.dense(attention * layer_count);
  result.seconds[kNeuronUnits] = units.neurons_per_unit * layer_count * rates.neuron();
  result.seconds[kVocabUnits] =
      last ? rates.dense(static_cast<double>(head_bytes(shape, problem.types, last))) : 0.0;
  return result;
}

uint32_t host_neuron_units(const PartitionProblem& problem, uint32_t tensor, uint32_t layer_count,
                           uint64_t host_memory) {
  if (!two_memories(problem)) return UINT32_MAX;
  const StageUnits units = stage_units(problem.shape, problem.types.longest_o, tensor);
  const uint64_t unit = units.neurons_per_unit * host_neuron_bytes(problem, layer_count);
  return static_cast<uint32_t>(std::min<uint64_t>(host_memory / unit, UINT32_MAX));
}

uint64_t reserve_of(const PartitionProblem& problem, uint32_t node) {
  return problem.node_reserve.empty() ? 0 : problem.node_reserve[node];
}

uint64_t memory_of(const PartitionProblem& problem, uint32_t node) {
  const uint64_t memory = weight_tier(problem, problem.cluster.nodes[node]).memory_bytes;
  return memory - std::min(memory, reserve_of(problem, node));
}

uint64_t host_memory_of(const PartitionProblem& problem, uint32_t node) {
  if (!two_memories(problem)) return UINT64_MAX;
  const uint64_t memory = problem.cluster.nodes[node].tier(Tier::host).memory_bytes;
  const uint64_t reserve = problem.host_reserve.empty() ? 0 : problem.host_reserve[node];
  return memory - std::min(memory, reserve);
}

double exchange_seconds(const PartitionProblem& problem, uint32_t layer_count,
                        uint32_t node_count) {
  const int rounds = node_count > 1 ? std::bit_width(node_count - 1) : 0;
  const double width = 4.0 * problem.shape.model_dim * problem.slot_count;
  return 2.0 * layer_count * rounds * problem.cluster.network.seconds(width);
}

double handover_seconds(const PartitionProblem& problem, uint32_t stage_count) {
  if (stage_count <= 1 || problem.cluster.nodes.size() <= 1) return 0;
  const double width = 4.0 * problem.shape.model_dim * problem.slot_count;
  return (stage_count - 1) * problem.cluster.network.seconds(width);
}

uint64_t dense_bytes_of(const ModelShape& shape, const ModelTypes& types,
                        const Partition& partition, uint32_t rank) {
  const RankShare& share = partition.ranks[rank];
  uint64_t bytes = share.vocab.count * head_bytes(shape, types, partition.last_stage(rank));
  for (uint32_t layer = share.layers.begin; layer < share.layers.end(); ++layer) {
    bytes += attention_bytes(shape, types.attention[layer], share.kv_heads.count);
  }
  return bytes;
}

PartitionForecast forecast(const PartitionProblem& problem, const Partition& partition,
                           const std::vector<uint32_t>& job_ranks) {
  TC_CHECK(job_ranks.size() == partition.ranks.size(), "a rank of the job for each of the layout");
  PartitionForecast result;
  result.node_bytes.resize(problem.cluster.nodes.size());
  result.host_bytes.resize(problem.cluster.nodes.size());
  std::vector<std::map<uint32_t, double>> seconds(partition.layout.pipeline);  // by stage, node
  for (uint32_t rank = 0; rank < job_ranks.size(); ++rank) {
    const uint32_t node = problem.rank_nodes[job_ranks[rank]];
    result.ranks.push_back(rank_forecast(problem_of_rank(problem, rank), partition, rank,
                                         problem.cluster.nodes[node]));
    result.node_bytes[node] += result.ranks.back().memory_bytes;
    result.host_bytes[node] += result.ranks.back().host_bytes;
    seconds[partition.ranks[rank].stage][node] += result.ranks.back().seconds;
  }
  for (uint32_t stage = 0; stage < partition.layout.pipeline; ++stage) {
    double slowest = 0;
    for (const auto& [node, of_node] : seconds[stage]) slowest = std::max(slowest, of_node);
    const uint32_t layers = partition.ranks[stage * partition.layout.tensor].layers.count;
    result.stage_seconds.push_back(slowest);
    result.exchange_seconds +=
        exchange_seconds(problem, layers, static_cast<uint32_t>(seconds[stage].size()));
    result.seconds += slowest;
  }
  result.exchange_seconds += handover_seconds(problem, partition.layout.pipeline);
  result.seconds += result.exchange_seconds;
  result.fits = true;
  for (const uint32_t rank : job_ranks) {
    const uint32_t node = problem.rank_nodes[rank];
    const bool able = refusal_of_node(problem, problem.cluster.nodes[node]).empty();
    result.fits = result.fits && able && result.node_bytes[node] <= memory_of(problem, node) &&
                  result.host_bytes[node] <= host_memory_of(problem, node);
  }
  return result;
}

}  // namespace thermocline
