// WeightSource: where a rank's weights come from, whatever holds them.
//
// Goals: any rectangle of any matrix, so that a rank reads just its own share; the down projection
//   always comes transposed, so that a neuron is one row in gate, up and down_t alike (a bundle).
// A file whose down projection has blocks of 32 or 256 neurons has no bytes of a single neuron.
//   Such blocks are decoded, and delivered in a type wide enough that nothing worth mentioning is
//   lost: q8_0 for types of fewer bits, f16 for q8_0. `model convert` writes files that need none.
// Non-goals: residency, threads, arithmetic.
// Matrices are row-major (rows = out features, cols = in features): token_embedding and head
//   (vocab_size, model_dim); q (q_dim, model_dim); k, v (kv_dim, model_dim); o (model_dim, q_dim);
//   gate, up, down_t (ffn_dim, model_dim). RoPE pairs are interleaved (2i, 2i+1).
// Thread-safety: const methods may be called from any thread at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "models/dtype.h"
#include "models/model_spec.h"
#include "models/shape.h"

namespace thermocline {

enum class Matrix : uint8_t { token_embedding, head, q, k, v, o, gate, up, down_t };
enum class NormVector : uint8_t { attention_norm, ffn_norm, output_norm };

// Rows [row_begin, row_end) x columns [col_begin, col_end); columns at block borders of the type.
struct MatrixSlice {
  uint64_t row_begin, row_end, col_begin, col_end;
};

struct MatrixSize {
  uint64_t rows, cols;
};
MatrixSize size_of(Matrix matrix, const ModelShape& shape);

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const ModelShape& shape() const = 0;
  // The type in which `read` delivers; of gate, up and down_t the same for all layers.
  virtual DType dtype(Matrix matrix, uint32_t layer) const = 0;
  // Writes the slice row by row, each row bytes_of(dtype, col_end - col_begin) bytes.
  // `layer` is ignored for token_embedding and head.
  virtual void read(Matrix matrix, uint32_t layer, const MatrixSlice& slice,
                    std::byte* out) const = 0;
  virtual void read(NormVector vector, uint32_t layer, float* out) const = 0;  // (model_dim)
  virtual std::string provenance() const = 0;  // "real" | "trained-demo" | "synthetic"
  virtual std::string hash() const = 0;        // 16 hex digits: names the weights
};

// Types of the rows of a bundle.
BundleTypes bundle_types(const WeightSource& source);
// Of the types in which the layers have this matrix, the one with the longest block: where a row is
// cut for one layer, it can be cut for all.
DType longest_block(const WeightSource& source, Matrix matrix);

// A checkpoint file (models/checkpoint.h) or synthetic weights (models/synthetic.h).
std::unique_ptr<WeightSource> open_weights(const ModelSpec& spec);

}  // namespace thermocline
