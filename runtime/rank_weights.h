// RankWeights: the share of the model that one rank holds, in the checkpoint's own element type.
//
// Goals: each rank reads just its share, once; what a pass reads in one go lies in one piece.
//   What a backend cannot run, or has no room for, is refused before anything is read.
// Tiers: with TierOptions the up and down_t rows of the FFN lie in a file, the hot ones in memory
//   too (tiers/bundle_store.h); gate, which says what is active, and all else are in memory. Or the
//   FFN lies in the memory of a host backend, the hot bundles on the device too
//   (tiers/device_tier.h); all else is on the device. Or both: the host backend has gate rows, and
//   of the others what is hot there; the device has what is hot on it.
// Shapes: q (q_rows, model_dim); k, v (kv_rows, model_dim); o (model_dim, q_rows), the columns of
//   this rank's heads; gate, up, down_t (neurons, model_dim); token_embedding on the first stage
//   and head on the last (vocab rows of the rank, model_dim).
// Thread-safety: const after loading.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "models/budget.h"
#include "models/weights.h"
#include "runtime/backend.h"
#include "runtime/partition.h"
#include "runtime/tiers/bundle_store.h"
#include "runtime/tiers/device_tier.h"

namespace thermocline {

struct WeightMatrix {
  WeightView view;
  std::shared_ptr<std::byte> memory;  // that the rows lie in; matrices side by side share it

  uint64_t byte_count() const {
    return static_cast<uint64_t>(view.rows) *
           bytes_of(view.dtype, static_cast<uint64_t>(view.cols));
  }
};

// f32, in the backend's memory.
struct WeightVector {
  std::shared_ptr<std::byte> memory;
  const float* data() const { return reinterpret_cast<const float*>(memory.get()); }
};

struct LayerWeights {
  WeightVector attention_norm, ffn_norm;  // (model_dim)
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
  WeightVector output_norm;          // (model_dim)
  std::shared_ptr<BundleStore> tiers;       // null: no part of it lies in a file
  std::shared_ptr<DeviceTier> device_tier;  // null: all of it is the one backend's

  // Bytes of non-FFN matrices that one decode step reads.
  uint64_t dense_bytes() const;
  uint64_t total_bytes() const;
};

// Where the FFN lies, if not in the backend's memory.
struct TierOptions {
  std::string folder;           // of the bundle file; empty: no disk tier
  HotBudget budget = 0;         // of hot bundles in the fastest tier
  std::string weight_hash;      // of the whole model: whose bundles an old file holds
  uint64_t bundle_bytes = 0;    // as budgets count them
  std::string engine = "auto";  // of its DiskReader
  // The backend that holds all bundles, or with a folder what is hot in its memory, and computes
  // the cold ones; null: there is no other device.
  Backend* host = nullptr;
  uint64_t reserved_bytes = 0;  // what the device shall have room for beside weights: the KV cache
  HotBudget host_budget = 0;    // with a host and a folder: of hot bundles in host memory
};

// A rank's load, in steps that the ranks of a job take together (runtime/load_together.h): what one
// of them lacks is found before another has read anything.
// check_finite: Error{input} that names layer, tensor, row and column of the first NaN or infinity
// that a thread meets.
class WeightLoad {
 public:
  // Refuses what the backend cannot run or has no room for. `source` and the backends outlive it.
  WeightLoad(const WeightSource& source, const Partition& partition, uint32_t rank,
             Backend& backend, bool check_finite, const TierOptions& tiers);
  // Removes bundles that it made, unless they are kept.
  ~WeightLoad();
  WeightLoad(const WeightLoad&) = delete;
  WeightLoad& operator=(const WeightLoad&) = delete;

  uint64_t host_bytes() const { return host_bytes_; }  // that it will take of its host's memory

  // The steps, in this order; without a disk tier there are no bundles to make.
  void reserve_bundles();  // room on the disk for what no earlier run has made
  void make_bundles();
  bool made_bundles() const;  // they are not an earlier run's
  RankWeights load();
  void keep_bundles();

 private:
  struct State;
  std::unique_ptr<State> state_;
  uint64_t host_bytes_;
};

// All steps of a rank that is alone.
RankWeights load_rank_weights(const WeightSource& source, const Partition& partition, uint32_t rank,
                              Backend& backend, bool check_finite = false,
                              const TierOptions& tiers = {});

}  // namespace thermocline
