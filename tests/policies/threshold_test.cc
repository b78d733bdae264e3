// quantile, aimd and pid against a slow, obvious version of a set under a threshold.
#include "tests/policies/slow_scores.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// sim/policies/parts/threshold_set.h, one neuron at a time; derived classes say what is wanted.
class ReferenceThreshold : public SlowRun {
 public:
  ReferenceThreshold(const TinyCase& tiny, const PolicyValues& values)
      : SlowRun(tiny), values_(values), scores_(values.at("halflife"), profile()) {
    const bool by_layer = values.count("scope") != 0 && values.at("scope") == 1;
    const NeuronPool& pool = tiny.context.pool;
    sections_.resize(by_layer ? pool.layer_count : 1);
    for (uint32_t flat = 0; flat < total(); ++flat) {
      sections_[by_layer ? flat / pool.neuron_count : 0].members.push_back(flat);
    }
    for (size_t i = 0; i < sections_.size(); ++i) {
      sections_[i].budget = budget() * (i + 1) / sections_.size() - budget() * i / sections_.size();
    }
  }

 protected:
  virtual double wanted(const FlatSet& active) = 0;
  double quantile() const {
    double sum = 0;
    for (const Section& section : sections_) sum += section.quantile;
    return sum / static_cast<double>(sections_.size());
  }
  // Misses over needed neurons of a step.
  void count_misses(const FlatSet& active) {
    for (const uint32_t flat : active) misses_ += hot_.count(flat) == 0;
    needed_ += static_cast<double>(active.size());
    ++counted_;
  }
  double misses_ = 0, needed_ = 0, counted_ = 0;
  const PolicyValues& values_;

 private:
  struct Section {
    std::vector<uint32_t> members;
    uint64_t budget = 0;
    double quantile = 0;
    uint32_t cursor = 0;  // the first word that its next victim may be in
  };

  FlatSet start() override {
    FlatSet hot;
    for (Section& section : sections_) {
      std::vector<uint32_t> order = section.members;
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return profile().counts[a] > profile().counts[b];
      });
      order.resize(section.budget);
      hot.insert(order.begin(), order.end());
      section.quantile = order.empty() ? 1.0 : scores_.share_of(scores_[order.back()]);
      section.cursor = word_of(section.members.front());
    }
    return hot;
  }

  uint32_t word_of(uint32_t flat) const {
    const NeuronPool& pool = tiny_.context.pool;
    return flat / pool.neuron_count * pool.words_per_layer() + flat % pool.neuron_count / 64;
  }

  void step(const FlatSet& active, Moves& moves) override {
    const double want = wanted(active);
    scores_.begin_step();
    scores_.add(active);
    std::vector<std::pair<uint32_t, Section*>> candidates;
    std::vector<FlatSet> victims;
    for (Section& section : sections_) {
      const double theta = std::max(want, section.quantile);
      victims.emplace_back();
      for (const uint32_t flat : section.members) {
        const bool is_hot = hot_.count(flat) != 0;
        const double promoted = scores_.of_share(theta / values_.at("gamma"));
        if (!is_hot && active.count(flat) != 0 && scores_[flat] >= promoted) {
          candidates.emplace_back(flat, &section);
        }
        if (is_hot && scores_[flat] < scores_.of_share(theta)) victims.back().insert(flat);
      }
    }
    std::stable_sort(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
      return scores_.is_stronger(a.first, b.first);
    });
    if (candidates.size() > admit_max()) candidates.resize(admit_max());
    std::vector<uint64_t> counts;
    for (const Section& section : sections_) counts.push_back(hot_of(section));
    for (const auto& [flat, section] : candidates) {
      const size_t i = static_cast<size_t>(section - sections_.data());
      if (counts[i] == section->budget) {
        if (victims[i].empty()) continue;
        evict(*section, victims[i], moves);
        --counts[i];
      }
      moves.admit.push_back(flat);
      ++counts[i];
    }
    for (size_t i = 0; i < sections_.size(); ++i) {
      if (want <= sections_[i].quantile) continue;
      while (!victims[i].empty() && moves.evict.size() < admit_max()) {
        evict(sections_[i], victims[i], moves);
      }
    }
    for (Section& section : sections_) move_quantile(section);
  }

  uint64_t hot_of(const Section& section) const {
    return static_cast<uint64_t>(std::count_if(section.members.begin(), section.members.end(),
                                               [&](uint32_t flat) { return hot_.count(flat); }));
  }

  void evict(Section& section, FlatSet& victims, Moves& moves) {
    auto next = std::find_if(victims.begin(), victims.end(),
                             [&](uint32_t flat) { return word_of(flat) >= section.cursor; });
    if (next == victims.end()) next = victims.begin();
    section.cursor = word_of(*next);
    moves.evict.push_back(*next);
    victims.erase(next);
  }

  void move_quantile(Section& section) {
    const double least = scores_.of_share(section.quantile);
    double above = 0;
    for (const uint32_t flat : section.members) above += scores_[flat] >= least;
    const double eta = values_.count("eta") != 0 ? values_.at("eta") : 0.1;
    section.quantile += eta * (above - static_cast<double>(section.budget)) /
                        static_cast<double>(section.members.size());
    section.quantile = std::clamp(section.quantile, 0.0, 1.0);
  }

  SlowScores scores_;
  std::vector<Section> sections_;
};

