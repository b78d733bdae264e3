#include "runtime/partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "models/error.h"
#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

// kv heads that one tensor-parallel rank takes at least, so that its columns of the output
// projection end at a block border.
uint32_t heads_per_unit(const ModelShape& shape, DType o_dtype) {
  const uint32_t columns = shape.q_dim() / shape.kv_head_count;  // of one kv head
  const uint32_t block = facts(o_dtype).items_per_block;
  uint32_t heads = 1;
  while (heads * columns % block != 0) ++heads;
  return heads;
}

uint32_t head_unit_count(const ModelShape& shape, DType o_dtype) {
  return std::max(1u, shape.kv_head_count / heads_per_unit(shape, o_dtype));
}

// Neurons of one unit: whole 64-bit words where a rank has several, else the least that a trace
// can tell apart, one byte of bits.
uint32_t neurons_per_unit(uint32_t ffn_dim, uint32_t tensor) {
  return ffn_dim >= 64 * 4 * tensor ? 64 : 8;
}

uint32_t units_of(uint32_t count, uint32_t per_unit) { return (count + per_unit - 1) / per_unit; }

// Ranges in units to ranges in items; the last unit may be short.
Range scaled(const Range& units, uint32_t per_unit, uint32_t item_count) {
  const uint32_t begin = units.begin * per_unit;
  return {begin, std::min(units.end() * per_unit, item_count) - begin};
}

std::string lack_of_units(uint32_t wanted, uint32_t available, std::string_view what,
                          const Layout& layout) {
  if (wanted <= available) return "";
  return fmt::format("layout {} needs {} {}, the model has {}", layout.text(), wanted, what,
                     available);
}

std::vector<Range> side_by_side(const std::vector<uint32_t>& counts) {
  std::vector<Range> ranges;
  uint32_t begin = 0;
  for (const uint32_t count : counts) {
    ranges.push_back({begin, count});
    begin += count;
  }
  return ranges;
}

// The ranges of one stage's ranks, which are counted in units.
void place_stage(const ModelShape& shape, DType o_dtype, std::span<const StagePart> parts,
                 RankShare* ranks) {
  const auto tensor = static_cast<uint32_t>(parts.size());
  const StageUnits units = stage_units(shape, o_dtype, tensor);
  Range heads, neurons, vocab;
  for (uint32_t i = 0; i < tensor; ++i) {
    heads = {heads.end(), parts[i].heads};
    neurons = {neurons.end(), parts[i].neurons};
    vocab = {vocab.end(), parts[i].vocab};
    ranks[i].kv_heads = scaled(heads, units.heads_per_unit, shape.kv_head_count);
    ranks[i].neurons = scaled(neurons, units.neurons_per_unit, shape.ffn_dim);
    ranks[i].vocab = vocab;
  }
  // Heads that fill no whole unit stay with the last rank.
  ranks[tensor - 1].kv_heads.count = shape.kv_head_count - ranks[tensor - 1].kv_heads.begin;
}

// The parts of one stage, by the weights of its ranks.
std::vector<StagePart> weighted_parts(const ModelShape& shape, DType o_dtype,
                                      const std::vector<double>& weights) {
  const StageUnits units = stage_units(shape, o_dtype, static_cast<uint32_t>(weights.size()));
  const auto heads = split_units(units.head_units, weights);
  const auto neurons = split_units(units.neuron_units, weights);
  const auto vocab = split_units(shape.vocab_size, weights);
  std::vector<StagePart> parts;
  for (size_t i = 0; i < weights.size(); ++i) {
    parts.push_back({heads[i].count, neurons[i].count, vocab[i].count});
  }
  return parts;
}

uint32_t parse_degree(std::string_view text, std::string_view whole) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty() || text.size() > 6 || !std::all_of(text.begin(), text.end(), is_digit) ||
      text[0] == '0') {
    throw bad_usage(fmt::format("layout '{}': expected ppN,tpM with N, M >= 1", whole));
  }
  return static_cast<uint32_t>(parse_count(text));
}

}  // namespace

std::string Layout::text() const { return fmt::format("pp{},tp{}", pipeline, tensor); }

std::vector<NeuronPool> Partition::pools() const {
  std::vector<NeuronPool> pools;
  for (const RankShare& share : ranks) pools.push_back(share.pool());
  return pools;
}

Layout parse_layout(std::string_view text, uint32_t rank_count) {
  uint32_t pipeline = 0;
  uint32_t tensor = 0;
  for (const std::string_view part : split(text, ',')) {
    uint32_t& degree = part.starts_with("pp") ? pipeline : tensor;
    if ((!part.starts_with("pp") && !part.starts_with("tp")) || degree != 0) {
      throw bad_usage(fmt::format("layout '{}': expected ppN,tpM with N, M >= 1", text));
    }
    degree = parse_degree(part.substr(2), text);
  }
  const Layout layout{std::max(pipeline, 1u), std::max(tensor, 1u)};
  if (uint64_t{layout.pipeline} * layout.tensor != rank_count) {
    throw bad_usage(fmt::format("layout '{}' is of {} ranks, the job has {}", text,
                                uint64_t{layout.pipeline} * layout.tensor, rank_count));
  }
  return layout;
}

