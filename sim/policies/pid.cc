// pid (P6'): the hot threshold is driven by the miss rate through a PID controller.
//
// Scores e_i are exponentially weighted shares of steps (parts/decaying_scores.h); hot is who is at
// or above theta. At an update, with err = mu - mu*, the misses over the needed neurons since the
// last update less the target:
//   theta = theta_0 - (Kp err + Ki sum err + Kd (err - err_1))
// computed by its differences (velocity form), err_1 and err_2 being the errors before:
//   theta <- theta - (Kp (err - err_1) + Ki err + Kd (err - 2 err_1 + err_2))
// so that the sum is in theta itself. theta is held within [q, 1], q the quantile of the scores at
// which the budget is full (parts/threshold_set.h); held there, nothing winds up.
// The time between updates adapts (multiplicative increase and decrease): it doubles, up to
// period_max, while the error is within the band, and halves, down to period, while it is not.
// The memory in use is what the target needs, at most the budget: while theta is above q, neurons
// below it leave, as many per step as may come back.
#include <algorithm>

#include "sim/policies/parts/miss_rate.h"
#include "sim/policies/parts/threshold_set.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

class Pid final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {
        miss_target_parameter(),
        {"proportional", 0.1, 0.0, 10.0, "Kp: threshold per error of the miss rate"},
        {"integral", 0.1, 0.0, 10.0, "Ki: threshold per error of the miss rate and update"},
        {"derivative", 0.0, 0.0, 10.0, "Kd: threshold per change of that error"},
        {"band", 0.1, 0.0, 1.0, "share of the target within which updates become rarer"},
        {"period", 16, 1, 1024, "steps between two updates at least", true},
        {"period_max", 64, 1, 1024, "steps between two updates at most; below period: as period",
         true},
        halflife_parameter(32, {16, 64, 128}),
        {"gamma", 0.8, 0.01, 1.0, "demotion threshold as a share of the promotion threshold"},
    };
  }

  explicit Pid(const PolicyValues& values)
      : target_(values.at("target")),
        proportional_(values.at("proportional")),
        integral_(values.at("integral")),
        derivative_(values.at("derivative")),
        band_(values.at("band")),
        period_min_(static_cast<uint64_t>(values.at("period"))),
        period_max_(std::max(period_min_, static_cast<uint64_t>(values.at("period_max")))),
        set_({.halflife = static_cast<uint32_t>(values.at("halflife")),
              .gamma = values.at("gamma")}),
        period_(period_min_) {}

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
    const double error = *rate - target_;
    const double theta = std::max(theta_, set_.quantile()) -
                         (proportional_ * (error - error_1_) + integral_ * error +
                          derivative_ * (error - 2 * error_1_ + error_2_));
    theta_ = theta <= set_.quantile() ? 0.0 : std::min(theta, 1.0);
    error_2_ = error_1_;
    error_1_ = error;
    const bool near = error <= band_ * target_ && error >= -band_ * target_;
    period_ = near ? std::min(2 * period_, period_max_) : std::max(period_ / 2, period_min_);
  }

  const double target_, proportional_, integral_, derivative_, band_;
  const uint64_t period_min_, period_max_;
  ThresholdSet set_;
  MissRate missed_;
  uint64_t period_;
  double theta_ = 0;  // 0: at q, wherever it goes
  double error_1_ = 0, error_2_ = 0;
};

}  // namespace

THERMOCLINE_POLICY(pid, "dynamic threshold: a PID controller for a miss rate", Pid);

}  // namespace thermocline
