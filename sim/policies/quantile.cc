// quantile (P5): a dynamic hot threshold that follows the budget by stochastic approximation.
//
// Scores e_i are exponentially weighted shares of steps (parts/decaying_scores.h). The threshold
// follows the (1 - B/N) quantile of the N scores, B the budget (Robbins and Monro 1951):
//   theta(t+1) = theta(t) + eta (|{i: e_i(t) >= theta(t)}| - B) / N
// so that about B neurons lie above it, whatever drift does to the scores. scope=global: one theta
// over all layers; scope=layer: one for each layer, with an even part of the budget.
// Hysteresis limits churn: a cold neuron that was active is promoted at e_i >= theta / gamma, a hot
// one may leave at e_i < theta. It leaves when its room is needed, so that the memory in use stays
// at B; the rest is in parts/threshold_set.h.
// Against ewma: there the threshold is the score of the weakest hot neuron, found by search; here
// it is one number that a counter moves, and any neuron below it may leave, the weakest or not.
#include "sim/policies/parts/threshold_set.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

class Quantile final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        halflife_parameter(32, {8, 16, 64, 128}),
        {"gamma",
         0.8,
         0.01,
         1.0,
         "demotion threshold as a share of the promotion threshold",
         false,
         {},
         {0.6, 0.8, 1.0}},
        {"eta",
         0.1,
         0.001,
         1.0,
         "threshold per step, of how far the share above it is off",
         false,
         {},
         {0.02, 0.5}},
        {"scope",
         0,
         0,
         1,
         "one threshold over all layers, or one for each",
         true,
         {"global", "layer"},
         {1}},
    };
  }

  explicit Quantile(const PolicyValues& values)
      : set_({.halflife = static_cast<uint32_t>(values.at("halflife")),
              .gamma = values.at("gamma"),
              .eta = values.at("eta"),
              .by_layer = values.at("scope") == 1}) {}

  void start(const PolicyContext& context, HotSet& hot) override { set_.start(context, hot); }
  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    set_.step(active, hot, 0.0, moves);
  }
  std::optional<double> hot_threshold() const override { return set_.threshold(); }

 private:
  ThresholdSet set_;
};

}  // namespace

THERMOCLINE_POLICY(quantile, "dynamic threshold: follows the budget's quantile of the activity",
                   Quantile);

}  // namespace thermocline