Layout default_layout(const ModelShape& shape, DType o_dtype, uint32_t rank_count) {
  const uint32_t tensor_max = std::min(head_unit_count(shape, o_dtype), units_of(shape.ffn_dim, 8));
  for (uint32_t tensor = std::min(tensor_max, rank_count); tensor >= 1; --tensor) {
    const Layout layout{rank_count / tensor, tensor};
    if (layout.rank_count() == rank_count && layout.pipeline <= shape.layer_count) return layout;
  }
  throw bad_usage(fmt::format(
      "{} ranks fit no layout of this model: expected pp * tp = {} with pp <= {} (layers) and "
      "tp <= {} (kv heads that a rank can take)",
      rank_count, rank_count, shape.layer_count, tensor_max));
}

std::vector<double> parse_rank_weights(std::string_view text, uint32_t rank_count) {
  if (text.empty()) return std::vector<double>(rank_count, 1.0);
  std::vector<double> weights;
  for (const std::string_view part : split(text, ',')) weights.push_back(parse_number(part));
  const bool positive = std::all_of(weights.begin(), weights.end(), [](double w) { return w > 0; });
  if (weights.size() != rank_count || !positive) {
    throw bad_usage(fmt::format("--rank-weights {}: expected {} positive numbers, one a rank", text,
                                rank_count));
  }
  return weights;
}

std::vector<Range> split_units(uint32_t unit_count, const std::vector<double>& weights) {
  TC_CHECK(unit_count >= weights.size(), "fewer units than parts");
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<Range> ranges(weights.size());
  std::vector<double> wanted(weights.size());
  uint32_t given = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    wanted[i] = unit_count * weights[i] / total;
    ranges[i].count = std::max(1u, static_cast<uint32_t>(wanted[i]));
    given += ranges[i].count;
  }
  // Furthest below what it wants gets the next unit; furthest above gives one up.
  const auto lack = [&](size_t i) { return wanted[i] - ranges[i].count; };
  for (; given < unit_count; ++given) {
    size_t best = 0;
    for (size_t i = 1; i < weights.size(); ++i) best = lack(i) > lack(best) ? i : best;
    ++ranges[best].count;
  }
  for (; given > unit_count; --given) {
    size_t best = weights.size();
    for (size_t i = 0; i < weights.size(); ++i) {
      if (ranges[i].count > 1 && (best == weights.size() || lack(i) < lack(best))) best = i;
    }
    --ranges[best].count;
  }
  for (size_t i = 1; i < ranges.size(); ++i) ranges[i].begin = ranges[i - 1].end();
  return ranges;
}

StageUnits stage_units(const ModelShape& shape, DType o_dtype, uint32_t tensor) {
  const uint32_t neuron_unit = neurons_per_unit(shape.ffn_dim, tensor);
  return {heads_per_unit(shape, o_dtype), head_unit_count(shape, o_dtype), neuron_unit,
          units_of(shape.ffn_dim, neuron_unit)};
}

std::string refusal_of_layout(const ModelShape& shape, DType o_dtype, const Layout& layout) {
  const uint32_t unit = heads_per_unit(shape, o_dtype);
  const std::string heads =
      unit == 1 ? std::string("kv heads (tp <= kv_head_count)")
                : fmt::format("groups of {} kv heads (blocks of {})", unit, facts(o_dtype).name);
  for (const std::string& lack :
       {lack_of_units(layout.pipeline, shape.layer_count, "layers (pp <= layer_count)", layout),
        lack_of_units(layout.tensor, head_unit_count(shape, o_dtype), heads, layout),
        lack_of_units(layout.tensor, units_of(shape.ffn_dim, 8), "groups of 8 neurons", layout),
        lack_of_units(layout.tensor, shape.vocab_size, "vocabulary rows", layout)}) {
    if (!lack.empty()) return lack;
  }
  return "";
}

Partition partition_of_parts(const ModelShape& shape, DType o_dtype, const Layout& layout,
                             const std::vector<uint32_t>& layers,
                             const std::vector<StagePart>& parts) {
  TC_CHECK(layers.size() == layout.pipeline && parts.size() == layout.rank_count(),
           "layers for each stage, a part for each rank");
  Partition partition{layout, std::vector<RankShare>(layout.rank_count())};
  const std::vector<Range> stage_layers = side_by_side(layers);
  for (uint32_t rank = 0; rank < layout.rank_count(); ++rank) {
    const uint32_t stage = rank / layout.tensor;
    partition.ranks[rank] = {rank, stage, rank % layout.tensor, stage_layers[stage], {}, {}, {}};
  }
  for (uint32_t stage = 0; stage < layout.pipeline; ++stage) {
    const size_t first = size_t{stage} * layout.tensor;
    place_stage(shape, o_dtype, std::span(parts).subspan(first, layout.tensor),
                partition.ranks.data() + first);
  }
  return partition;
}

Partition make_partition(const ModelShape& shape, DType o_dtype, const Layout& layout,
                         const std::vector<double>& rank_weights) {
  TC_CHECK(rank_weights.size() == layout.rank_count(), "one weight a rank");
  const std::string refusal = refusal_of_layout(shape, o_dtype, layout);
  if (!refusal.empty()) throw bad_usage(refusal);
  std::vector<double> stage_weights(layout.pipeline);
  std::vector<StagePart> parts;
  for (uint32_t stage = 0; stage < layout.pipeline; ++stage) {
    const auto first = rank_weights.begin() + stage * layout.tensor;
    const std::vector<double> weights(first, first + layout.tensor);
    stage_weights[stage] = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (const StagePart& part : weighted_parts(shape, o_dtype, weights)) parts.push_back(part);
  }
  std::vector<uint32_t> layers;
  for (const Range& range : split_units(shape.layer_count, stage_weights)) {
    layers.push_back(range.count);
  }
  return partition_of_parts(shape, o_dtype, layout, layers, parts);
}

}  // namespace thermocline
