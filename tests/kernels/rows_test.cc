// How the CPU kernels walk through rows, whichever way a machine prefers.
#include "runtime/kernels/cpu_rows.h"

#include <catch2/catch.hpp>
#include <vector>

using namespace thermocline;

namespace {

constexpr size_t kStride = 16;
constexpr int kFirst = 5;

// Rows [kFirst, kFirst + count): the blocks that were visited.
std::vector<RowBlock> blocks_of(const std::vector<std::byte>& weights, int count, bool neighbours) {
  std::vector<RowBlock> blocks;
  for_each_block({weights.data(), kStride}, kFirst, kFirst + count, neighbours,
                 [&](const RowBlock& block) { blocks.push_back(block); });
  return blocks;
}

}  // namespace

TEST_CASE("dense rows come in whole blocks, each row at least once, with those that follow") {
  for (const bool neighbours : {false, true}) {
    for (const int count : {0, 1, 2, 7, 8, 9, 17, 64, 1000, 1792}) {
      const std::vector<std::byte> weights(static_cast<size_t>(kFirst + count + 1) * kStride);
      const std::vector<RowBlock> blocks = blocks_of(weights, count, neighbours);
      CHECK(blocks.size() <= static_cast<size_t>((count + kBlockRows - 1) / kBlockRows + 1));
      std::vector<int> visits(static_cast<size_t>(count));
      for (size_t i = 0; i < blocks.size(); ++i) {
        REQUIRE(blocks[i].count == kBlockRows);
        for (int j = 0; j < kBlockRows; ++j) {
          const int r = blocks[i].index[j];
          REQUIRE(r >= kFirst);
          REQUIRE(r < kFirst + count);
          ++visits[static_cast<size_t>(r - kFirst)];
          CHECK(blocks[i].rows[j] == weights.data() + static_cast<size_t>(r) * kStride);
          if (i > 0) CHECK(blocks[i].rows[j] == blocks[i - 1].ahead[j]);
        }
      }
      for (const int of_row : visits) CHECK(of_row >= 1);
    }
  }
}

TEST_CASE("runs are apart by an odd number of rows") {
  const std::vector<std::byte> weights((kFirst + 1792) * kStride);
  const RowBlock first = blocks_of(weights, 1792, false).front();
  for (int j = 1; j + 1 < kBlockRows; ++j) CHECK((first.index[j] - first.index[j - 1]) % 2 == 1);
}
