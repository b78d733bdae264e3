#include "runtime/rank_weights.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "models/error.h"

namespace thermocline {
namespace {

// Large matrices begin at huge-page borders: a step streams all of them, and page walks cost.
constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kCacheLine = 64;

std::shared_ptr<std::byte> allocate(uint64_t byte_count) {
  const uint64_t alignment = byte_count >= kHugePage ? kHugePage : kCacheLine;
  const uint64_t rounded = (byte_count + kCacheLine - 1) / kCacheLine * kCacheLine;
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment, rounded) != 0) throw std::bad_alloc();
  // A hint: where the kernel has no huge pages, small ones serve.
  if (alignment == kHugePage) ::madvise(memory, rounded, MADV_HUGEPAGE);
  return {static_cast<std::byte*>(memory), [](std::byte* bytes) { std::free(bytes); }};
}

class Loader {
 public:
  Loader(const WeightSource& source, ThreadPool& pool) : source_(source), pool_(pool) {}

  // Rows [rows) x columns [cols) of the matrix; threads take parts of the rows.
  WeightMatrix matrix(Matrix matrix, uint32_t layer, Range rows, Range cols) const {
    WeightMatrix loaded;
    loaded.dtype = source_.dtype(matrix, layer);
    loaded.rows = static_cast<int>(rows.count);
    loaded.cols = static_cast<int>(cols.count);
    loaded.bytes = allocate(loaded.byte_count());
    const uint64_t row_bytes = bytes_of(loaded.dtype, cols.count);
    pool_.run(loaded.rows, 1, [&](int begin, int end) {
      const auto first = static_cast<uint64_t>(begin);
      const MatrixSlice slice{rows.begin + first, rows.begin + static_cast<uint64_t>(end),
                              cols.begin, cols.end()};
      source_.read(matrix, layer, slice, loaded.bytes.get() + first * row_bytes);
    });
    return loaded;
  }

  std::vector<float> norm(NormVector vector, uint32_t layer) const {
    std::vector<float> values(source_.shape().model_dim);
    source_.read(vector, layer, values.data());
    return values;
  }

 private:
  const WeightSource& source_;
  ThreadPool& pool_;
};

LayerWeights load_layer(const Loader& loader, const ModelShape& shape, const RankShare& share,
                        uint32_t layer) {
  const uint32_t q_rows_per_kv_head = shape.q_dim() / shape.kv_head_count;
  const Range all{0, shape.model_dim};
  const Range q{share.kv_heads.begin * q_rows_per_kv_head,
                share.kv_heads.count * q_rows_per_kv_head};
  const Range kv{share.kv_heads.begin * shape.head_dim, share.kv_heads.count * shape.head_dim};
  LayerWeights weights;
  weights.attention_norm = loader.norm(NormVector::attention_norm, layer);
  weights.ffn_norm = loader.norm(NormVector::ffn_norm, layer);
  weights.q = loader.matrix(Matrix::q, layer, q, all);
  weights.k = loader.matrix(Matrix::k, layer, kv, all);
  weights.v = loader.matrix(Matrix::v, layer, kv, all);
  weights.o = loader.matrix(Matrix::o, layer, all, q);
  weights.gate = loader.matrix(Matrix::gate, layer, share.neurons, all);
  weights.up = loader.matrix(Matrix::up, layer, share.neurons, all);
  weights.down_t = loader.matrix(Matrix::down_t, layer, share.neurons, all);
  return weights;
}

}  // namespace

uint64_t RankWeights::dense_bytes() const {
  uint64_t total = head.byte_count();
  for (const LayerWeights& layer : layers) total += layer.dense_byte_count();
  return total;
}

uint64_t RankWeights::total_bytes() const {
  const bool shared = head.bytes == token_embedding.bytes;
  uint64_t total = dense_bytes() + (shared ? 0 : token_embedding.byte_count());
  for (const LayerWeights& layer : layers) {
    total += layer.gate.byte_count() + layer.up.byte_count() + layer.down_t.byte_count();
  }
  return total;
}

RankWeights load_rank_weights(const WeightSource& source, const Partition& partition, uint32_t rank,
                              ThreadPool& pool) {
  const RankShare& share = partition.ranks[rank];
  const ModelShape& shape = source.shape();
  const Range all{0, shape.model_dim};
  const Loader loader(source, pool);
  RankWeights weights;
  for (uint32_t layer = share.layers.begin; layer < share.layers.end(); ++layer) {
    weights.layers.push_back(load_layer(loader, shape, share, layer));
  }
  if (partition.first_stage(rank)) {
    weights.token_embedding = loader.matrix(Matrix::token_embedding, 0, share.vocab, all);
  }
  if (partition.last_stage(rank)) {
    const bool shared = shape.tied_embeddings && partition.first_stage(rank);
    weights.head =
        shared ? weights.token_embedding : loader.matrix(Matrix::head, 0, share.vocab, all);
    weights.output_norm = loader.norm(NormVector::output_norm, 0);
  }
  return weights;
}

}  // namespace thermocline
