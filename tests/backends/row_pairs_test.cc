// Gate and up rows of bundles read in pairs: bits of matrices that lie apart.
#include "runtime/row_pairs.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <random>

#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

// Gate, up and down rows of neurons, in bundles or one matrix behind the other.
struct PlacedFfn {
  std::shared_ptr<std::byte> memory;
  WeightView gate, up;

  PlacedFfn(Backend& backend, const Matrix& g, const Matrix& u, bool bundles) {
    const uint64_t row = bytes_of(g.dtype, g.cols), rows = static_cast<uint64_t>(g.rows);
    const uint64_t stride = bundles ? 3 * row : row, up_at = bundles ? row : rows * row;
    memory = backend.allocate(3 * rows * row);
    gate = {g.dtype, g.rows, g.cols, stride, memory.get()};
    up = {u.dtype, u.rows, u.cols, stride, memory.get() + up_at};
    backend.place_rows(gate, 0, g.rows, g.bytes.data());
    backend.place_rows(up, 0, u.rows, u.bytes.data());
  }
};

struct Result {
  std::vector<float> hidden;  // of candidates, 0 elsewhere
  std::vector<uint64_t> active;
};

Result result_of(Backend& backend, const PlacedFfn& ffn, const NeuronMask& candidates,
                 const std::vector<float>& x, int token_count) {
  const auto rows = static_cast<size_t>(ffn.gate.rows);
  const size_t words = (rows + 63) / 64, count = static_cast<size_t>(token_count);
  Result result{std::vector<float>(count * rows), std::vector<uint64_t>(count * words)};
  const std::vector<TokenRow> tokens(count);
  backend.begin(tokens);
  GateUpCall call = {};
  call.gate = ffn.gate;
  call.up = ffn.up;
  call.activation = FfnActivation::silu;
  call.threshold = 0.1f;
  call.candidates = candidates;
  call.x = x.data();
  call.hidden = result.hidden.data();
  call.active = result.active.data();
  call.active_stride = words;
  backend.gate_and_up(call);
  for (size_t i = 0; candidates.words != nullptr && i < result.hidden.size(); ++i) {
    const uint64_t* mask = candidates.words + i / rows * candidates.stride;
    if ((mask[i % rows / 64] >> (i % rows % 64) & 1) == 0) result.hidden[i] = 0;
  }
  return result;
}

}  // namespace

TEST_CASE("rows of bundles pair, others do not", "[backend]") {
  std::byte bytes[4 * 96 + 64];
  const WeightView gate{DType::f32, 4, 8, 96, bytes}, up{DType::f32, 4, 8, 96, bytes + 32};
  REQUIRE(RowPairs::fit(gate, up));
  REQUIRE_FALSE(RowPairs::fit(up, gate));    // up is in front
  REQUIRE_FALSE(RowPairs::fit(gate, gate));  // the same
  WeightView other = up;
  other.data = bytes + 96;  // in the next bundle
  REQUIRE_FALSE(RowPairs::fit(gate, other));
  other = up;
  other.stride = 128;
  REQUIRE_FALSE(RowPairs::fit(gate, other));
  other = up;
  other.dtype = DType::f16;
  REQUIRE_FALSE(RowPairs::fit(gate, other));
  const uint32_t places[4] = {};
  other = up;
  other.places = places;
  REQUIRE_FALSE(RowPairs::fit(gate, other));

  const uint64_t candidates[] = {0b1010};
  RowPairs pairs;
  pairs.make(gate, up, {candidates, 1}, 1);
  for (int i = 0; i < 4; ++i) {
    REQUIRE(pairs.rows().row(2 * i) == gate.row(i));
    REQUIRE(pairs.rows().row(2 * i + 1) == up.row(i));
  }
  REQUIRE(pairs.mask().words[0] == 0b11001100);
}

TEST_CASE("rows in pairs give the bits of rows apart", "[backend]") {
  std::mt19937_64 random(8);
  for (const DType dtype : {DType::bf16, DType::q8_0, DType::q4_0, DType::q6_k})
    for (const int token_count : {1, 3, 4, 5}) {
      const int rows = 333, cols = 512, words = (rows + 63) / 64;
      const Matrix gate = random_matrix(dtype, rows, cols, random);
      const Matrix up = random_matrix(dtype, rows, cols, random);
      const auto x = random_floats(static_cast<size_t>(token_count) * cols, random);
      const auto mask = random_mask(token_count, words, 0.3, random);
      const auto backend = backends().by_name("cpu").make({2, {}, 0});
      const PlacedFfn bundles(*backend, gate, up, true), apart(*backend, gate, up, false);
      for (const NeuronMask& candidates :
           {NeuronMask{}, NeuronMask{mask.data(), static_cast<uint64_t>(words)}}) {
        INFO(facts(dtype).name << ", " << token_count << " tokens"
                               << (candidates.words != nullptr ? ", masked" : ""));
        const Result found = result_of(*backend, bundles, candidates, x, token_count);
        const Result expected = result_of(*backend, apart, candidates, x, token_count);
        REQUIRE(found.active == expected.active);
        REQUIRE(std::memcmp(found.hidden.data(), expected.hidden.data(),
                            found.hidden.size() * sizeof(float)) == 0);
      }
    }
}
