// Backend: a device that a decoder runs on: its memory, and the operations of a forward pass.
//
// A decoder is written once, against this; `cpu` and `cuda` register themselves
//   (runtime/backends/). Pointers are into the backend's memory unless a comment says "host".
// Goals: every operation is queued in the order of the calls, and may run after they return: only
//   download() and wait() wait. Results depend neither on threads nor on the other rows of a
//   forward, and are the same for every run.
// Non-goals: ranks (comm.h); choosing what is executed where (tiers).
// Shapes: activations are f32, (token_count, width), row-major, without gaps.
// Errors: a failure of the device throws Error; what a backend cannot run it refuses beforehand
//   (refusal_of_matrix, refusal_of_attention).
// Thread-safety: one thread, except for place_rows and allocate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "models/dtype.h"
#include "models/registry.h"
#include "models/shape.h"
#include "runtime/kernels/weight_view.h"
#include "runtime/numa.h"

namespace thermocline {

// What a row of a forward stands for.
struct TokenRow {
  int32_t token = 0;
  uint32_t position = 0;  // within its sequence
  uint32_t slot = 0;      // of the KV cache
};

// y (token_count, w.rows) = x w^T
struct Product {
  WeightView w;
  float* y;
};

// Keys and values of one layer: those of slot s and kv head h are (position_max, head_dim) f32 at
// keys + s * slot_stride + h * head_stride, and alike for values.
struct KvView {
  float* keys;
  float* values;
  uint64_t slot_stride, head_stride;  // floats
  int position_max;
};

struct AttentionCall {
  const float* q;  // (token_count, head_count * head_dim), before rotation
  const float* k;  // (token_count, kv_head_count * head_dim), before rotation
  const float* v;
  KvView cache;
  int head_count, kv_head_count, head_dim;  // of this rank
  const double* frequencies;                // (head_dim / 2), radians a position
  float* out;                               // (token_count, head_count * head_dim)
};

// Bits of neurons, little bit order, `stride` words a token; stride 0: all tokens share them.
struct NeuronMask {
  const uint64_t* words = nullptr;  // null: every neuron
  uint64_t stride = 0;
};

struct GateUpCall {
  WeightView gate, up;  // (neurons, model_dim); where has_tiers(), up may have no rows:
                        // hidden is act(gate x) then
  FfnActivation activation;
  float threshold;        // ActivationRule::thresholds of the layer
  NeuronMask candidates;  // the neurons to look at; the others are inactive
  const float* x;         // (token_count, model_dim)
  float* hidden;          // (token_count, neurons): act(gate x) * (up x) of computed neurons
  uint64_t* active;       // (token_count, active_stride): bits of the active neurons; those
                          // beyond the last neuron in its last word are zero
  uint64_t active_stride;
  float* magnitudes;  // (token_count, neurons): |act(gate x)| of candidates; null: not wanted
};

// Which rows of signs agree with an input (runtime/kernels/signs.h).
struct SignCall {
  const uint64_t* signs;  // (rows, sign_words(cols)): 1 where a weight is below zero
  int rows, cols;
  int differing_max;  // columns in which a row may differ from x; below 0: none agrees
  const float* x;     // (token_count, cols)
  uint64_t* bits;     // (token_count, stride): the rows that agree; those beyond the last row in
                      // its word are zero
  uint64_t stride;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string describe() const = 0;  // "avx2, 2 threads"; "NVIDIA H200, sm_90"
  virtual bool uses_host_memory() const = 0;
  virtual uint64_t free_bytes() const = 0;  // that allocate can give; all ones: not known

  // Why it cannot run this; empty: it can.
  virtual std::string refusal_of_matrix(DType dtype, int cols) const = 0;
  virtual std::string refusal_of_attention(int head_dim, int heads_per_kv_head) const = 0;

