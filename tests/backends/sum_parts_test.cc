// The parts of a weighted sum, and that its bits depend on neither threads nor other tokens.
#include "runtime/sum_parts.h"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cstring>
#include <random>

#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

std::vector<uint64_t> bits_of_part(const SumParts& parts, int part, int token, size_t words) {
  const NeuronMask mask = parts.part(part);
  const uint64_t* begin = mask.words + static_cast<size_t>(token) * mask.stride;
  return {begin, begin + words};
}

std::vector<int> rows_of(const std::vector<uint64_t>& words, int rows) {
  std::vector<int> set;
  for (int r = 0; r < rows; ++r)
    if (words[static_cast<size_t>(r / 64)] >> (r % 64) & 1) set.push_back(r);
  return set;
}

// (token_count, words): of each token another share of rows.
std::vector<uint64_t> masks_of(int token_count, size_t words, std::mt19937_64& random) {
  std::vector<uint64_t> mask(static_cast<size_t>(token_count) * words);
  for (size_t i = 0; i < mask.size(); ++i) {
    mask[i] = random();
    for (size_t t = i / words; t % 4 != 0; --t) mask[i] &= random();
  }
  return mask;
}

// The sums of `tokens_per_call` tokens a call by a backend of so many threads.
std::vector<float> sums_of(const Matrix& w, const std::vector<uint64_t>& mask,
                           const std::vector<float>& a, int token_count, int threads,
                           int tokens_per_call) {
  const auto backend = backends().by_name("cpu").make({threads, {}, 0});
  const auto memory = backend->allocate(w.bytes.size());
  const WeightView view{w.dtype, w.rows, w.cols, bytes_of(w.dtype, w.cols), memory.get()};
  backend->place_rows(view, 0, w.rows, w.bytes.data());
  const auto rows = static_cast<size_t>(w.rows), cols = static_cast<size_t>(w.cols);
  const size_t words = (rows + 63) / 64;
  std::vector<float> y(static_cast<size_t>(token_count) * cols, 7.0f);
  for (int t = 0; t < token_count; t += tokens_per_call) {
    const std::vector<TokenRow> tokens(
        static_cast<size_t>(std::min(tokens_per_call, token_count - t)));
    const auto first = static_cast<size_t>(t);
    backend->begin(tokens);
    backend->sum_rows(view, {mask.data() + first * words, words}, a.data() + first * rows,
                      y.data() + first * cols);
  }
  return y;
}

}  // namespace

TEST_CASE("parts have every active row once, in order, in whole blocks, evenly", "[backend]") {
  std::mt19937_64 random(5);
  for (const int rows : {1, 15, 16, 17, 64, 100, 300, 1000}) {
    const int token_count = 9;
    const size_t words = (static_cast<size_t>(rows) + 63) / 64;
    std::vector<uint64_t> mask = masks_of(token_count, words, random);
    std::fill_n(mask.begin(), words, ~uint64_t{0});         // all of the first token's
    std::fill_n(mask.begin() + words, words, uint64_t{0});  // none of the second's
    SumParts parts;
    parts.cut({mask.data(), words}, rows, token_count);
    for (int t = 0; t < token_count; ++t) {
      INFO(rows << " rows, token " << t);
      const auto begin = mask.begin() + static_cast<std::ptrdiff_t>(words) * t;
      const std::vector<int> active = rows_of({begin, begin + words}, rows);
      std::vector<int> found;
      size_t most = 0, least = active.size();
      for (int p = 0; p < SumParts::kCount; ++p) {
        const std::vector<int> of_part = rows_of(bits_of_part(parts, p, t, words), rows);
        found.insert(found.end(), of_part.begin(), of_part.end());
        REQUIRE((found.size() % 16 == 0 || found.size() == active.size()));
        most = std::max(most, of_part.size());
        least = std::min(least, of_part.size());
      }
      REQUIRE(found == active);
      REQUIRE(most - least <= 31);  // a block, of which the last may lack some
    }
  }
}

TEST_CASE("a weighted sum has the same bits for any threads and beside any tokens", "[backend]") {
  std::mt19937_64 random(6);
  for (const DType dtype : {DType::bf16, DType::q8_0, DType::q4_0, DType::q6_k}) {
    const int rows = 400, cols = 2304, token_count = 5;
    const Matrix w = random_matrix(dtype, rows, cols, random);
    const std::vector<float> a = random_floats(static_cast<size_t>(token_count) * rows, random);
    const std::vector<uint64_t> mask = masks_of(token_count, (rows + 63) / 64, random);
    const std::vector<float> expected = sums_of(w, mask, a, token_count, 1, token_count);
    for (const int threads : {1, 2, 3, 5, 9})
      for (const int tokens_per_call : {1, 2, token_count}) {
        INFO(facts(dtype).name << ", " << threads << " threads, " << tokens_per_call << " tokens");
        const std::vector<float> found = sums_of(w, mask, a, token_count, threads, tokens_per_call);
        REQUIRE(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) == 0);
      }
  }
}
