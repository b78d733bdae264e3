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

// The same in three tiers, where the host's hot set hits `host_hits` times, and the replay's 7.
Json three_tier_rows(uint64_t host_hits) {
  const std::string stage = "execute device,host,disk ewma 100 300";
  Json rows = rows_of(5);
  for (Json& row : rows) row["recorded_by"] = stage;
  rows[0]["recorded_by"] = "predict device,host,disk";
  rows[0]["host_budget_bytes"] = 300;
  rows[0]["host_hit_ratio"] = 0.7;
  rows[0]["host_counters"] = counters(7);
  for (const size_t tier : {3, 5}) {
    rows[tier]["tier"] = "host";
    Json device = rows[tier];
    for (const char* key : {"in_memory", "staging_bytes", "read_bytes"}) device.erase(key);
    device.update({{"tier", "device"}, {"needed", 20}, {"on_device", 10}, {"hot_bytes", 9}});
    rows.push_back(device);
  }
  rows[6]["tier"] = "device";
  Json host = policy_row(stage, "ewma", host_hits);
  host.update({{"tier", "host"}, {"budget_bytes", 300}, {"budget_percent", 30.0}});
  rows.push_back(host);
  return rows;
}

TEST_CASE("an execution in three tiers has both hot sets beside the replay's") {
  const ModelResults model = results_of(three_tier_rows(7));
  REQUIRE(model.executions.size() == 1);
  const ExecutionRow& row = model.executions[0];
  CHECK(row.tiers == "device,host,disk");
  CHECK(row.budget_bytes == 100);
  CHECK(*row.predicted_over_executed == 0.75);
  CHECK(row.in_fast_tier == 0.5);
  CHECK(row.hot_bytes == 2 * 50 + 2 * 9);
  CHECK(row.read_bytes_per_step == 200);
  REQUIRE(row.host.has_value());
  CHECK(row.host->budget_bytes == 300);
  CHECK(row.host->in_tier == Approx(9.0 / 20));
  CHECK(executions_agree(model).equal == 2);
  CHECK(executions_agree(model).holds());
  Results results;
  results.models.push_back(model);
  CHECK_THAT(executions_table(results), Contains("device,host,disk") && Contains("(host)"));

  const Agreement agreement = executions_agree(results_of(three_tier_rows(8)));
  CHECK(agreement.equal == 1);
  CHECK_THAT(agreement.differences.at(0),
             Contains("m: ewma at 100 bytes in device,host,disk: host: "));
  Json one = three_tier_rows(7);
  one.erase(one.size() - 1);
  CHECK_THROWS_WITH(execution_rows(one), Contains("for device and host"));
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
