// How a GPU thread reads and decodes weights, run on the host.
#define TC_CUDA_NAMESPACE thermocline::emulated
#include "runtime/kernels/cuda_body.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <set>

#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::emulated;
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

// A row in the GPU's order, of exactly its length, at an address that is `misplaced` bytes beyond a
// multiple of 16.
struct PackedRow {
  std::vector<std::byte> memory;
  std::byte* data;

  PackedRow(DType dtype, int cols, const std::byte* row, size_t misplaced)
      : memory(bytes_of(dtype, static_cast<uint64_t>(cols)) + 32) {
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    data = memory.data() + (16 - address % 16) % 16 + misplaced;
    memory.resize(static_cast<size_t>(data - memory.data()) + memory.size() - 32);
    cuda_pack_row(dtype, cols, row, data);
  }
};

template <DType D, bool kAligned>
void check_decoding(const Matrix& w, const std::byte* row) {
  std::multiset<int> seen;
  for (int u = 0; u < unit_count<D>(w.cols); ++u) {
    const Unit<D> unit = load_unit<D, kAligned>(row, w.cols, u);
    const Scales<D> scales = scales_of<D>(unit, u);
    for (int quad = 0; quad < kQuads<D>; ++quad) {
      const int column = column_of<D>(u, quad);
      REQUIRE(unit_of<D>(column) == u);
      REQUIRE(quad_of<D>(column) == quad);
      float weights[kQuad];
      decode_quad<D>(unit, scales, u, quad, weights);
      for (int c = column; c < column + kQuad; ++c) {
        if (c < w.cols) seen.insert(c);
        REQUIRE(weights[c - column] == (c < w.cols ? static_cast<float>(w.at(1, c)) : 0));
      }
    }
  }
  REQUIRE(seen.size() == static_cast<size_t>(w.cols));
  REQUIRE(std::set<int>(seen.begin(), seen.end()).size() == seen.size());
}

}  // namespace

TEST_CASE("the units of a GPU's row cover it once and decode it exactly") {
  std::mt19937_64 random(11);
  for_each_type([&]<DType D>() {
    for (const int cols : widths<D>()) {
      INFO(facts(D).name << " " << cols);
      const Matrix w = random_matrix(D, 2, cols, random);
      check_decoding<D, false>(w, PackedRow(D, cols, w.row(1), 2).data);
      check_decoding<D, false>(w, PackedRow(D, cols, w.row(1), 0).data);
      if (cols % kUnitColumns<D> == 0)
        check_decoding<D, true>(w, PackedRow(D, cols, w.row(1), 0).data);
    }
  });
}

TEST_CASE("a GPU decodes every f16 and bf16") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    Unit<DType::f16> unit = {};
    unit.codes[0] = bits << 16;
    const float half = plain_weight(unit, 1);
    const double expected = value_of_f16(static_cast<uint16_t>(bits));
    REQUIRE((half == expected || (std::isnan(half) && std::isnan(expected))));
    Unit<DType::bf16> brain = {};
    brain.codes[0] = bits;
    const float wide = plain_weight(brain, 0), same = float_of_bits(bits << 16);
    REQUIRE(std::memcmp(&wide, &same, sizeof wide) == 0);
  }
}

TEST_CASE("a packed row holds the bytes of its blocks, plane by plane") {
  for (int type = 0; type < kDTypeCount; ++type) {
    const auto dtype = static_cast<DType>(type);
    int bytes = 0;
    std::set<int> covered;
    for (int p = 0; p < kPlanesMax; ++p) {
      const Plane plane = plane_of(dtype, p);
      REQUIRE(bytes_before(dtype, p) == bytes);
      for (int i = 0; i < plane.bytes; ++i) covered.insert(plane.from + i);
      bytes += plane.bytes;
    }
    REQUIRE(bytes == static_cast<int>(facts(dtype).bytes_per_block));
    REQUIRE(covered.size() == facts(dtype).bytes_per_block);
  }
}
