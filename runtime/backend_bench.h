// What a backend's operations reach on this machine, on matrices of a large model's dimensions.
//
// A pass takes one copy of the weights after the other, as many as outgrow the caches, so that they
//   are read from memory. Just before each, the same threads only read the same memory, and where
//   arithmetic binds they only compute: those are its limits. Of these rounds, as many as time
//   allows, a figure is the middle one by its share of the limit that holds it: so a share is fair,
//   and comes again, on a machine that others use too.
// Sparse figures take silu, which computes every candidate, and candidates drawn at random: bytes
//   are exact. Each draw avoids the neurons of the last ones as long as others are left.
// Goals: figures to hold against any other engine's. Non-goals: a model's own run (run_report.h).
// Errors: Error{failed} where there is no room for 64 rows of a matrix.
// Thread-safety: one thread, that of the backend.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/dtype.h"
#include "models/shape.h"
#include "runtime/backend.h"

namespace thermocline {

struct BackendBenchOptions {
  ModelShape shape = shape_preset("llama-2-70b").shape;
  std::vector<DType> matrix_types = {DType::f16,  DType::bf16, DType::q8_0,
                                     DType::q4_0, DType::q4_k, DType::q6_k};
  std::vector<DType> ffn_types = {DType::bf16, DType::q8_0, DType::q4_0};  // many tokens, too
  DType layer_type = DType::q4_0;
  std::vector<double> sparse_percents = {28, 18};
  int batch = 4;
  int prefill = 64;          // tokens of one sequence
  int position_count = 128;  // that a layer attends to, its own tokens among them
  int long_position_count = 2048;
  double seconds = 0.4;  // of a figure and its limits; three rounds where it is short
  uint64_t pass_bytes = uint64_t{384} << 20;  // that a pass reads at least, if there is room
  uint64_t memory_bytes = ~uint64_t{0};       // at most
  int thread_count = 1;                       // of the backend
  double read_limit = 0;     // bytes/s of a backend with its own memory; 0: not known
  double compute_limit = 0;  // its f32 operations/s
  // Called after each figure; may throw, which ends the measurement.
  std::function<void(size_t done, size_t total)> on_figure;
};

struct BackendFigure {
  std::string name;    // "gate matrix"; says so where there is room for fewer rows only
  std::string format;  // of the weights, or of keys and values
  int tokens = 1;
  double active_percent = 100;  // of the neurons, or of a matrix' rows
  int threads = 1;
  uint64_t bytes = 0;  // of weights, keys and values that the operation has to read, each once
  double ms = 0;
  double gb_per_s = 0, share_of_limit = 0;    // share 0: the limit is not known
  double gflop_per_s = 0, share_of_peak = 0;  // likewise; both 0 where nothing is computed
};

// Matrices, FFNs, a layer, attention. What the backend refuses is left out.
std::vector<BackendFigure> measure_backend(Backend& backend, const BackendBenchOptions& options);

// 1, 2, 4, ... and all of options.thread_count: what they read, one token, and prefill, with the
// gate matrix in the layer's type. `make` makes a backend of as many threads.
std::vector<BackendFigure> measure_scaling(
    const std::function<std::unique_ptr<Backend>(int thread_count)>& make,
    const BackendBenchOptions& options);

}  // namespace thermocline
