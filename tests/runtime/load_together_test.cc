// Ranks that load together: what one lacks ends all before any has read, and leaves nothing.
#include "runtime/load_together.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "tests/models/failures.h"
#include "tests/runtime/spoiled_weights.h"
#include "tests/runtime/tier_runs.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

// Loads as two ranks of a stage, into memory alone or with a disk tier.
void load_as_two(const WeightSource& source, const std::string& disk_tier) {
  const Partition partition =
      make_partition(source.shape(), DType::f32, parse_layout("tp2", 2), {1, 1});
  TierOptions tiers;
  tiers.folder = disk_tier;
  tiers.weight_hash = "hash";
  tiers.bundle_bytes = bundle_bytes(source.shape(), DType::f32);
  run_local_ranks(2, [&](Comm& comm) {
    const auto backend = backends().by_name("cpu").make({1, {comm.rank(), comm.size()}, 0});
    load_together(comm, source, partition, *backend, true, tiers);
  });
}

size_t file_count(const TempDir& folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    CHECK(entry.path().extension() == ".bundles");
    ++count;
  }
  return count;
}

// The first row of `matrix` that rank 1 has.
void spoil(Spoiled& weights, Matrix matrix) {
  const uint64_t row = size_of(matrix, weights.shape()).rows / 2;
  weights.matrix = [=](Matrix of, uint32_t layer, const MatrixSlice& slice, float* values) {
    if (of != matrix || layer != 0 || slice.row_begin > row || slice.row_end <= row) return;
    values[(row - slice.row_begin) * (slice.col_end - slice.col_begin)] = std::nanf("");
  };
}

}  // namespace

TEST_CASE("bundles stay once all ranks have loaded, and what an earlier run made stays anyway",
          "[tiers]") {
  const TempDir folder;
  Spoiled weights(small_shape(FfnActivation::relu));
  load_as_two(weights, folder / "");
  CHECK(file_count(folder) == 2);
  spoil(weights, Matrix::q);
  CHECK_THROWS_WITH(load_as_two(weights, folder / ""), Contains("q: the weight in row"));
  CHECK(file_count(folder) == 2);
}

TEST_CASE("a rank that cannot make its bundles, or load, leaves none of another rank either",
          "[tiers]") {
  const TempDir folder;
  Spoiled weights(small_shape(FfnActivation::relu));
  spoil(weights, GENERATE(Matrix::up, Matrix::down_t, Matrix::q));
  CHECK_THROWS_WITH(load_as_two(weights, folder / ""), Contains("is nan"));
  CHECK(file_count(folder) == 0);
}

TEST_CASE("ranks of a host that each have room, but not together, are refused before they read") {
  const uint64_t free = backends().by_name("cpu").make({1, {}, 0})->free_bytes();
  ModelShape shape = small_shape(FfnActivation::relu);
  shape.model_dim = 8192;
  const uint64_t bundle = uint64_t{3} * shape.layer_count * shape.model_dim * sizeof(float);
  shape.ffn_dim = static_cast<uint32_t>(free / 2 * 3 / bundle) / 2 * 2;  // three quarters a rank
  Spoiled weights(shape);
  std::atomic<int> reads = 0;
  weights.matrix = [&](Matrix, uint32_t, const MatrixSlice&, float*) { ++reads; };
  weights.norm = [&](NormVector, uint32_t, float*) { ++reads; };
  const Failure failure = failure_of([&] { load_as_two(weights, ""); });
  CHECK(failure.kind == ErrorKind::failed);
  CHECK_THAT(failure.message,
             Contains("host " + std::string(this_host().data()) + ": its ranks 0 and 1 take ") &&
                 Contains("together") && Contains("or --disk-tier"));
  CHECK(reads == 0);
}

}  // namespace thermocline::test
