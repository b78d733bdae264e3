// Dense scores: one small score per neuron, updated for whole steps in wide instructions.
//
// Layout: a score for every bit of a step's words, that of bit b of word w at 64 w + b: its place.
//   Spare bits of a layer's last word have places too, which are never active; what at_least says
//   of them means nothing. Places and flat indices have the same order; ScorePlaces converts.
// Goals: at 70B a step is one pass over 2 to 4.6 MB; the same integers from every version; a plain
//   version for any machine, which tests hold the others against; chosen once per process.
// Non-goals: what scores mean.
// Thread-safety: the operations are pure functions over their arguments.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "models/neuron.h"

namespace thermocline {

// Flat indices and places of a pool.
class ScorePlaces {
 public:
  ScorePlaces() = default;
  explicit ScorePlaces(const NeuronPool& pool)
      : neurons_(pool.neuron_count),
        padded_(64 * pool.words_per_layer()),
        words_(pool.words_per_step()) {}

  uint64_t size() const { return 64 * words_; }  // places
  uint64_t word_count() const { return words_; }
  uint32_t place_of(uint32_t flat) const { return flat / neurons_ * padded_ + flat % neurons_; }
  uint32_t flat_of(uint32_t place) const { return place / padded_ * neurons_ + place % padded_; }

 private:
  uint32_t neurons_ = 1, padded_ = 64;
  uint64_t words_ = 0;
};

// Operations over scores (64 * words) and bits (words). All saturate at 0 and at the largest Score.
template <class Score>
struct DenseScoreOps {
  const char* name;
  // scores >>= shift; then scores += gain where active.
  void (*age_add)(Score* scores, const uint64_t* active, size_t words, uint32_t shift, Score gain);
  // scores -= scores * decay >> bits of Score; then scores += gain where active.
  void (*decay_add)(Score* scores, const uint64_t* active, size_t words, Score decay, Score gain);
  // scores = value where active.
  void (*set)(Score* scores, const uint64_t* active, size_t words, Score value);
  // scores -= amount, everywhere.
  void (*subtract)(Score* scores, size_t words, Score amount);
  // Where active, scores += up, at most `most`; elsewhere scores -= down.
  void (*up_down)(Score* scores, const uint64_t* active, size_t words, Score up, Score down,
                  Score most);
  // Bits where scores >= least.
  void (*at_least)(const Score* scores, size_t words, Score least, uint64_t* bits);
};

// The versions that this machine can run; the last is the fastest. Score: uint8_t or uint16_t.
template <class Score>
std::span<const DenseScoreOps<Score>> all_dense_score_ops();
template <>
std::span<const DenseScoreOps<uint8_t>> all_dense_score_ops();
template <>
std::span<const DenseScoreOps<uint16_t>> all_dense_score_ops();

// The fastest.
template <class Score>
const DenseScoreOps<Score>& dense_score_ops() {
  return all_dense_score_ops<Score>().back();
}

// Words whose scores stay in the nearest cache, so that several operations over them cost one pass
// over memory. Calls visit(first word, word count).
inline constexpr size_t kScoreBlockWords = 64;
template <class Visit>
void for_each_score_block(size_t words, Visit visit) {
  for (size_t first = 0; first < words; first += kScoreBlockWords) {
    visit(first, std::min(kScoreBlockWords, words - first));
  }
}

// Calls visit(place) for every bit of the word `w`.
template <class Visit>
void for_each_place(uint64_t w, uint64_t word, Visit visit) {
  for (; word != 0; word &= word - 1) {
    visit(static_cast<uint32_t>(64 * w) + static_cast<uint32_t>(std::countr_zero(word)));
  }
}

}  // namespace thermocline
