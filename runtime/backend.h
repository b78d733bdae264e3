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
// Thread-safety: one thread, except for place_rows, pack_row and allocate.
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

// Rows on their way from host memory to places of a backend's, beside its operations. They are put
// together in batches, so that a copy is worth its while.
// Thread-safety: one thread, which need not be the backend's. It ends before the backend.
class RowMover {
 public:
  virtual ~RowMover() = default;
  // Where the rows of the next batch are put, side by side, in host memory; waits until an earlier
  // batch has left it.
  virtual std::byte* staging() = 0;
  // Row i of staging() goes to places[i] of `to`; they begin as many bytes apart as a row has. No
  // operation under way reads those places.
  virtual void start(std::byte* to, std::span<const uint32_t> places) = 0;
  virtual uint64_t arrived() = 0;  // so many batches, in the order of start(); does not wait
  virtual void wait() = 0;         // for all of them
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
  // Side by side with another backend, which computes on the host (side_by_side.h).
  // Host memory from which queue_copy copies at full speed; zeros, at a multiple of 64 bytes.
  virtual std::shared_ptr<std::byte> allocate_host(uint64_t bytes) = 0;
  // Queued, from or to memory of allocate_host, which is left alone until a mark behind it.
  virtual void queue_copy(void* to, const void* from, uint64_t bytes) = 0;
  // Marks in the queue, by number, from 0 without gaps: each is reached when all that was queued
  // before it is done. Setting one again moves it.
  virtual void mark(uint32_t number) = 0;
  virtual void wait_for(uint32_t number) = 0;
  virtual uint64_t ns_between(uint32_t first, uint32_t second) = 0;  // two that were reached
  // bits[t] = mask[t] & words            words: (word_count); bits: (token_count, word_count)
  virtual void intersect(const NeuronMask& mask, const uint64_t* words, uint32_t word_count,
                         uint64_t* bits) = 0;
  // A row in host memory, from the order of the file formats to this backend's.
  virtual void pack_row(DType dtype, int cols, const std::byte* from, std::byte* to) const = 0;
  // batch_rows: the most rows of a batch. row_bytes is even.
  virtual std::unique_ptr<RowMover> make_mover(uint64_t row_bytes, uint32_t batch_rows) = 0;
  // What a mover allocates on the device.
  virtual uint64_t mover_bytes(uint64_t row_bytes, uint32_t batch_rows) const = 0;

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
