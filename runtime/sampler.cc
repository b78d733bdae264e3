#include "runtime/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/counter_random.h"
#include "models/error.h"

namespace thermocline {
namespace {

// In the upper half of the second counter word, as RandomStream keeps its own draws apart there:
// a model and a run of the same seed share no numbers.
constexpr uint64_t kSamplingDraws = 2;

}  // namespace

void check_sampling(const SamplingOptions& options) {
  if (!std::isfinite(options.temperature) || options.temperature < 0) {
    throw bad_usage(
        fmt::format("--temperature {}: expected 0, which is greedy decoding, or a number above",
                    options.temperature));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw bad_usage(fmt::format("--top-p {}: expected a number above 0, at most 1", options.top_p));
  }
}

double uniform_of(uint64_t seed, const Draw& draw) {
  const uint64_t task = static_cast<uint32_t>(draw.task_id);
  const auto words =
      philox2x64({task << 32 | draw.sample, kSamplingDraws << 32 | draw.position}, seed);
  return static_cast<double>(words[0] >> 11) * 0x1p-53;
}

int32_t Sampler::draw(std::span<const float> logits, const Draw& draw) {
  return token_at(logits, uniform_of(options_.seed, draw));
}

int32_t Sampler::token_at(std::span<const float> logits, double uniform) {
  TC_CHECK(!logits.empty() && !options_.greedy(), "a distribution to draw from");
  weigh(logits);
  if (options_.top_p < 1) keep_nucleus();
  double total = 0;
  for (const Weighted& one : kept_) total += one.weight;
  // Below the total, which the same sum in the same order reaches: uniform is at most 1 - 2^-53.
  const double target = uniform * total;
  double sum = 0;
  for (const Weighted& one : kept_) {
    sum += one.weight;
    if (sum > target) return one.token;
  }
  return kept_.back().token;
}

// The largest logit has the weight 1, so nothing overflows and the sum is never 0.
void Sampler::weigh(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  kept_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((double{logits[i]} - largest) / options_.temperature);
    kept_[i] = {weight, static_cast<int32_t>(i)};
  }
}

// Sorts the most probable tokens only, more and more of them: few of a vocabulary are in most
// nuclei. Where rounding keeps their sum below top-p, all tokens are the nucleus.
void Sampler::keep_nucleus() {
  const auto likelier = [](const Weighted& a, const Weighted& b) {
    return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
  };
  double total = 0, sum = 0;
  for (const Weighted& one : kept_) total += one.weight;
  const auto begin = kept_.begin(), end = kept_.end();
  auto nucleus_end = begin, sorted_end = begin;
  for (std::ptrdiff_t more = 64; sum < options_.top_p * total && nucleus_end != end; more *= 4) {
    sorted_end += std::min(more, end - sorted_end);
    if (sorted_end != end) std::nth_element(nucleus_end, sorted_end, end, likelier);
    std::sort(nucleus_end, sorted_end, likelier);
    while (sum < options_.top_p * total && nucleus_end != sorted_end) {
      sum += (nucleus_end++)->weight;
    }
  }
  kept_.erase(nucleus_end, end);
  std::sort(kept_.begin(), kept_.end(),
            [](const Weighted& a, const Weighted& b) { return a.token < b.token; });
}

}  // namespace thermocline