class ReferenceQuantile final : public ReferenceThreshold {
  using ReferenceThreshold::ReferenceThreshold;
  double wanted(const FlatSet&) override { return 0; }
};

class ReferenceAimd final : public ReferenceThreshold {
  using ReferenceThreshold::ReferenceThreshold;
  double wanted(const FlatSet& active) override {
    count_misses(active);
    if (counted_ >= values_.at("period")) {
      if (needed_ > 0) update(misses_ / needed_);
      misses_ = needed_ = counted_ = 0;
    }
    return theta_;
  }
  void update(double rate) {
    const double target = values_.at("target"), band = values_.at("band");
    double theta = std::max(theta_, quantile());
    if (rate > target * (1 + band)) {
      theta *= values_.at("beta");
    } else if (rate < target * (1 - band)) {
      theta += values_.at("delta");
    }
    theta_ = theta <= quantile() ? 0 : std::min(theta, 1.0);
  }
  double theta_ = 0;
};

class ReferencePid final : public ReferenceThreshold {
 public:
  ReferencePid(const TinyCase& tiny, const PolicyValues& values)
      : ReferenceThreshold(tiny, values), period_(values.at("period")) {}

 private:
  double wanted(const FlatSet& active) override {
    count_misses(active);
    if (counted_ >= period_) {
      if (needed_ > 0) update(misses_ / needed_ - values_.at("target"));
      misses_ = needed_ = counted_ = 0;
    }
    return theta_;
  }
  void update(double error) {
    errors_.push_back(error);
    const size_t n = errors_.size();
    const double one = errors_[n - 2], two = errors_[n - 3];
    const double change = values_.at("proportional") * (error - one) +
                          values_.at("integral") * error +
                          values_.at("derivative") * (error - 2 * one + two);
    const double theta = std::max(theta_, quantile()) - change;
    theta_ = theta <= quantile() ? 0 : std::min(theta, 1.0);
    const double width = values_.at("band") * values_.at("target");
    const double longest = std::max(values_.at("period"), values_.at("period_max"));
    period_ = -width <= error && error <= width
                  ? std::min(2 * period_, longest)
                  : std::max(std::floor(period_ / 2), values_.at("period"));
  }
  double theta_ = 0, period_;
  std::vector<double> errors_{0, 0};
};

template <class Reference>
void check_equal(const std::vector<std::string>& variants) {
  uint64_t moved = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const TinyCase tiny(seed);
    for (const std::string& variant : variants) {
      const PolicySpec spec = tiny.spec(variant);
      INFO("seed " << seed << ", " << variant);
      const HotSetStats stats = tiny.drive(spec);
      REQUIRE(stats == Reference(tiny, spec.values).run());
      CHECK(stats.refused == 0);
      moved += stats.admitted;
    }
  }
  CHECK(moved > 5000);  // or the comparison says little
}

// 200 neurons in two layers; in each step neuron i fires with probability rate(i) of 1000.
template <class Rate>
PoolSteps steps_of(uint64_t step_count, Rate rate) {
  const NeuronPool pool{0, 2, 0, 100};
  PoolSteps steps{pool, step_count, std::vector<uint64_t>(step_count * pool.words_per_step())};
  Lcg random(9);
  for (uint64_t i = 0; i < step_count; ++i) {
    for (uint32_t flat = 0; flat < 200; ++flat) {
      if (random.below(1000) < rate(i, flat)) steps.set(i, flat);
    }
  }
  return steps;
}

