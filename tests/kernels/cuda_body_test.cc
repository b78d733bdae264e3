// What each GPU thread computes, run on the host: a warp and a thread block are loops here.
#define TC_DEVICE
#include "runtime/kernels/cuda_body.h"

#include <catch2/catch.hpp>
#include <set>

#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

template <class Check>
void for_each_type(Check check) {
  check.template operator()<DType::f32>();
  check.template operator()<DType::f16>();
  check.template operator()<DType::bf16>();
  check.template operator()<DType::q8_0>();
  check.template operator()<DType::q4_0>();
  check.template operator()<DType::q4_1>();
  check.template operator()<DType::q5_0>();
  check.template operator()<DType::q5_1>();
  check.template operator()<DType::q4_k>();
  check.template operator()<DType::q5_k>();
  check.template operator()<DType::q6_k>();
}

template <DType D>
std::vector<int> widths() {
  if (facts(D).items_per_block == 1) return {1, 7, 8, 9, 31, 255, 256, 257, 600};
  if (facts(D).items_per_block == 32) return {32, 64, 256, 320, 1056};
  return {256, 512, 1280};
}

}  // namespace

TEST_CASE("units cover a row once and decode it exactly") {
  std::mt19937_64 random(11);
  for_each_type([&]<DType D>() {
    for (const int cols : widths<D>()) {
      INFO(facts(D).name << " " << cols);
      const Matrix w = random_matrix(D, 3, cols, random);
      std::multiset<int> seen;
      for (int unit = 0; unit < unit_count(cols); ++unit) {
        float weights[kUnit];
        unit_weights<D>(w.row(2), cols, unit, weights);
        for (int i = 0; i < kUnit; ++i) {
          const int c = unit_column<D>(unit, i);
          if (c < cols) seen.insert(c);
          REQUIRE(weights[i] == (c < cols ? w.at(2, c) : 0));
        }
      }
      REQUIRE(seen.size() == static_cast<size_t>(cols));
      REQUIRE(std::set<int>(seen.begin(), seen.end()).size() == seen.size());
    }
  });
}

TEST_CASE("the lanes of a warp add up to the dot products that are wanted") {
  std::mt19937_64 random(12);
  for_each_type([&]<DType D>() {
    for (const int cols : widths<D>()) {
      INFO(facts(D).name << " " << cols);
      const Matrix w = random_matrix(D, 2, cols, random);
      const int stride = cols + 2;
      const auto x = random_floats(3 * stride - 2, random);  // the last token ends with its columns
      for (const unsigned wanted : {7u, 5u, 0u}) {
        Sum total[4];
        for (int lane = 0; lane < kWarp; ++lane) {
          float sums[4];
          lane_sums<D, 4>(w.row(1), cols, lane, x.data(), stride, wanted, sums);
          for (int t = 0; t < 4; ++t) total[t].add(sums[t]);
        }
        for (int t = 0; t < 4; ++t) {
          const bool want = wanted >> t & 1;
          const Sum expected = want ? dot(w, 1, x.data() + t * stride) : Sum{};
          REQUIRE(std::fabs(total[t].value - expected.value) <=
                  (cols / kWarp + 8) * 0x1p-24 * expected.size);
        }
      }
    }
  });
}

TEST_CASE("groups of rows add up to the weighted sum of active rows") {
  std::mt19937_64 random(13);
  for_each_type([&]<DType D>() {
    for (const int rows : {1, 64, 127, 128, 129, 400}) {
      constexpr int kBlock = facts(D).items_per_block == 256 ? 256 : 32;
      const int cols = 3 * kBlock, begin = kBlock, width = 2 * kBlock;
      INFO(facts(D).name << " " << rows);
      const Matrix w = random_matrix(D, rows, cols, random);
      const auto a = random_floats(rows, random);
      const auto mask = random_mask(1, (rows + 63) / 64, 0.5, random);
      for (int unit = 0; unit < unit_count(width) + 2; ++unit) {
        Sum total[kUnit];
        for (int group = 0; group < kRowGroups; ++group) {
          float sums[kUnit];
          group_sums<D>(w.bytes.data() + bytes_of(D, begin), bytes_of(D, cols), rows, width, unit,
                        group, mask.data(), a.data(), sums);
          for (int i = 0; i < kUnit; ++i) total[i].add(sums[i]);
        }
        for (int i = 0; i < kUnit; ++i) {
          const int c = unit_column<D>(unit, i);
          Sum expected;
          for (int r = 0; c < width && r < rows; ++r)
            if (bit_of(mask.data(), r)) expected.add(w.at(r, begin + c) * a[r]);
          REQUIRE(std::fabs(total[i].value - expected.value) <= 8 * 0x1p-24 * expected.size);
        }
      }
    }
  });
}
