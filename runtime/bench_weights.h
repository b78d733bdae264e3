// Weights and other memory for a bench: random, valid, and more of them than caches hold.
//
// Goals: rows of gate and up lie side by side, as a SiLU model's do (runtime/rank_weights.cc),
//   placed by the threads that read them. Non-goals: measuring (backend_bench.h).
// Errors: Error{failed} where there is no room.
// Thread-safety: one thread, that of the backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "models/dtype.h"
#include "models/shape.h"
#include "runtime/backend.h"

namespace thermocline {

inline uint64_t product(int a, int b) {
  return static_cast<uint64_t>(a) * static_cast<uint64_t>(b);
}

inline uint64_t row_bytes(DType dtype, int cols) {
  return bytes_of(dtype, static_cast<uint64_t>(cols));
}

// Memory for as many copies of the same weights as outgrow the caches.
struct BenchCopies {
  std::shared_ptr<std::byte> memory;
  uint64_t bytes;  // of one
  int count;

  std::byte* at(int copy) const { return memory.get() + static_cast<uint64_t>(copy) * bytes; }
};

// The matrices of one copy of a layer, or only those of its FFN.
struct BenchLayer {
  WeightView q, k, v, o, gate, up, down;
  KvView cache;
};

// Neurons to look at: `sets` of them in turn, or every neuron.
struct Candidates {
  std::shared_ptr<std::byte> words;  // empty: every neuron
  int sets = 1;
  int size = 0;  // neurons of a set
  uint64_t stride = 0;

  NeuronMask mask(int call) const {
    if (words == nullptr) return {};
    const auto* first = reinterpret_cast<const uint64_t*>(words.get());
    return {first + static_cast<uint64_t>(call % sets) * stride, 0};
  }
};

class BenchWeights {
 public:
  // At least pass_bytes in all copies, at most memory_bytes, as far as there is room.
  BenchWeights(Backend& backend, uint64_t pass_bytes, uint64_t memory_bytes)
      : backend_(backend), pass_bytes_(pass_bytes), memory_bytes_(memory_bytes) {}

  // As many rows as there is room for, `beside` other bytes: all, or a multiple of 64.
  int fitting(int rows, uint64_t bytes_per_row, uint64_t beside) const;
  BenchCopies make_copies(uint64_t bytes_of_one) const;

  WeightView make_matrix(std::byte* memory, DType type, int rows, int cols);
  BenchLayer make_ffn(std::byte* memory, DType type, int neurons, int cols);
  // All of a layer, with room for keys and values of `slots` sequences.
  BenchLayer make_layer(std::byte* memory, DType type, int neurons, const ModelShape& shape,
                        int positions, int slots);
  KvView make_cache(std::byte* memory, const ModelShape& shape, int positions, int slots);

  // `percent` of the neurons, drawn at random.
  Candidates draw(int neurons, double percent) const;

  // Stays until the end; random in [-1, 1), or zeros with seed 0.
  float* allocate_floats(uint64_t count, uint32_t seed);

 private:
  uint64_t room() const;
  void fill(float* memory, uint64_t count, uint32_t seed) const;
  const std::byte* pattern(DType type, int cols);
  void place(std::span<const WeightView> matrices);

  Backend& backend_;
  uint64_t pass_bytes_, memory_bytes_;
  std::map<std::pair<DType, int>, std::vector<std::byte>> patterns_;
  std::vector<std::shared_ptr<std::byte>> buffers_;
};

}  // namespace thermocline