// Mean miss rate and hot neurons of the last steps.
std::pair<double, double> late_means(const std::string& policy, const PoolSteps& steps,
                                     uint64_t budget) {
  const ActivationProfile profile = steps.profile();
  PolicyDriver driver(parse_policies(policy)[0], {steps.pool, &profile, nullptr, budget, 8});
  HotSetStats early;
  for (uint64_t i = 0; i < steps.step_count; ++i) {
    if (i == steps.step_count / 2) early = driver.stats();
    driver.step(steps.step(i));
  }
  const HotSetStats late = since(driver.stats(), early);
  return {1 - hit_ratio(late),
          static_cast<double>(late.hot_count_sum) / static_cast<double>(late.step_count)};
}

}  // namespace

TEST_CASE("quantile equals its obvious version on random traces") {
  check_equal<ReferenceQuantile>({"quantile", "quantile:scope=layer,halflife=4",
                                  "quantile:gamma=1,halflife=1", "quantile:eta=1,gamma=0.5"});
}

TEST_CASE("aimd equals its obvious version on random traces") {
  check_equal<ReferenceAimd>({"aimd:period=2", "aimd:target=0.6,period=1,delta=0.05,halflife=4",
                              "aimd:target=0.9,period=3,delta=0.2,beta=0.5,gamma=1,halflife=8"});
}

TEST_CASE("pid equals its obvious version on random traces") {
  check_equal<ReferencePid>(
      {"pid:period=2", "pid:target=0.6,period=1,period_max=4,halflife=4,derivative=0.1",
       "pid:target=0.9,proportional=1,integral=1,period=3,band=0.5,gamma=1,halflife=8"});
}

TEST_CASE("quantile finds the share at which the budget is full, and follows it") {
  // A quarter of the neurons fires in 70 % of the steps, the others in 20 %; then in 30 % and 5 %.
  const PoolSteps steps = steps_of(600, [](uint64_t i, uint32_t flat) {
    const bool often = flat % 4 == 0;
    return i < 300 ? (often ? 700u : 200u) : (often ? 300u : 50u);
  });
  for (const char* policy : {"quantile", "quantile:scope=layer"}) {
    const ActivationProfile profile = steps.profile();
    PolicyDriver driver(parse_policies(policy)[0], {steps.pool, &profile, nullptr, 50, 8});
    for (uint64_t i = 0; i < 600; ++i) {
      driver.step(steps.step(i));
      CHECK(driver.hot().count() == 50);
      const double theta = driver.hot_threshold().value();
      if (i == 299) CHECK((theta > 0.3 && theta < 0.7));
      if (i == 599) CHECK((theta > 0.1 && theta < 0.3));
    }
    for (uint32_t flat = 0; flat < 200; flat += 4) CHECK(driver.hot().contains(flat));
  }
}

TEST_CASE("quantile follows a hot set that moves") {
  const PoolSteps steps =
      steps_of(400, [](uint64_t i, uint32_t flat) { return flat / 50 == i / 100 ? 800u : 50u; });
  const ActivationProfile profile = steps.profile();
  PolicyDriver driver(parse_policies("quantile:halflife=8")[0],
                      {steps.pool, &profile, nullptr, 50, 8});
  for (uint64_t i = 0; i < 400; ++i) {
    driver.step(steps.step(i));
    if (i % 100 != 99) continue;
    uint32_t hot = 0;
    for (uint32_t flat = 0; flat < 50; ++flat) {
      hot += driver.hot().contains(static_cast<uint32_t>(i / 100 * 50 + flat));
    }
    CHECK(hot >= 45);
  }
}

TEST_CASE("aimd and pid hold a miss rate with less than the budget, and use it where it is short") {
  const PoolSteps steps = steps_of(3000, [](uint64_t, uint32_t flat) { return 20 + flat * 4; });
  for (const std::string policy : {"aimd", "pid"}) {
    for (const double target : {0.1, 0.2, 0.4}) {
      INFO(policy << ", target " << target);
      const auto [rate, hot] = late_means(policy + ":target=" + std::to_string(target), steps, 200);
      CHECK(rate == Approx(target).margin(0.04));
      CHECK(hot < 190);
    }
    const auto [rate, hot] = late_means(policy + ":target=0.05", steps, 40);
    CHECK(rate > 0.5);
    CHECK(hot > 39.9);
    const auto [quantile_rate, quantile_hot] = late_means("quantile:gamma=0.8", steps, 40);
    CHECK(rate == Approx(quantile_rate).margin(0.02));
  }
}
