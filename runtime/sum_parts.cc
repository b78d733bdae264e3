#include "runtime/sum_parts.h"

#include <algorithm>
#include <bit>

#include "runtime/set_bits.h"

namespace thermocline {
namespace {

constexpr int kWordBits = 64;
constexpr int kBlock = 16;  // rows that a kernel adds at once

// The lowest `count` bits that are set, of more.
uint64_t lowest_bits(uint64_t word, int count) {
  if (count == std::popcount(word)) return word;
  uint64_t rest = word;
  for (int i = 0; i < count; ++i) rest &= rest - 1;
  return word ^ rest;
}

}  // namespace

void SumParts::cut(const NeuronMask& mask, int rows, int token_count) {
  stride_ = (static_cast<size_t>(rows) + kWordBits - 1) / kWordBits;
  token_count_ = static_cast<size_t>(token_count);
  words_.assign(kCount * token_count_ * stride_, 0);
  for (size_t t = 0; t < token_count_; ++t) cut_token(mask.words + t * mask.stride, rows, t);
}

void SumParts::cut_token(const uint64_t* mask, int rows, size_t token) {
  const int words = static_cast<int>(stride_);
  int active = 0;
  for (int i = 0; i < words; ++i) active += std::popcount(word_before(mask, rows, i));
  const int blocks = (active + kBlock - 1) / kBlock;
  int part = 0, seen = 0;
  for (int i = 0; i < words; ++i) {
    for (uint64_t word = word_before(mask, rows, i); word != 0;) {
      const int end = blocks * (part + 1) / kCount * kBlock;
      const uint64_t taken = lowest_bits(word, std::min(std::popcount(word), end - seen));
      this->word(part, token, static_cast<size_t>(i)) |= taken;
      word ^= taken;
      seen += std::popcount(taken);
      if (seen == end && part + 1 < kCount) ++part;
    }
  }
}

}  // namespace thermocline
