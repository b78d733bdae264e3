// aimd (P6): the hot threshold is driven by the miss rate, as TCP drives its window by loss.
//
// Scores e_i are exponentially weighted shares of steps (parts/decaying_scores.h); hot is who is at
// or above theta. Every `period` steps, with mu the misses over the needed neurons since the last
// update and mu* the target:
//   mu > mu* (1 + band):  theta <- beta theta     (admit many more at once)
//   mu < mu* (1 - band):  theta <- theta + delta  (give memory back slowly)
// Additive increase, multiplicative decrease (Chiu and Jain 1989) of a threshold: here the decrease
// is the remedy. theta is projected on the budget: it does not fall below q, the quantile of the
// scores at which the budget is full (parts/threshold_set.h), nor rise above 1.
// The memory in use is what the target needs, at most the budget: while theta is above q, neurons
// below it leave, as many per step as may come back.
#include <algorithm>

#include "sim/policies/parts/miss_rate.h"
#include "sim/policies/parts/threshold_set.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

class Aimd final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        miss_target_parameter(),
        {"band", 0.1, 0.0, 1.0, "share of the target by which the miss rate may be off"},
        {"beta", 0.8, 0.01, 1.0, "factor of the threshold where too much is missed"},
        {"delta", 0.005, 0.0, 1.0, "increase of the threshold where too little is missed"},
        {"period", 16, 1, 1024, "steps between two changes of the threshold", true},
        halflife_parameter(32, {16, 64, 128}),
        {"gamma", 0.8, 0.01, 1.0, "demotion threshold as a share of the promotion threshold"},
    };
  }

  explicit Aimd(const PolicyValues& values)
      : target_(values.at("target")),
        band_(values.at("band")),
        beta_(values.at("beta")),
        delta_(values.at("delta")),
        period_(static_cast<uint64_t>(values.at("period"))),
        set_({.halflife = static_cast<uint32_t>(values.at("halflife")),
              .gamma = values.at("gamma")}) {}

  void start(const PolicyContext& context, HotSet& hot) override { set_.start(context, hot); }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    missed_.add(active, hot);
    if (missed_.step_count() >= period_) update();
    set_.step(active, hot, theta_, moves);
  }

  std::optional<double> hot_threshold() const override { return set_.threshold(); }

 private:
  void update() {
    const std::optional<double> rate = missed_.take();
    if (!rate.has_value()) return;
    double theta = std::max(theta_, set_.quantile());
    if (*rate > target_ * (1 + band_)) {
      theta *= beta_;
    } else if (*rate < target_ * (1 - band_)) {
      theta += delta_;
    }
    theta_ = theta <= set_.quantile() ? 0.0 : std::min(theta, 1.0);
  }

  const double target_, band_, beta_, delta_;
  const uint64_t period_;
  ThresholdSet set_;
  MissRate missed_;
  double theta_ = 0;  // 0: at q, wherever it goes
};

}  // namespace

THERMOCLINE_POLICY(aimd, "dynamic threshold: additive up, multiplicative down, for a miss rate",
                   Aimd);

}  // namespace thermocline
