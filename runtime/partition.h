// Partition: which layers, heads, neurons and vocabulary rows each rank owns.
//
// A layout "pp2,tp2" has 2 pipeline stages (whole layers, one after the other) of 2 tensor-parallel
// ranks (heads, neurons and vocabulary of the same layers). Rank = stage * tp + index.
// Goals: any split that the shape allows, equal, by weight (3 ranks work) or as somebody counted it
//   out; neurons begin at multiples of 8, so that pools meet at byte borders in a trace; the
//   columns of the output projection are cut at block borders of its type.
// Non-goals: choosing a layout by cost (partition_solver.h).
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/dtype.h"
#include "models/neuron.h"
#include "models/shape.h"

namespace thermocline {

struct Layout {
  uint32_t pipeline = 1;  // stages
  uint32_t tensor = 1;    // ranks in a stage
  bool operator==(const Layout&) const = default;

  uint32_t rank_count() const { return pipeline * tensor; }
  std::string text() const;  // "pp1,tp4"
};

struct Range {
  uint32_t begin = 0;
  uint32_t count = 0;
  bool operator==(const Range&) const = default;
  uint32_t end() const { return begin + count; }
};

struct RankShare {
  uint32_t rank = 0;
  uint32_t stage = 0;
  uint32_t index = 0;  // within the stage
  Range layers;
  Range kv_heads;  // query heads follow: head_count / kv_head_count for each
  Range neurons;   // of every layer of the stage
  Range vocab;     // rows of the embedding (first stage) and of the head (last stage)

  NeuronPool pool() const { return {layers.begin, layers.count, neurons.begin, neurons.count}; }
};

struct Partition {
  Layout layout;
  std::vector<RankShare> ranks;

  bool first_stage(uint32_t rank) const { return ranks[rank].stage == 0; }
  bool last_stage(uint32_t rank) const { return ranks[rank].stage + 1 == layout.pipeline; }
  std::vector<NeuronPool> pools() const;
};

// "pp2,tp2", "tp3" or "pp4". Usage Error where the text is not a layout or is not of `rank_count`.
Layout parse_layout(std::string_view text, uint32_t rank_count);

// As much tensor parallelism as the heads allow, the rest as pipeline stages.
// Usage Error where `rank_count` fits no layout.
Layout default_layout(const ModelShape& shape, DType o_dtype, uint32_t rank_count);

// "2,1,1": how much each rank takes, relative to the others. Usage Error unless one positive number
// a rank. Empty text: equal.
std::vector<double> parse_rank_weights(std::string_view text, uint32_t rank_count);

// What the heads and neurons of a stage are counted out in.
struct StageUnits {
  uint32_t heads_per_unit, head_units;  // kv heads; those that fill no unit stay with the last rank
  uint32_t neurons_per_unit, neuron_units;  // the last unit may be short
};
StageUnits stage_units(const ModelShape& shape, DType o_dtype, uint32_t tensor);

// How much of a stage's layers one of its ranks takes, in units; vocabulary in rows.
struct StagePart {
  uint32_t heads = 0, neurons = 0, vocab = 0;
  bool operator==(const StagePart&) const = default;
};

// layers: (stages); parts: (ranks). What they add up to is the model.
Partition partition_of_parts(const ModelShape& shape, DType o_dtype, const Layout& layout,
                             const std::vector<uint32_t>& layers,
                             const std::vector<StagePart>& parts);

// Why ranks of this layout would have nothing to hold; empty: all have something.
std::string refusal_of_layout(const ModelShape& shape, DType o_dtype, const Layout& layout);

// Usage Error where the layout has more ranks than the shape has heads, layers, neurons or rows.
Partition make_partition(const ModelShape& shape, DType o_dtype, const Layout& layout,
                         const std::vector<double>& rank_weights);

// Splits `unit_count` units over weights: at least one each, the rest by largest remainder (the
// first of equals). unit_count >= weights.size().
std::vector<Range> split_units(uint32_t unit_count, const std::vector<double>& weights);

}  // namespace thermocline
