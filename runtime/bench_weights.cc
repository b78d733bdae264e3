#include "runtime/bench_weights.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>

#include "models/counter_random.h"
#include "models/error.h"
#include "models/quantize.h"

namespace thermocline {
namespace {

constexpr int kRowUnit = 64;      // a matrix that has to be smaller has a multiple of it
constexpr int kPatternRows = 16;  // different rows, of which a matrix is made
constexpr uint64_t kLine = 64;    // what begins, begins at a multiple of it

uint64_t whole_lines(uint64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// Uniform in [-1, 1), the same for the same seed.
std::vector<float> random_floats(uint64_t count, uint32_t seed) {
  const uint64_t blocks = (count * 4 + RandomStream::kBytesPerBlock - 1) / 32;
  std::vector<uint32_t> bits(blocks * 8);
  RandomStream(seed, 0).blocks(0, 0, static_cast<uint32_t>(blocks),
                               reinterpret_cast<uint8_t*>(bits.data()));
  std::vector<float> values(count);
  for (uint64_t i = 0; i < count; ++i) values[i] = static_cast<float>(bits[i]) * 0x1p-31f - 1.0f;
  return values;
}

// Sets of `size` of `count` neurons, a bit each, without a neuron in common: sets x words.
std::vector<uint64_t> disjoint_sets(int count, int size, int sets) {
  const int words = (count + 63) / 64;
  std::vector<uint64_t> bits(product(sets, words));
  const RandomStream random(1, 1);
  for (int i = 0; i < sets * size; ++i) {
    const int neuron =
        static_cast<int>(random.permuted(static_cast<uint32_t>(i), static_cast<uint32_t>(count)));
    bits[product(i / size, words) + static_cast<uint64_t>(neuron / 64)] |= uint64_t{1}
                                                                           << (neuron % 64);
  }
  return bits;
}

// Takes memory for matrices, one after the other.
class Cursor {
 public:
  explicit Cursor(std::byte* at) : at_(at) {}

  WeightView matrix(DType dtype, int rows, int cols) {
    const WeightView view{dtype, rows, cols, row_bytes(dtype, cols), at_};
    at_ += whole_lines(static_cast<uint64_t>(rows) * view.stride);
    return view;
  }
  // Rows of gate and up side by side, then those of down.
  void ffn(DType dtype, int neurons, int cols, BenchLayer& layer) {
    const uint64_t row = row_bytes(dtype, cols);
    layer.gate = {dtype, neurons, cols, 2 * row, at_};
    layer.up = {dtype, neurons, cols, 2 * row, at_ + row};
    at_ += static_cast<uint64_t>(neurons) * 2 * row;
    layer.down = matrix(dtype, neurons, cols);
  }
  float* floats(uint64_t count) {
    float* values = reinterpret_cast<float*>(at_);
    at_ += whole_lines(count * sizeof(float));
    return values;
  }
  std::byte* end() const { return at_; }

 private:
  std::byte* at_;
};

}  // namespace

uint64_t BenchWeights::room() const {
  const uint64_t free = backend_.free_bytes();
  // Half of a machine's memory is left to others; a device's is ours but for some scratch.
  const uint64_t share = backend_.uses_host_memory() ? free / 2 : free / 10 * 9;
  return std::min(share, memory_bytes_);
}

int BenchWeights::fitting(int rows, uint64_t bytes_per_row, uint64_t beside) const {
  const uint64_t bytes = room();
  const uint64_t fit = bytes <= beside ? 0 : (bytes - beside) / bytes_per_row;
  if (fit >= static_cast<uint64_t>(rows)) return rows;
  if (fit >= kRowUnit) return static_cast<int>(fit) / kRowUnit * kRowUnit;
  throw work_failed(
      fmt::format("bench: no room for {} rows of {} bytes, beside {} other bytes: {} may be taken",
                  kRowUnit, bytes_per_row, beside, bytes));
}

BenchCopies BenchWeights::make_copies(uint64_t bytes_of_one) const {
  const uint64_t bytes = whole_lines(bytes_of_one);
  const uint64_t wanted = (pass_bytes_ + bytes - 1) / bytes;
  const uint64_t count = std::max<uint64_t>(1, std::min(wanted, room() / bytes));
  BenchCopies copies{backend_.allocate(bytes * count), bytes, static_cast<int>(count)};
  // As for a model's weights (runtime/rank_weights.cc): a hint.
  if (backend_.uses_host_memory()) ::madvise(copies.memory.get(), bytes * count, MADV_HUGEPAGE);
  return copies;
}

// Rows that are repeated all over a matrix: small, so that many layers in a row stay finite.
const std::byte* BenchWeights::pattern(DType type, int cols) {
  std::vector<std::byte>& bytes = patterns_[{type, cols}];
  if (bytes.empty()) {
    std::vector<float> values = random_floats(product(kPatternRows, cols), 6);
    for (float& value : values) value *= 0.02f;
    bytes.resize(kPatternRows * row_bytes(type, cols));
    quantize(type, values.data(), values.size(), bytes.data());
  }
  return bytes.data();
}

// Matrices of as many rows each, by the threads that are to read them.
void BenchWeights::place(std::span<const WeightView> matrices) {
  const std::byte* rows = pattern(matrices[0].dtype, matrices[0].cols);
  backend_.run_on_host(matrices[0].rows, [&](int begin, int end) {
    for (int r = begin; r < end; r += kPatternRows) {
      for (const WeightView& matrix : matrices) {
        backend_.place_rows(matrix, r, std::min(end, r + kPatternRows), rows);
      }
    }
  });
}

WeightView BenchWeights::make_matrix(std::byte* memory, DType type, int rows, int cols) {
  const WeightView matrix = Cursor(memory).matrix(type, rows, cols);
  place({&matrix, 1});
  return matrix;
}

BenchLayer BenchWeights::make_ffn(std::byte* memory, DType type, int neurons, int cols) {
  BenchLayer layer;
  Cursor(memory).ffn(type, neurons, cols, layer);
  const WeightView rows[] = {layer.gate, layer.up, layer.down};
  place(rows);
  return layer;
}

BenchLayer BenchWeights::make_layer(std::byte* memory, DType type, int neurons,
                                    const ModelShape& shape, int positions, int slots) {
  const auto dim = static_cast<int>(shape.model_dim), q_dim = static_cast<int>(shape.q_dim());
  const auto kv_dim = static_cast<int>(shape.kv_dim());
  const uint64_t ffn = static_cast<uint64_t>(neurons) * 3 * row_bytes(type, dim);
  BenchLayer layer = make_ffn(memory, type, neurons, dim);
  Cursor cursor(memory + whole_lines(ffn));
  layer.q = cursor.matrix(type, q_dim, dim);
  layer.k = cursor.matrix(type, kv_dim, dim);
  layer.v = cursor.matrix(type, kv_dim, dim);
  layer.o = cursor.matrix(type, dim, q_dim);
  for (const WeightView& matrix : {layer.q, layer.k, layer.v, layer.o}) place({&matrix, 1});
  layer.cache = make_cache(cursor.end(), shape, positions, slots);
  return layer;
}

KvView BenchWeights::make_cache(std::byte* memory, const ModelShape& shape, int positions,
                                int slots) {
  const uint64_t slot = product(positions, static_cast<int>(shape.kv_dim()));
  const uint64_t count = slot * static_cast<uint64_t>(slots);
  Cursor cursor(memory);
  float* keys = cursor.floats(count);
  float* values = cursor.floats(count);
  fill(keys, count, 7);
  fill(values, count, 8);
  return {keys, values, slot, product(positions, static_cast<int>(shape.head_dim)), positions};
}

Candidates BenchWeights::draw(int neurons, double percent) const {
  if (percent >= 100) return {nullptr, 1, neurons, 0};
  const int size = std::max(1, static_cast<int>(std::lround(neurons * percent / 100)));
  const int sets = std::max(1, neurons / size);
  const std::vector<uint64_t> bits = disjoint_sets(neurons, size, sets);
  const uint64_t bytes = bits.size() * sizeof(uint64_t);
  Candidates candidates{backend_.allocate(bytes), sets, size,
                        bits.size() / static_cast<uint64_t>(sets)};
  backend_.upload(candidates.words.get(), bits.data(), bytes);
  return candidates;
}

float* BenchWeights::allocate_floats(uint64_t count, uint32_t seed) {
  buffers_.push_back(backend_.allocate(count * sizeof(float)));
  float* memory = reinterpret_cast<float*>(buffers_.back().get());
  if (seed != 0) fill(memory, count, seed);
  return memory;
}

void BenchWeights::fill(float* memory, uint64_t count, uint32_t seed) const {
  const std::vector<float> values = random_floats(count, seed);
  backend_.upload(memory, values.data(), count * sizeof(float));
}

}  // namespace thermocline
