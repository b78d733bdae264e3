// Random weights, but for what a test spoils: values that are no numbers, reads that it counts.
//
// Thread-safety: as the functions that the test gives.
#pragma once

#include <functional>
#include <string>

#include "tests/runtime/random_weights.h"

namespace thermocline::test {

class Spoiled final : public WeightSource {
 public:
  explicit Spoiled(const ModelShape& shape) : weights_(shape) {}
  std::function<void(Matrix, uint32_t layer, const MatrixSlice&, float* values)> matrix;
  std::function<void(NormVector, uint32_t layer, float* values)> norm;
  DType type = DType::f32;

  const ModelShape& shape() const override { return weights_.shape(); }
  DType dtype(Matrix, uint32_t) const override { return type; }
  std::string provenance() const override { return "synthetic"; }
  std::string hash() const override { return weights_.hash(); }
  void read(Matrix of, uint32_t layer, const MatrixSlice& slice, std::byte* out) const override {
    weights_.read(of, layer, slice, out);
    if (matrix) matrix(of, layer, slice, reinterpret_cast<float*>(out));
  }
  void read(NormVector of, uint32_t layer, float* out) const override {
    weights_.read(of, layer, out);
    if (norm) norm(of, layer, out);
  }

 private:
  RandomWeights weights_;
};

}  // namespace thermocline::test
