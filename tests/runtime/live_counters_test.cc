// Live counters: both renderings of a snapshot, what ranks send each other, rates.
#include "runtime/live_counters.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "models/cli.h"
#include "runtime/listening.h"
#include "tests/exposition.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

HotSetStats stats_from(uint64_t first) {
  HotSetStats stats;
  for_each_counter(stats, [&](const char*, uint64_t& count) { count = first++; });
  return stats;
}

RankCounters rank_counters(uint64_t seed) {
  RankCounters rank;
  rank.prefill = {2, 40, {seed + 1, seed + 2, seed + 3, seed + 4}};
  rank.decode = {10, 20, {1'500'000'000, 0, 250'000'000, 250'000'000}};
  rank.weight_bytes = 1000 + seed;
  for (size_t i = 0; i < rank.tiers.size(); ++i) {
    HotTierCounters& tier = rank.tiers[i];
    tier = {200 + i, 30, {}};
    tier.counters.needed = 100 - i;
    tier.counters.here = 60;
    tier.counters.read_bytes = 5000;
    tier.counters.wait_ns = 12'345'678 + i;
  }
  rank.sent = {{seed, seed * 2}, {seed + 5, seed + 6}};
  rank.policies = {{stats_from(100 + seed), 4, 0.25}, {stats_from(1000 + seed), 5, std::nullopt}};
  rank.policies[0].stats.step_count = rank.policies[1].stats.step_count = 60;
  return rank;
}

LiveSnapshot snapshot_of_two() {
  LiveSnapshot snapshot;
  snapshot.model = "a \"model\"\\path\nwith lines";
  snapshot.weights = "synthetic";
  snapshot.weight_hash = "abcd";
  snapshot.layout = "pp1,tp2";
  snapshot.bundle_bytes = 48;
  const auto policies = parse_policies("fixed,ewma:halflife=4");
  for (const PolicySpec& policy : policies) snapshot.policies.push_back({policy, 4096});
  snapshot.tasks_done = 3;
  snapshot.tasks_total = 9;
  snapshot.recent_tokens_per_second = 12.5;
  snapshot.ranks = {rank_counters(10), rank_counters(20)};
  snapshot.ranks[0].sent = {{0, 20}, {0, 16}};
  snapshot.ranks[1].sent = {{20, 0}, {25, 0}};
  snapshot.ranks[1].policies[0].hot_threshold = 0.5;
  return snapshot;
}

TEST_CASE("a rank's counters arrive as they were sent") {
  const RankCounters mine = rank_counters(7);
  const std::vector<std::byte> bytes = packed(mine);
  const RankCounters read = unpacked(bytes, 2, 2);
  CHECK(read.prefill.times == mine.prefill.times);
  CHECK(read.decode.step_count == 20);
  CHECK(read.weight_bytes == 1007);
  CHECK(read.tiers[0].counters.wait_ns == 12'345'678);
  CHECK(read.tiers[1].counters.wait_ns == 12'345'679);
  CHECK(read.sent.run == mine.sent.run);
  CHECK(read.sent.decode == mine.sent.decode);
  REQUIRE(read.policies.size() == 2);
  CHECK(read.policies[1].stats == mine.policies[1].stats);
  CHECK(read.policies[0].hot_threshold == 0.25);
  CHECK(!read.policies[1].hot_threshold.has_value());
  CHECK(packed(read).size() == bytes.size());
}

TEST_CASE("policies add up over ranks, and the hot threshold is the mean of those that have one") {
  LiveSnapshot snapshot = snapshot_of_two();
  const LivePolicyState first = snapshot.policy_total(0), second = snapshot.policy_total(1);
  CHECK(first.stats.step_count == 60);  // of both: they go through the same steps
  CHECK(first.stats.needed == 111 + 121);
  CHECK(first.hot_count == 8);
  CHECK(first.hot_threshold == 0.375);
  CHECK(!second.hot_threshold.has_value());
  snapshot.ranks[0].policies[0].hot_threshold.reset();
  CHECK(snapshot.policy_total(0).hot_threshold == 0.5);
}

TEST_CASE("the exposition is well formed: a help and a type for each family, each sample once") {
  LiveSnapshot snapshot = snapshot_of_two();
  snapshot.tiers = GENERATE(std::vector<std::string>{}, std::vector<std::string>{"host"},
                            std::vector<std::string>{"device", "host"});
  const Exposition read = read_exposition(prometheus_text(snapshot));
  for (const auto& [name, type] : read.types) {
    INFO(name);
    CHECK(name.starts_with("thermocline_"));
    CHECK((type == "counter") == name.ends_with("_total"));
  }
  CHECK(read.value("thermocline_tasks_done_total") == 3);
  CHECK(read.value("thermocline_steps_total", "phase=\"decode\"") == 20);
  CHECK(read.value("thermocline_decode_tokens_per_second") == 10);
  CHECK(read.value("thermocline_decode_recent_tokens_per_second") == 12.5);
  CHECK(read.value("thermocline_rank_seconds_total", "rank=\"1\",phase=\"decode\",part=\"comm\"") ==
        0.25);
  CHECK(read.value("thermocline_link_bytes_total", "from=\"0\",to=\"1\"") == 20);
  CHECK(read.value("thermocline_link_decode_bytes_total", "from=\"1\",to=\"0\"") == 25);
  const std::string ewma = "policy=\"ewma:halflife=4\",budget_bytes=\"4096\"";
  CHECK(read.value("thermocline_policy_needed_total", ewma) == 1011 + 1021);
  CHECK(read.value("thermocline_policy_hot_bytes", ewma) == 480);
  CHECK(read.samples.count("thermocline_policy_hot_threshold{" + ewma + "}") == 0);
  for (size_t i = 0; i < 2; ++i) {
    const std::string tier = i < snapshot.tiers.size() ? snapshot.tiers[i] : "none";
    const std::string labels = "rank=\"0\",tier=\"" + tier + "\"";
    CHECK(read.samples.count("thermocline_hot_room_bytes{" + labels + "}") ==
          (i < snapshot.tiers.size()));
    if (i >= snapshot.tiers.size()) continue;
    CHECK(read.value("thermocline_tier_needed_bundles_total", labels) == 100 - i);
  }
  CHECK(prometheus_text(snapshot).find("model=\"a \\\"model\\\"\\\\path\\nwith lines\"") !=
        std::string::npos);
}

TEST_CASE("every counter of a policy is in both renderings, to the last integer") {
  LiveSnapshot snapshot = snapshot_of_two();
  // Beyond what a double holds.
  snapshot.ranks[0].policies[0].stats.hits = (uint64_t{1} << 60) + 1;
  const HotSetStats total = snapshot.policy_total(0).stats;
  const std::string text = prometheus_text(snapshot);
  const auto json = nlohmann::json::parse(counters_json(snapshot));
  const std::string labels = "{policy=\"fixed-topk\",budget_bytes=\"4096\"} ";
  size_t count_of_counters = 0;
  for_each_counter(total, [&](const std::string& name, uint64_t count) {
    INFO(name);
    const std::string suffix = name == "hot_count_peak" ? "" : "_total";
    const std::string sample = "\nthermocline_policy_" + name + suffix + labels;
    CHECK(text.find(sample + std::to_string(count) + "\n") != std::string::npos);
    CHECK(json["policies"][0]["counters"][name] == count);
    ++count_of_counters;
  });
  CHECK(json["policies"][0]["counters"].size() == count_of_counters);
  CHECK(json["policies"][0]["hot_threshold"] == 0.375);
  CHECK(json["policies"][1]["hot_threshold"].is_null());
  CHECK(json["policies"][1]["parameters"].get<std::string>().find("halflife=4") !=
        std::string::npos);
}

TEST_CASE("Prometheus' own library reads the exposition, and finds what the JSON says") {
  const std::string python = oracle_python("prometheus_client");
  if (python.empty()) return;
  const TempDir folder;
  LiveSnapshot snapshot = snapshot_of_two();
  snapshot.tiers = {"device", "host"};
  write_file(folder / "metrics.txt", prometheus_text(snapshot));
  write_file(folder / "counters.json", counters_json(snapshot));
  const CommandResult result =
      run_command(python + " " + THERMOCLINE_SOURCE_DIR + "/tests/oracles/check_exposition.py " +
                  folder / "metrics.txt" + " " + folder / "counters.json");
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(result.output.find("as the JSON has them") != std::string::npos);
}

TEST_CASE("bytes that are no UTF-8 leave a page that is") {
  LiveSnapshot snapshot = snapshot_of_two();
  snapshot.model = "m\xc3\xa4\xff\xe2\x82";
  CHECK(prometheus_text(snapshot).find("model=\"m\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"") !=
        std::string::npos);
  CHECK(nlohmann::json::accept(counters_json(snapshot)));
}

TEST_CASE("a threshold that is no number is told as each form tells it") {
  LiveSnapshot snapshot = snapshot_of_two();
  const double value =
      GENERATE(std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN());
  for (RankCounters& rank : snapshot.ranks) rank.policies[0].hot_threshold = value;
  const std::string text = prometheus_text(snapshot);
  CHECK(text.find(std::isnan(value) ? "\"} NaN\n" : "\"} +Inf\n") != std::string::npos);
  CHECK(nlohmann::json::parse(counters_json(snapshot))["policies"][0]["hot_threshold"].is_null());
}

TEST_CASE("before the first pass there are pages, and nothing has been done") {
  LiveSnapshot snapshot = snapshot_of_two();
  snapshot.ranks.clear();
  snapshot.tasks_done = 0;
  const Exposition read = read_exposition(live_page(snapshot, "/metrics").body);
  CHECK(read.value("thermocline_steps_total", "phase=\"prefill\"") == 0);
  CHECK(read.value("thermocline_decode_tokens_per_second") == 0);
  const auto json = nlohmann::json::parse(live_page(snapshot, "/counters.json").body);
  CHECK(json["ranks"].empty());
  CHECK(json["policies"][0]["counters"]["needed"] == 0);
  CHECK(live_page(snapshot, "/").body.find("/metrics") != std::string::npos);
  CHECK(live_page(snapshot, "/metrics/").status == 404);
  CHECK(read_exposition(prometheus_text(LiveSnapshot{})).value("thermocline_tasks") == 0);
}

TEST_CASE("the recent rate forgets what is older than some seconds") {
  constexpr uint64_t kSecond = 1'000'000'000;
  DecodeRate rate;
  CHECK(rate.tokens_per_second(0) == 0);
  rate.add(10 * kSecond, 30, kSecond);
  CHECK(rate.tokens_per_second(10 * kSecond) == 30);
  rate.add(12 * kSecond, 10, kSecond);
  CHECK(rate.tokens_per_second(12 * kSecond) == 20);
  CHECK(rate.tokens_per_second((10 + kRecentSeconds) * kSecond) == 10);
  CHECK(rate.tokens_per_second((12 + kRecentSeconds) * kSecond) == 0);
}

TEST_CASE("the newest snapshot is whole, whoever reads it while another is published") {
  SnapshotBoard board;
  std::atomic<bool> torn = false, done = false;
  std::thread reader([&] {
    while (!done) {
      const auto snapshot = board.newest();
      if (snapshot->tasks_done != snapshot->tasks_total) torn = true;
      (void)prometheus_text(*snapshot);
    }
  });
  for (uint64_t i = 0; i < 500; ++i) {
    LiveSnapshot snapshot;
    snapshot.tasks_done = snapshot.tasks_total = i;
    board.publish(snapshot);
  }
  done = true;
  reader.join();
  CHECK(!torn);
  CHECK(board.newest()->tasks_done == 499);
}

}  // namespace
}  // namespace thermocline::test
