// thermocline model synth: runs synthetic weights, and holds what they did to what they promise.
//
// A preset's layers are executed on texts of uniformly drawn tokens, the text that the generator
//   assumes, and the bits of all neurons are counted as they happen (traces/statistics.h). Each
//   statistic is printed beside its target, which follows from the regime alone
//   (models/activity_model.h). Targets are those of the layers that were executed: four layers
//   taken at even distances stand for a whole model, and are no more than that.
// Bounds are for layers as wide as those that statistics were published for: the rates that a few
//   hundred neurons draw move a mean by more than a bound.
// Goals: nothing in the measured column comes from the generator's parameters.
// Thread-safety: one call at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/model_spec.h"
#include "traces/statistics.h"

namespace CLI {
class App;
}

namespace thermocline {

struct SynthRunOptions {
  uint32_t sequences = 3;
  uint32_t steps = 128;   // of each sequence
  uint32_t skipped = 32;  // first steps of each, which have no context yet
  uint32_t threads = 0;   // 0: all cores of the process
};

// One line of the table. Shares are from 0 to 1.
struct SynthStatistic {
  std::string name;
  std::optional<uint32_t> layer;  // of one layer; else of all
  double target = 0;
  std::optional<double> measured;  // nothing where the run was too short for it
  std::optional<double> bound;     // largest difference that passes; none: no promise

  bool within() const;
};

struct SynthResult {
  std::vector<SynthStatistic> statistics;
  double load_seconds = 0;  // until all weights were made
  double run_seconds = 0;
  uint64_t weight_bytes = 0;
  uint32_t threads = 0;
};

// Executes the preset's layers and compares. Usage Error for sequences that are too short.
SynthResult run_synthetic(const ModelSpec& spec, const SynthRunOptions& options);

// Error{failed} that counts the statistics that are not within their bounds, and names the first.
void require_promises(const SynthResult& result);

// Adds `synth` to the `model` command.
void add_synth_command(CLI::App& model);

}  // namespace thermocline
