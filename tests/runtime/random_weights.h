// Random weights of any shape, the same as tests/oracles/make_llama_logits.py makes.
//
// Goals: every element a function of (tensor, layer, index), exact in f32, so that a Python script
//   and any rank make the same ones. Thread-safety: const methods may be called from any thread.
#pragma once

#include <vector>

#include "models/quantize.h"
#include "models/weights.h"

namespace thermocline::test {

// SplitMix64 of (tensor, layer, index) as a multiple of 2^-23 in [-1, 1).
inline double uniform(uint64_t tensor, uint64_t layer, uint64_t index) {
  uint64_t x = (index + (tensor << 48) + (layer << 40)) * 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  x ^= x >> 31;
  return (static_cast<double>(x >> 40) - 0x1p23) / 0x1p23;
}

class RandomWeights final : public WeightSource {
 public:
  explicit RandomWeights(const ModelShape& shape, DType dtype = DType::f32)
      : shape_(shape), dtype_(dtype) {}

  const ModelShape& shape() const override { return shape_; }
  DType dtype(Matrix, uint32_t) const override { return dtype_; }
  std::string provenance() const override { return "synthetic"; }
  std::string hash() const override { return "0123456789abcdef"; }

  void read(Matrix matrix, uint32_t layer, const MatrixSlice& slice,
            std::byte* out) const override {
    if (matrix == Matrix::head && shape_.tied_embeddings) matrix = Matrix::token_embedding;
    const bool layered = matrix != Matrix::token_embedding && matrix != Matrix::head;
    const double scale = matrix == Matrix::token_embedding ? 1.0 : 0.25;
    const uint64_t cols = size_of(matrix, shape_).cols;
    std::vector<float> row(slice.col_end - slice.col_begin);
    for (uint64_t r = slice.row_begin; r < slice.row_end; ++r) {
      for (uint64_t c = slice.col_begin; c < slice.col_end; ++c) {
        row[c - slice.col_begin] = static_cast<float>(
            scale * uniform(static_cast<uint64_t>(matrix), layered ? layer : 0, r * cols + c));
      }
      quantize(dtype_, row.data(), row.size(), out);
      out += bytes_of(dtype_, row.size());
    }
  }

  void read(NormVector vector, uint32_t layer, float* out) const override {
    const uint64_t tensor = 9 + static_cast<uint64_t>(vector);  // after the matrices
    const uint64_t of = vector == NormVector::output_norm ? 0 : layer;
    for (uint32_t i = 0; i < shape_.model_dim; ++i) {
      out[i] = static_cast<float>(1.0 + 0.25 * uniform(tensor, of, i));
    }
  }

 private:
  ModelShape shape_;
  DType dtype_;
};

}  // namespace thermocline::test
