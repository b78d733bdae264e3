#include "sim/policies/parts/decaying_scores.h"

#include <cmath>
#include <limits>

namespace thermocline {
namespace {

constexpr double kScoreMax = std::numeric_limits<uint16_t>::max();

// Of a unit: a score's share stands for that score again, whichever way it was rounded.
constexpr double kRounding = 0x1p-10;

double power(double base, uint32_t exponent) {
  double result = 1.0;
  for (; exponent != 0; exponent >>= 1, base *= base) {
    if (exponent & 1) result *= base;
  }
  return result;
}

// 2^(1/halflife) by bisection: products only, where exp2 differs between mathematics libraries.
double growth_of(uint32_t halflife) {
  double low = 1.0, high = 2.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (power(middle, halflife) <= 2.0 ? low : high) = middle;
  }
  return low;
}

}  // namespace

PolicyParameter halflife_parameter(double by_default, std::vector<double> tune) {
  return {"halflife",
          by_default,
          1,
          DecayingScores::kHalflifeMax,
          "steps after which an activation counts half",
          true,
          {},
          std::move(tune)};
}

DecayingScores::DecayingScores(uint32_t halflife)
    : growth_(growth_of(halflife)),
      alpha_(1.0 - 1.0 / growth_),
      weight_max_(kScoreMax * alpha_),
      weight_(weight_max_ / 2) {}

void DecayingScores::start(const PolicyContext& context) {
  places_ = ScorePlaces(context.pool);
  scores_.assign(places_.size(), 0);
  if (context.profile == nullptr || context.profile->step_count == 0) return;
  const double most = weight_ / alpha_;
  const double scale = most / static_cast<double>(context.profile->step_count);
  for (uint32_t flat = 0; flat < context.pool.total(); ++flat) {
    const double score = std::min(context.profile->counts[flat] * scale, most);
    scores_[places_.place_of(flat)] = static_cast<uint16_t>(score);
  }
}

bool DecayingScores::begin_step(std::span<const uint64_t> active) {
  weight_ *= growth_;
  const bool halve = weight_ >= weight_max_;
  if (halve) {
    weight_ /= 2;
    dense_score_ops<uint16_t>().age_add(scores_.data(), active.data(), active.size(), 1, 0);
  }
  carried_ += weight_;
  gain_ = static_cast<uint16_t>(carried_);
  carried_ -= gain_;
  return halve;
}

void DecayingScores::at_least(uint64_t least, size_t first, size_t count, uint64_t* bits) const {
  if (least > std::numeric_limits<uint16_t>::max()) {
    std::fill_n(bits, count, uint64_t{0});
    return;
  }
  dense_score_ops<uint16_t>().at_least(scores_.data() + 64 * first, count,
                                       static_cast<uint16_t>(least), bits);
}

uint64_t DecayingScores::score_of(double share) const {
  return static_cast<uint64_t>(std::ceil(share * weight_ / alpha_ - kRounding));
}

}  // namespace thermocline
