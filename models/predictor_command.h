// thermocline model predictor: low-rank activation predictors of a model, without training.
//
// A layer's gate matrix is replaced by its best approximation of a rank (models/low_rank.h), so
// that
//   fc2 (fc1 n), n the FFN's normalised input, approximates the gate itself.
// Goals: a file that `run --predictor lowrank:file=` reads, for any weights, synthetic ones too.
// Non-goals: what training on a model's own activations gains (models/demo/predictor.py).
// Thread-safety: one call at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/weights.h"

namespace CLI {
class App;
}

namespace thermocline {

struct PredictorWriteOptions {
  std::string model;  // for the file's own record
  uint64_t rank = 64;
  uint64_t seed = 1;
  uint32_t thread_count = 1;
  std::function<void(uint64_t layers_done)> progress = {};
};

// Writes the predictors of all layers, f16. Returns the share of each gate's squares that its
// approximation keeps. Errors: usage, for a rank that no gate can have; work_failed where it is
// interrupted or cannot be written, and nothing is left behind.
std::vector<double> write_predictor(const WeightSource& source, const std::string& path,
                                    const PredictorWriteOptions& options);

// Adds `predictor` to the `model` command.
void add_predictor_command(CLI::App& model);

}  // namespace thermocline
