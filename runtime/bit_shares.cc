#include "runtime/bit_shares.h"

#include <bit>
#include <cstdint>
#include <numeric>

#include "runtime/set_bits.h"

namespace thermocline {
namespace {

constexpr int kWordBits = 64;

// Rows of word `w` that any token wants.
int chosen(const NeuronMask& mask, int token_count, int rows, int w) {
  uint64_t any = 0;
  for (int t = 0; t < token_count; ++t)
    any |= word_before(mask.words + static_cast<size_t>(t) * mask.stride, rows, w);
  return std::popcount(any);
}

}  // namespace

void BitShares::cut(const NeuronMask& mask, int rows, int token_count, int share_count) {
  counts_.resize(static_cast<size_t>((rows + kWordBits - 1) / kWordBits));
  for (size_t w = 0; w < counts_.size(); ++w)
    counts_[w] = chosen(mask, token_count, rows, static_cast<int>(w));
  const int64_t total = std::accumulate(counts_.begin(), counts_.end(), int64_t{0});
  borders_.assign(static_cast<size_t>(share_count) + 1, rows);
  borders_[0] = 0;
  int64_t before = 0;
  int share = 1;
  for (size_t w = 0; w < counts_.size(); before += counts_[w++]) {
    // The border nearest to where the share should end.
    for (; share < share_count; ++share) {
      const int64_t wanted = total * share / share_count;
      if (wanted - before > counts_[w] / 2) break;
      borders_[static_cast<size_t>(share)] = static_cast<int>(w) * kWordBits;
    }
  }
}

}  // namespace thermocline
