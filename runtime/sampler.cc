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

// Takes the most probable tokens from a heap, as few of a vocabulary are in most nuclei.
void Sampler::keep_nucleus() {
  const auto after = [](const Weighted& a, const Weighted& b) {
    return a.weight < b.weight || (a.weight == b.weight && a.token > b.token);
  };
  double total = 0;
  for (const Weighted& one : kept_) total += one.weight;
  std::make_heap(kept_.begin(), kept_.end(), after);
  auto heap_end = kept_.end();
  // Where rounding keeps the sum below, all tokens are the nucleus.
  for (double sum = 0; sum < options_.top_p * total && heap_end != kept_.begin();) {
    std::pop_heap(kept_.begin(), heap_end, after);
    sum += (--heap_end)->weight;
  }
  kept_.erase(kept_.begin(), heap_end);
  std::sort(kept_.begin(), kept_.end(),
            [](const Weighted& a, const Weighted& b) { return a.token < b.token; });
}

}  // namespace thermocline
