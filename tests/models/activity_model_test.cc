// What regimes ask for: the numbers of activations.md section 3.6, and the Gaussians behind them.
#include "models/activity_model.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "models/activity_profile.h"
#include "models/synthetic_plan.h"
#include "tests/models/failures.h"

namespace thermocline::test {
namespace {

ActivityModel model_of(const std::string& keys) {
  return ActivityModel(parse_model_spec("preset:relullama-70b," + keys));
}

TEST_CASE("regimes have the numbers of the published table") {
  struct Case {
    const char* regime;
    double plateau, adjacent, union_5, share_80;
  };
  // Plateau (mc+1)/(c+1), its share of memory rho, U(5) and the 80 % point, of the table.
  for (const Case& expected :
       {Case{"flash-opt", 0.316, 0.556, 0.240, 0.269}, Case{"hermes", 0.700, 0.895, 0.374, 0.29},
        Case{"relullama-dynamicinfer", 0.372, 0.435, 0.506, 0.43}}) {
    const ActivityModel model = model_of("layers=2,regime=" + std::string(expected.regime));
    INFO(expected.regime);
    CHECK(model.overlap(200) == Approx(expected.plateau).margin(0.003));
    CHECK(model.overlap(1) == Approx(expected.adjacent).margin(0.003));
    CHECK(model.in_union(5) == Approx(expected.union_5).margin(0.003));
    CHECK(model.share_80(0) == Approx(expected.share_80).margin(0.003));
    CHECK(model.whole_share_80() == Approx(expected.share_80).margin(0.003));
  }
  // LLM in a Flash: 2.4 % of the neurons are new at each step.
  CHECK(model_of("layers=1,regime=flash-opt").fresh(5) == Approx(0.024).margin(0.001));
}

TEST_CASE("a share of neurons fixes the concentration of a layer") {
  struct Case {
    double mean, concentration;
  };
  for (const Case& expected :
       {Case{0.10, 8.46}, Case{0.20, 3.66}, Case{0.28, 2.26}, Case{0.33, 1.71}}) {
    const FiringRates rates = FiringRates::with_share(expected.mean, 0.43);
    INFO("m " << expected.mean);
    CHECK(rates.concentration() == Approx(expected.concentration).epsilon(0.02));
  }
  // Shares that rates of this mean cannot have.
  CHECK(share_of_80_percent({FiringRates::with_share(0.9, 0.43)}) > 0.72);
  CHECK(share_of_80_percent({FiringRates::with_share(0.28, 0.99)}) < 0.8);
}

TEST_CASE("layers keep PowerInfer's 43 % each, and a model of layers far apart has its 26 %") {
  const ActivityModel whole = model_of("regime=powerinfer");
  for (const uint32_t layer : {0u, 20u, 40u, 79u}) {
    CHECK(whole.share_80(layer) == Approx(0.43).margin(0.002));
  }
  CHECK(whole.mean_activity() == Approx(0.10).margin(0.001));
  CHECK(whole.whole_share_80() == Approx(0.26).margin(0.01));
  // Four layers at even distances stand for it to within a point.
  const ActivityModel four = model_of("regime=powerinfer,layers=4,take=even");
  CHECK(four.whole_share_80() == Approx(whole.whole_share_80()).margin(0.01));
  // OPT's pair, 26 % and 17 %, with the same slope.
  const ActivityModel opt = model_of("regime=flash-opt,share=0.26,profile=spread");
  CHECK(opt.whole_share_80() == Approx(0.17).margin(0.02));
  // Llama-2-70B's own layers are too alike for that: a model is then as uneven as a layer.
  CHECK(model_of("regime=relullama-teal").whole_share_80() == Approx(0.43).margin(0.01));
}

TEST_CASE("correlated gates fire together as sampled") {
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal;
  constexpr int kCount = 200000;
  for (const double bias : {-1.5, -0.3, 0.8}) {
    for (const double correlation : {0.0, 0.4, 0.95}) {
      int both = 0;
      for (int i = 0; i < kCount; ++i) {
        const double x = normal(random);
        const double y =
            correlation * x + std::sqrt(1 - correlation * correlation) * normal(random);
        both += x + bias > 0 && y + bias > 0;
      }
      INFO("bias " << bias << " correlation " << correlation);
      CHECK(joint_rate(bias, correlation) ==
            Approx(static_cast<double>(both) / kCount).margin(0.005));
    }
    CHECK(joint_rate(bias, 0) == Approx(normal_cdf(bias) * normal_cdf(bias)).margin(1e-6));
  }
}

TEST_CASE("the ladder of heads has every regime's memory, for every preset with heads enough") {
  for (const ActivityRegime& regime : activity_regimes()) {
    for (const char* preset : {"relullama-70b", "llama-3-70b", "llama-2-7b", "prosparse-13b"}) {
      const ModelSpec spec = parse_model_spec("preset:" + std::string(preset) +
                                              ",layers=1,regime=" + std::string(regime.name));
      const ActivityModel model(spec);
      const SyntheticPlan plan(spec.shape, model);
      const auto found = plan.autocorrelation(), wanted = model.gate_correlation();
      INFO(preset << " " << regime.name);
      for (size_t lag = 0; lag < wanted.size(); ++lag) {
        INFO("lag " << lag + 1);
        CHECK(found[lag] == Approx(wanted[lag]).margin(lag == 0 ? 0.005 : 0.025));
      }
      double sum = 0;
      for (const double share : plan.mixture()) sum += share;
      CHECK(sum == Approx(1));
      CHECK(plan.mixture()[0] > 0);
    }
  }
}

TEST_CASE("drift narrows the lasting rates and leaves those within a sequence") {
  const ActivityModel steady = model_of("layers=3,regime=hermes");
  CHECK(steady.topic_share() == 0);
  CHECK(steady.sequence_overlap() == 1);
  double last = 0;
  for (const char* drift : {"0.1", "0.5", "0.7"}) {
    const ActivityModel model = model_of("layers=3,regime=hermes,drift=" + std::string(drift));
    INFO("drift " << drift);
    CHECK(model.topic_share() > last);
    last = model.topic_share();
    CHECK(last < 0.9);
    // The first layer sees no topic.
    CHECK(model.lasting(0).concentration() == Approx(model.within(0).concentration()));
    CHECK(model.lasting(1).concentration() > model.within(1).concentration());
    CHECK(model.sequence_overlap() == Approx((1 + 2 * (1 - std::stod(drift))) / 3).margin(0.002));
    CHECK(model.overlap(1) == Approx(steady.overlap(1)));
    // Steps of one sequence share what steps of a sequence without drift do.
    const auto both = [](double bias) { return normal_cdf(bias) * normal_cdf(bias); };
    const auto with_topic = [&](double bias) { return joint_rate(bias, model.topic_share()); };
    CHECK(model.lasting(1).mean_of(with_topic) ==
          Approx(model.within(1).mean_of(both)).margin(1e-3));
  }
}

TEST_CASE("layers at even distances have the profile's entries from over the whole depth") {
  const auto whole = layer_activity(parse_model_spec("preset:relullama-70b"));
  const auto even = layer_activity(parse_model_spec("preset:relullama-70b,layers=4,take=even"));
  CHECK(even == std::vector<double>{whole[10], whole[30], whole[50], whole[70]});
  CHECK(layer_activity(parse_model_spec("preset:relullama-70b,take=even")) == whole);
  const auto spread = layer_activity(parse_model_spec("preset:prosparse-13b,profile=spread"));
  CHECK(std::is_sorted(spread.rbegin(), spread.rend()));
}

TEST_CASE("unknown regimes and profiles are usage errors with the nearest name") {
  const Failure regime = failure_of([] { activity_regime("hermse"); });
  CHECK(regime.kind == ErrorKind::usage);
  CHECK_THAT(regime.message, Catch::Contains("did you mean 'hermes'?"));
  const Failure profile = failure_of([] { layer_profile_by_name("tael"); });
  CHECK(profile.kind == ErrorKind::usage);
  CHECK_THAT(profile.message, Catch::Contains("did you mean 'teal'?"));
  CHECK(name_of(layer_profile_by_name("spread")) == "spread");
}

}  // namespace
}  // namespace thermocline::test
