// Rows as bytes and back, and what a file that is none of ours does.
#include "sim/replay_store.h"

#include <catch2/catch.hpp>

#include "models/cli.h"
#include "models/error.h"
#include "tests/sim/memory_trace.h"
#include "tests/support.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

struct Replayed {
  MemoryTrace trace = random_trace(31, three_rank_header(), 60, 10);
  ReplayOptions options{parse_policies("ewma,fixed,oracle-static"), {384 * 60, 384 * 120}};
  RecordingConfig config = recording_config(trace.header(), "t.h5");
  CostModel cost{trace.header(), config, default_cluster(), GateReads::predicted};
  ReplayResult result;

  explicit Replayed(std::vector<HotBudget> host_budgets = {}) {
    trace.cut_into_tasks(12, 4);
    options.host_budgets = std::move(host_budgets);
    if (!options.host_budgets.empty()) {
      Cluster three_tiers = default_cluster();
      three_tiers.nodes[0].tiers[2] = {uint64_t{1} << 40, 1e9};
      cost = CostModel(trace.header(), config, three_tiers, GateReads::predicted);
    }
    options.cost = &cost;
    result = replay(trace, &trace, options);
  }
  KeptRows rows() const {
    KeptRows rows;
    for (size_t i = 0; i < result.rows.size(); ++i) rows[i] = result.rows[i];
    return rows;
  }
  ReplayResult empty() const { return empty_result(trace, options); }
};

}  // namespace

TEST_CASE("rows survive being bytes") {
  const bool three_tiers = GENERATE(false, true);
  const Replayed replayed(three_tiers ? std::vector<HotBudget>{384 * 90, 384 * 180}
                                      : std::vector<HotBudget>{});
  const KeptRows rows = parse_kept_rows(bytes_of(replayed.rows()), replayed.empty(), "here");
  REQUIRE(rows.size() == 6);
  for (const auto& [i, row] : rows) {
    const ReplayStats& original = replayed.result.rows[i];
    CHECK(row.total == original.total);
    CHECK(row.by_pool == original.by_pool);
    CHECK(row.hot_max == original.hot_max);
    CHECK(row.hot_by_layer == original.hot_by_layer);
    CHECK(row.watched_threshold == original.watched_threshold);
    CHECK(row.account == original.account);
    CHECK(row.host.has_value() == three_tiers);
    CHECK(row.host == original.host);
    CHECK(row.threshold.has_value() == original.threshold.has_value());
  }
  CHECK(bytes_of(rows) == bytes_of(replayed.rows()));
}

TEST_CASE("rows of two tiers are none of three, nor of another budget of the host") {
  const Replayed two, three({384 * 90, 384 * 180}), other({384 * 90, 384 * 200});
  const auto refused = Catch::Contains("a row of this replay");
  CHECK_THROWS_WITH(parse_kept_rows(bytes_of(two.rows()), three.empty(), "here"), refused);
  CHECK_THROWS_WITH(parse_kept_rows(bytes_of(three.rows()), two.empty(), "here"), refused);
  CHECK_THROWS_WITH(parse_kept_rows(bytes_of(three.rows()), other.empty(), "here"), refused);
}

TEST_CASE("a store gives back what was saved under its key, and nothing else") {
  const Replayed replayed;
  const TempDir folder;
  ReplayStore store(folder / "x.partial", "key");
  CHECK(store.load(replayed.empty()).empty());
  store.add(replayed.rows());
  store.save();
  CHECK(bytes_of(store.load(replayed.empty())) == bytes_of(replayed.rows()));
  CHECK(ReplayStore(folder / "x.partial", "other").load(replayed.empty()).empty());
  store.remove();
  CHECK(store.load(replayed.empty()).empty());
}

TEST_CASE("damaged bytes are an error or right, never a crash") {
  const Replayed replayed;
  const std::string bytes = bytes_of(replayed.rows());
  Lcg random(5);
  for (int i = 0; i < 400; ++i) {
    std::string damaged = bytes;
    if (i % 2 == 0) damaged.resize(random.below(static_cast<uint32_t>(bytes.size())));
    if (!damaged.empty()) {
      damaged[random.below(static_cast<uint32_t>(damaged.size()))] ^=
          static_cast<char>(1 + random.below(255));
    }
    try {
      parse_kept_rows(damaged, replayed.empty(), "here");
    } catch (const Error& error) {
      CHECK_THAT(error.what(), Catch::Contains("here"));
    }
  }
}
