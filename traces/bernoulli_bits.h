// Random bits with probabilities of their own, 1024 at a time: what the activity process is made
// of.
//
// A probability is an integer t of 65536ths with binary digits d[0] (least) to d[15]. Of 64 neurons
//   side by side, digit k of all is one word, a bit-plane. From the least digit to the greatest,
//   bits = majority(bits, digit plane, random word): where the digit is 1 that is bits | random,
//   where it is 0 bits & random, so the probability p of a bit becomes (digit + p) / 2. After all
//   16 it is t / 65536, exactly: 16 random words make 64 bits.
// Random words: xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number
//   generators", ACM TOMS 47, 2021), one generator for each word of a layer, sixteen side by side.
// Goals: the same bits from every instruction set; faster than a disk takes them; memory for one
//   step of state.
// Non-goals: what the probabilities mean (traces/activity_process.h); where seeds come from.
// Thread-safety: pure functions of what a run points to.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace thermocline {

inline constexpr uint32_t kProbabilityDigits = 16;
inline constexpr uint32_t kProbabilityOne = 1u << kProbabilityDigits;
inline constexpr uint32_t kGroupWords = 16;     // that are made together
inline constexpr uint32_t kGeneratorWords = 4;  // state of one generator

// Groups that hold the bits of so many neurons.
constexpr uint32_t bit_groups(uint32_t neuron_count) {
  return (neuron_count + 64 * kGroupWords - 1) / (64 * kGroupWords);
}

// planes: (bit_groups, kProbabilityDigits, kGroupWords). Neurons past the last get probability 0.
void fill_planes(std::span<const uint16_t> probabilities, uint64_t* planes);

// Steps of one layer. Neurons are two-state Markov chains in their renewal form: with probability
// `keep` a neuron stays as it was, else it is drawn anew.
struct ChainRun {
  uint32_t neuron_count;
  uint32_t step_count;
  uint16_t keep;           // 65536ths
  bool first;              // the first of these steps has none before it: all are drawn
  const uint64_t* planes;  // (groups, kProbabilityDigits, kGroupWords) of the draws
  uint64_t* generators;    // (groups, kGeneratorWords, kGroupWords)
  uint64_t* state;         // (groups, kGroupWords) bits of the step before
  uint64_t* out;           // (step_count, words_per_layer), steps `stride` words apart
  uint64_t stride;
};

// For each bit of `active`, a guess: 1 with probability `recall` where the bit is 1 and `alarm`
// where it is 0.
struct GuessRun {
  uint32_t neuron_count;
  uint32_t step_count;
  uint32_t recall, alarm;  // 65536ths; 65535 at most
  const uint64_t* active;  // (step_count, words_per_layer), steps `stride` words apart
  uint64_t* generators;    // (groups, kGeneratorWords, kGroupWords)
  uint64_t* out;           // as `active`
  uint64_t stride;
};

struct BitKernels {
  std::string_view name;
  void (*chain)(const ChainRun& run);
  void (*guess)(const GuessRun& run);
};

// Those that this machine can run, the fastest last. All make the same bits.
const std::vector<BitKernels>& bit_kernels();

}  // namespace thermocline
