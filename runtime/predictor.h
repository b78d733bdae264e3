// ActivationPredictor: guesses, before a layer's FFN, which of its neurons the input makes active.
//
// A neuron that is no candidate counts as inactive: its gate is not computed, its up and down rows
//   are not read. So a predictor trades gate rows for its own cost, and misses for an error of the
//   logits (predictor_audit.h measures both). Its threshold, the predictor threshold, is the score
//   from which on a neuron is a candidate; it has nothing to do with the activation threshold, by
//   which candidates are then judged, nor with the hot threshold, which never changes a result.
// Goals: one file and one line in runtime/predictors/ extend the program; candidates depend neither
//   on threads nor on the other rows of a forward, nor on how neurons are shared among ranks: each
//   rank predicts for its own neurons from the whole input.
// Non-goals: training.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/model_spec.h"
#include "models/registry.h"
#include "models/weights.h"
#include "runtime/backend.h"
#include "runtime/partition.h"

namespace thermocline {

// What a predictor sees of the tokens of a forward, in the backend's memory.
struct PredictorView {
  const float* residual;  // (token_count, model_dim) behind attention
  const float* normed;    // (token_count, model_dim): the FFN's input
  int token_count;
};

class ActivationPredictor {
 public:
  virtual ~ActivationPredictor() = default;
  // Queues what makes the candidates of a layer of the rank's stage. candidates: (token_count,
  // stride) words in the backend's memory, zero beyond the last neuron in its word.
  virtual void predict(uint32_t layer, const PredictorView& x, uint64_t* candidates,
                       uint64_t stride) = 0;
  // The score from which on a neuron is a candidate.
  virtual double threshold() const = 0;
  // What it reads for a pass, of this rank.
  virtual uint64_t byte_count() const = 0;
};

struct PredictorParameter {
  std::string name;
  std::string value_default;  // as written; empty: it follows from the model
  std::string meaning;
};

using PredictorValues = std::map<std::string, std::string>;  // every declared parameter

// What a predictor is made from; the source only while it is made.
struct PredictorContext {
  const WeightSource& source;
  const ModelSpec& model;
  const RankShare& share;
  Backend& backend;
  uint32_t row_max;  // of one forward
};

struct PredictorEntry {
  std::string name;
  std::string summary;
  std::vector<PredictorParameter> parameters;
  // Finds wrong values before a weight is loaded: usage or input Error.
  void (*check)(const PredictorValues& values, const ModelSpec& model, const ModelShape& shape);
  // Null: every neuron is a candidate.
  std::unique_ptr<ActivationPredictor> (*make)(const PredictorValues& values,
                                               const PredictorContext& context);
};

Registry<PredictorEntry>& predictors();

#define THERMOCLINE_PREDICTOR(name, summary, parameters, check, make) \
  const bool registered_predictor_##name =                            \
      ::thermocline::predictors().add({#name, summary, parameters, check, make})

// "sign:threshold=0.52": a registered predictor with all its parameters.
struct PredictorSpec {
  const PredictorEntry* entry = nullptr;
  PredictorValues values;

  bool exact() const;        // every neuron is looked at
  std::string text() const;  // name and every parameter that is set
};

// NAME[:key=value[,key=value]]. Usage Error: unknown predictor or parameter (with the valid names),
// a parameter without a value or set twice.
PredictorSpec parse_predictor_spec(std::string_view text);

// A parameter as a number of a range. Usage Error that names predictor, parameter and range.
double number_of(const PredictorValues& values, std::string_view predictor,
                 const std::string& parameter, double value_min, double value_max);

// "exact (what it is), lowrank (what it is; file=, threshold=), ..."
std::string predictor_help();

}  // namespace thermocline
