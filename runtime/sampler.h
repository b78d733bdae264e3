// Sampling: a token drawn from one step's logits by temperature and nucleus.
//
// softmax(logits / T) in double; the nucleus of Holtzman et al., "The curious case of neural text
//   degeneration", ICLR 2020: the fewest most probable tokens whose sum reaches top-p, of equal
//   ones the lower token first; then the inverse of the cumulative distribution, in the order of
//   tokens.
// The random number is a function of (seed, task, sample, position), so a choice depends neither on
//   the batch, nor on the tasks that run, nor on the threads.
// Goals: the same token for the same logits, every time. Non-goals: greedy decoding, which the
//   engine does without whole logits; logits that are not finite numbers.
// Thread-safety: a Sampler belongs to one thread; the rest are pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thermocline {

struct SamplingOptions {
  double temperature = 0.0;  // 0: greedy
  double top_p = 1.0;
  uint64_t seed = 1;
  bool greedy() const { return temperature == 0.0; }
};

// Usage Error: a temperature that is negative or no finite number, a top-p outside (0, 1].
void check_sampling(const SamplingOptions& options);

// What a token is drawn for.
struct Draw {
  int32_t task_id = 0;
  uint32_t sample = 0;    // of this task
  uint32_t position = 0;  // that the token takes in its sequence
};

// In [0, 1), a multiple of 2^-53.
double uniform_of(uint64_t seed, const Draw& draw);

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options) : options_(options) {}

  // `logits`: (vocab_size), finite.
  int32_t draw(std::span<const float> logits, const Draw& draw);
  // The token at `uniform`, from [0, 1), of the cumulative distribution.
  int32_t token_at(std::span<const float> logits, double uniform);

 private:
  struct Weighted {
    double weight;  // exp((logit - the largest) / temperature)
    int32_t token;
  };
  void weigh(std::span<const float> logits);
  void keep_nucleus();

  SamplingOptions options_;
  std::vector<Weighted> kept_;  // in the order of tokens once the nucleus is kept
};

}  // namespace thermocline
