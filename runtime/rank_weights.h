// RankWeights: the share of the model that one rank holds, in the checkpoint's own element type.
//
// Goals: each rank reads just its share, once; a neuron is one row in gate, up and down_t alike.
// Non-goals: tiers (all of it is in host memory).
// Shapes: q (q_rows, model_dim); k, v (kv_rows, model_dim); o (model_dim, q_rows), the columns of
//   this rank's heads; gate, up, down_t (neurons, model_dim); token_embedding on the first stage
//   and head on the last (vocab rows of the rank, model_dim).
// Thread-safety: const after loading.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "models/dtype.h"
#include "models/weights.h"
#include "runtime/partition.h"
#include "runtime/thread_pool.h"

namespace thermocline {

struct WeightMatrix {
  DType dtype = DType::f32;
  int rows = 0;
  int cols = 0;
  std::shared_ptr<std::byte> bytes;  // (rows, cols), row-major

  const std::byte* data() const { return bytes.get(); }
  uint64_t byte_count() const { return static_cast<uint64_t>(rows) * bytes_of(dtype, cols); }
};

struct LayerWeights {
  std::vector<float> attention_norm, ffn_norm;  // (model_dim)
  WeightMatrix q, k, v, o;
  WeightMatrix gate, up, down_t;

  // What a decode step reads whatever neurons are active: all but the FFN.
  uint64_t dense_byte_count() const {
    return q.byte_count() + k.byte_count() + v.byte_count() + o.byte_count();
  }
};

struct RankWeights {
  std::vector<LayerWeights> layers;  // of the rank's stage
  WeightMatrix token_embedding;      // empty but on the first stage
  WeightMatrix head;                 // empty but on the last stage; tied: shared with the embedding
  std::vector<float> output_norm;    // (model_dim)

  // Bytes of non-FFN matrices that one decode step reads.
  uint64_t dense_bytes() const;
  uint64_t total_bytes() const;
};

RankWeights load_rank_weights(const WeightSource& source, const Partition& partition, uint32_t rank,
                              ThreadPool& pool);

}  // namespace thermocline