  // Zeros, at a multiple of 64 bytes. Throws Error where there is no room.
  virtual std::shared_ptr<std::byte> allocate(uint64_t bytes) = 0;
  // Rows [row_begin, row_end) of `w` from host memory, packed, as the file formats have them.
  // Several threads may place different rows at once; they are there when it returns.
  virtual void place_rows(const WeightView& w, int row_begin, int row_end,
                          const std::byte* host) = 0;
  virtual void upload(void* to, const void* host, uint64_t bytes) = 0;
  virtual void download(void* host, const void* from, uint64_t bytes) = 0;  // waits
  virtual void wait() = 0;  // until everything queued is done

  // Runs work(part_begin, part_end) over [0, count) on host threads: for loading.
  virtual void run_on_host(int count, const std::function<void(int, int)>& work) = 0;

  // The rows (host) that the following operations are about: token_count is their number.
  virtual void begin(std::span<const TokenRow> rows) = 0;
  // Runs queue(), which queues operations on pointers that stay. Where it pays, the backend keeps
  // what was queued for a key and a number of rows, and replays it later without calling queue().
  // upload(), download() and allocate() do not belong in it.
  virtual void run_queued(uint64_t key, const std::function<void()>& queue) = 0;

  // x[t] = row token(t) - first_token of `table`; zeros where it has no such row.
  virtual void embed(const WeightView& table, uint32_t first_token, float* x) = 0;
  // y = x / sqrt(mean(x^2) + epsilon) * weight, `count` rows  (Zhang & Sennrich 2019)
  virtual void rms_norm(const float* x, const float* weight, int dim, float epsilon, int count,
                        float* y) = 0;
  // All products of one x (count, cols of each), which begins at a multiple of 16 bytes where cols
  // is a multiple of 4.
  virtual void multiply(std::span<const Product> products, const float* x, int count) = 0;
  // Rotates q and k, stores k and v at each row's position, and attends to every position up to it.
  virtual void attend(const AttentionCall& call) = 0;
  virtual void gate_and_up(const GateUpCall& call) = 0;
  // hidden[t][r] *= w[r] . x[t] for rows r of `mask`       hidden: (token_count, w.rows)
  // Where rows lie in tiers, of which a backend may have none (has_tiers).
  virtual bool has_tiers() const { return false; }
  virtual void scale_by_rows(const WeightView& w, const NeuronMask& mask, const float* x,
                             float* hidden);
  // y[t] = sum over rows r of `mask` of a[t][r] * w[r]     y: (token_count, w.cols)
  virtual void sum_rows(const WeightView& w, const NeuronMask& mask, const float* a, float* y) = 0;
  // x += y, `count` floats
  virtual void add(float* x, const float* y, uint64_t count) = 0;

  // What activation predictors compute (predictor.h).
  virtual void match_signs(const SignCall& call) = 0;
  // x = max(x, 0), 0 for a NaN, `count` floats
  virtual void relu(float* x, uint64_t count) = 0;
  // Bit i of bits[t]: whether scores[t][i] >= threshold, for i < width; zero beyond, in its word.
  // scores: (token_count, width); bits: (token_count, stride).
  virtual void mark_reached(const float* scores, int width, float threshold, uint64_t* bits,
                            uint64_t stride) = 0;
};

struct BackendOptions {
  int thread_count = 1;  // host threads
  RankOnHost rank;       // among the processes or threads that share the machine
  int device = 0;        // which of several
};

struct BackendEntry {
  std::string name;
  std::string summary;
  std::string (*unusable)();  // why it cannot be used here; empty: it can
  std::unique_ptr<Backend> (*make)(const BackendOptions& options);
};

Registry<BackendEntry>& backends();

// The backend called `name`; "auto": cuda where it can be used, else cpu. Usage Error where there
// is none of that name, or it cannot be used here.
const BackendEntry& choose_backend(std::string_view name);

#define THERMOCLINE_BACKEND(name, summary, unusable, make) \
  static const bool registered_##name =                    \
      ::thermocline::backends().add({#name, summary, unusable, make})

}  // namespace thermocline
