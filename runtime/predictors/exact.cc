// The predictor that is none: every neuron's gate is computed.
#include "runtime/predictor.h"

namespace thermocline {
namespace {

void check(const PredictorValues&, const ModelSpec&, const ModelShape&) {}

std::unique_ptr<ActivationPredictor> make(const PredictorValues&, const PredictorContext&) {
  return nullptr;
}

THERMOCLINE_PREDICTOR(exact, "computes every gate: nothing is missed", {}, check, make);

}  // namespace
}  // namespace thermocline
