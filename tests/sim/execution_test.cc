// Rows of executions joined with what predicted them.
#include "sim/execution.h"

#include <catch2/catch.hpp>

#include "models/error.h"
#include "sim/policy_driver.h"

namespace thermocline {
namespace {

using Catch::Matchers::Contains;

Json counters(uint64_t hits) {
  HotSetStats stats;
  stats.needed = 10;
  stats.hits = hits;
  Json json;
  for_each_counter(stats, [&](const char* name, uint64_t count) { json[name] = count; });
  return json;
}

Json distribution(double mean) {
  return {{"mean", mean}, {"p50", mean}, {"p95", mean}, {"p99", mean}};
}

Json policy_row(const std::string& stage, const std::string& policy, uint64_t hits) {
  return {{"label", "m"},
          {"recorded_by", stage},
          {"kind", "policy"},
          {"policy", policy},
          {"parameters", ""},
          {"oracle", false},
          {"trace_hash", "t"},
          {"budget_bytes", 100},
          {"budget_percent", 10.0},
          {"hit_ratio", 0.5},
          {"cluster", "c"},
          {"tpot_hidden_ms", 3.0},
          {"counters", counters(hits)}};
}

// Two ranks that executed one policy in 4 ms a token; the replay says 3.
Json rows_of(uint64_t executed_hits, const std::string& predicted_policy = "ewma") {
  const std::string stage = "execute host,disk ewma 100";
  Json rows = Json::array();
  rows.push_back(policy_row("predict host,disk", predicted_policy, 5));
  rows.push_back({{"label", "m"},
                  {"recorded_by", stage},
                  {"kind", "run"},
                  {"step_count", 4},
                  {"weight_bytes", 7},
                  {"peak_rss_bytes", 9},
                  {"tpot_ms", distribution(4.0)}});
  for (int rank = 0; rank < 2; ++rank) {
    rows.push_back({{"label", "m"},
                    {"recorded_by", stage},
                    {"kind", "rank"},
                    {"transfer_ms", 1.0},
                    {"compute_ms", 2.0}});
    rows.push_back({{"label", "m"},
                    {"recorded_by", stage},
                    {"kind", "tier"},
                    {"needed", 10},
                    {"in_memory", 4 + rank},
                    {"hot_bytes", 50},
                    {"staging_bytes", 8},
                    {"read_bytes", 400},
                    {"moved_bytes", 40}});
  }
  rows.push_back(policy_row(stage, "ewma", executed_hits));
  return rows;
}

ModelResults results_of(const Json& rows) {
  Json all = rows;
  for (const Json& row : execution_rows(rows)) all.push_back(row);
  return parse_results({{"rows", all}}, "rows").models.at(0);
}

TEST_CASE("an execution stands beside its prediction, ranks added up") {
  const ModelResults model = results_of(rows_of(5));
  CHECK(model.live.empty());  // these rows are executions, not the test run's
  CHECK(model.replayed.empty());
  REQUIRE(model.executions.size() == 1);
  const ExecutionRow& row = model.executions[0];
  CHECK(row.tiers == "host,disk");
  CHECK(row.name() == "ewma");
  CHECK(row.tpot_ms->mean == 4.0);
  CHECK(*row.predicted_ms == 3.0);
  CHECK(*row.predicted_over_executed == 0.75);
  CHECK(row.in_fast_tier == Approx(9.0 / 20));
  CHECK(row.hot_bytes == 100);
  CHECK(row.read_bytes_per_step == 200);
  CHECK(row.moved_bytes_per_step == 20);
  CHECK(row.transfer_ms == 2);
  const Agreement agreement = executions_agree(model);
  CHECK(agreement.holds());
  Results results;
  results.models.push_back(model);
  CHECK_THAT(executions_table(results), Contains("host,disk") && Contains("0.75"));
}

TEST_CASE("counters that are not the replay's are found") {
  const Agreement agreement = executions_agree(results_of(rows_of(6)));
  CHECK(agreement.total == 1);
  CHECK(agreement.equal == 0);
  CHECK_THAT(agreement.differences.at(0), Contains("m: ewma at 100 bytes in host,disk"));
}

TEST_CASE("an execution without its prediction or its run is an error") {
  CHECK_THROWS_WITH(execution_rows(rows_of(5, "lru")), Contains("a replay's row of the same"));
  Json rows = rows_of(5);
  rows.erase(1);
  CHECK_THROWS_WITH(execution_rows(rows), Contains("one row of kind 'run'"));
  CHECK(execution_rows(Json::array()).empty());
}

}  // namespace
}  // namespace thermocline
