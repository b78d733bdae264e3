// ActivityProcess: what neurons do, drawn at the level of the trace. Nothing is executed.
//
// The regimes, layer profiles and targets are those of synthetic weights (models/activity_model.h);
//   here they are met by drawing bits instead of making weights that bring them about.
// Rates: neuron i of layer l fires at rate pi ~ Beta(m c, (1-m) c), m and c of the layer. The
// ffn_dim
//   rates of a layer are one from each of ffn_dim equal parts of the distribution, in random order;
//   they are 65536ths.
// Memory: at each step a neuron keeps its state with probability rho, else it is drawn anew at its
//   rate. So P(on|on) = pi + rho (1-pi), P(on|off) = pi (1-rho), correlation rho^k at lag k
//   (activations.md section 3.6). rho is a multiple of 1/4096.
// Drift: a topic gives each neuron, with probability q, a rate of its own from the same Beta. Of
// the
//   most active fifth under one topic, (1-q)^2 have their lasting rates under both and stay; of the
//   rest a fifth is there by chance. The share that changes is d = 0.8 (1 - (1-q)^2), so
//   q = 1 - sqrt(1 - d / 0.8). Each task is a topic of its own; with K topics it has one of K,
//   drawn at random, and tasks of one topic have the same rates in all layers.
// Swing: a hidden state z = +1 or -1, shared by all layers, changes sign with probability 1/D at
//   each step and is of either sign at the start of a task. Half of the neurons of each layer lean
//   to it (e = +1), half against (e = -1): draws are made at rate pi + e z s min(pi, 1-pi). The
//   mean over z is pi. Neurons of different layers become correlated; s = 0: independent.
// Guesses: a predictor's bits, 1 with probability `recall` for an active neuron and
//   recall m (1-p) / (p (1-m)) for an inactive one, which makes the precision p in each layer.
// Goals: a pure function of the parameters and two seeds, in integers: the same bits on every
//   machine, however steps are grouped; memory that does not grow with the number of steps.
// Non-goals: files (traces/synthesis.h), texts (traces/synthetic_tasks.h), magnitudes.
// Thread-safety: one thread. Several processes may be made alike and give the same bits.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/activity_model.h"
#include "models/model_spec.h"
#include "models/neuron.h"
#include "traces/bernoulli_bits.h"

namespace thermocline {

struct PredictorQuality {
  double recall, precision;  // both above 0, at most 1
};

struct ActivityProcessOptions {
  uint64_t text_seed = 1;    // of the steps; the rates' seed is the spec's
  uint32_t topic_count = 0;  // K; 0: each task is a topic of its own
  double swing = 0;          // s, from 0 to 1
  double swing_steps = 16;   // D, at least 1
  std::optional<PredictorQuality> predictor;
};

class ActivityProcess {
 public:
  // Usage Error where a layer cannot have the predictor's precision.
  ActivityProcess(const ModelSpec& spec, const ActivityProcessOptions& options,
                  const BitKernels& kernels = bit_kernels().back());

  const NeuronPool& pool() const { return pool_; }  // the whole model

  // Tasks may be taken in any order.
  void start_task(uint32_t task);
  // The next steps of the task: (step_count, layer_count, words_per_layer). `predicted` is of the
  // same size with a predictor, else empty.
  void next(uint32_t step_count, std::span<uint64_t> active, std::span<uint64_t> predicted);

  uint32_t topic_of(uint32_t task) const;
  // Of the current task, by neuron: 65536ths.
  std::span<const uint16_t> rates(uint32_t layer) const { return layers_[layer].rates; }
  bool leans(uint32_t layer, uint32_t neuron) const;
  // Names what makes the rates, and nothing of the text: a profile and a test of the same model
  // have the same.
  std::string weight_hash() const;

  // What the steps should show.
  double mean_activity() const { return model_.mean_activity(); }
  double share_80() const { return model_.whole_share_80(); }  // within one topic
  double overlap(uint32_t lag) const;
  // Nothing for a process that swings: there is no short formula for it.
  std::optional<double> in_union(uint32_t window) const;
  std::optional<double> fresh(uint32_t window) const;
  double task_overlap() const;  // of most active fifths, from one task to the next

  double redraw_share() const;  // q
  double keep_share() const;    // rho
  // q at which the share `drift` of the most active fifth changes between topics.
  static double redraw_share_of(double drift);

 private:
  struct Layer {
    std::vector<uint16_t> strata;            // ascending
    std::vector<uint16_t> lasting;           // by neuron
    std::vector<uint16_t> rates;             // by neuron, of the current topic
    std::vector<uint64_t> leaning;           // bits by neuron; empty without swing
    std::vector<uint64_t> planes[2];         // of z = -1 and +1; without swing, the first alone
    std::vector<uint64_t> chains, guessers;  // generators' states
    std::vector<uint64_t> state;             // bits of the last step
    uint32_t alarm = 0;                      // of guesses, 65536ths
  };

  void draw_lasting(uint32_t layer);
  void set_alarm(uint32_t layer, const PredictorQuality& quality);
  void take_topic(uint32_t layer);
  void lay_planes(uint32_t layer);
  std::vector<uint16_t> swung(const Layer& layer, bool up) const;
  void seed_generators(uint32_t layer);
  bool swings_at(uint32_t step) const;
  uint32_t steps_alike(uint32_t step_count) const;
  void advance(uint32_t step_count, uint64_t* active, uint64_t* predicted);

  ModelSpec spec_;
  ActivityProcessOptions options_;
  BitKernels kernels_;
  NeuronPool pool_;
  ActivityModel model_;  // without drift, which leaves what happens within a task as it is
  uint16_t keep_;        // rho, 65536ths
  uint32_t redraw_;      // q, 65536ths
  uint32_t swing_;       // s, 65536ths
  uint32_t swing_turn_;  // 1/D, 2^32nds
  uint64_t steps_seed_;  // of both seeds: what no other model or text shares
  std::vector<Layer> layers_;
  uint32_t task_ = 0, step_ = 0;
  std::optional<uint32_t> topic_;  // that `rates` are of
  bool up_ = false;                // z = +1
};

}  // namespace thermocline
