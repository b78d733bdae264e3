// WeightPlan: which part of each matrix of a model a rank holds.
//
// Non-goals: reading them (part_loader.h), whether they fit (weight_room.h).
// Thread-safety: const after construction.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/weights.h"
#include "runtime/partition.h"

namespace thermocline {

// As messages name it: "attention_norm".
std::string_view name_of(NormVector vector);

// The rows of a neuron that lie in its bundle on disk, where there are tiers.
inline constexpr std::array kTieredMatrices = {Matrix::up, Matrix::down_t};

bool is_ffn(Matrix matrix);

// A rank's part of a matrix.
struct WeightPart {
  Matrix matrix;
  uint32_t layer;
  DType dtype;
  Range rows, cols;

  uint64_t row_bytes() const { return bytes_of(dtype, cols.count); }
  uint64_t byte_count() const { return rows.count * row_bytes(); }
  std::string text() const;  // "layer 3, up"
};

// Which parts a rank holds.
class WeightPlan {
 public:
  WeightPlan(const WeightSource& source, const Partition& partition, uint32_t rank)
      : source_(source),
        shape_(source.shape()),
        share_(partition.ranks[rank]),
        first_stage_(partition.first_stage(rank)),
        last_stage_(partition.last_stage(rank)) {}

  WeightPart part(Matrix matrix, uint32_t layer) const;
  std::vector<WeightPart> parts() const;  // all of them
  bool first_stage() const { return first_stage_; }
  bool last_stage() const { return last_stage_; }

 private:
  const WeightSource& source_;
  const ModelShape& shape_;
  const RankShare& share_;
  bool first_stage_, last_stage_;
};

}  // namespace thermocline
