// trace stat as the command line calls it, and the figures that it shows.
#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "models/cli.h"
#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/activity_figures.h"
#include "traces/commands.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

nlohmann::json rows_of(const std::string& json, std::vector<std::string> arguments) {
  CLI::App app;
  add_trace_commands(app);
  arguments.insert(arguments.begin(), {"trace", "stat"});
  arguments.insert(arguments.end(), {"--json", json});
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  return nlohmann::json::parse(read_file(json)).at("rows");
}

void check_figures(const nlohmann::json& row, const ActivityStatistics& expected) {
  const auto figures = figures_of(expected, figure_options(0));
  for (size_t i = 0; i < figures.size(); ++i) {
    const auto& value = row.at(std::string(kActivityFigures[i].key));
    INFO(kActivityFigures[i].key << " " << value);
    REQUIRE(value.is_null() != figures[i].has_value());
    if (figures[i]) CHECK(value == *figures[i]);
  }
}

TEST_CASE("trace stat has a row for the model and one for each layer") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 60);
  const uint32_t skipped = GENERATE(0u, 4u);
  const auto rows = rows_of(folder / "stat.json", {path, "--skip", std::to_string(skipped)});
  const auto trace = open_trace(path);
  const TraceStatistics expected = statistics_of(*trace, figure_options(skipped));
  REQUIRE(rows.size() == 1 + 5);
  for (const auto& row : rows) {
    CHECK(row.at("kind") == "activity");
    CHECK(row.at("model") == "preset:tiny,seed=1");
    CHECK(row.at("weights") == "synthetic");
    CHECK(row.at("weight_hash") == "0123456789abcdef");
    CHECK(row.at("trace_hash") == trace->hash());
    CHECK(row.at("step_count") == 60 - 6 * skipped);
    CHECK(row.at("task_count") == 6);
    CHECK(row.at("steps_skipped") == skipped);
    CHECK(row.at("overlap_10").is_null());  // tasks of ten steps have no such pair
  }
  CHECK(rows[0].at("scope") == "model");
  CHECK(!rows[0].contains("layer"));
  check_figures(rows[0], expected.whole);
  for (size_t layer = 0; layer < 5; ++layer) {
    CHECK(rows[1 + layer].at("scope") == "layer");
    CHECK(rows[1 + layer].at("layer") == layer);
    check_figures(rows[1 + layer], expected.layers[layer]);
  }
}

TEST_CASE("trace stat does not count lost neurons as cold") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 20);
  CHECK_THROWS_AS(rows_of(folder / "stat.json", {folder / "none.h5"}), Error);
  std::filesystem::remove(shard_path(path, 1));
  CHECK_THROWS_AS(rows_of(folder / "stat.json", {path}), Error);
  CHECK_THROWS_AS(rows_of(folder / "stat.json", {path, "--allow-partial"}), Error);
}

TEST_CASE("trace stat takes the steps that an unfinished trace has") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = three_ranks();
  for (uint32_t rank = 0; rank < 3; ++rank) {
    append_fixture(*create_shard(path, header, rank), header, rank, 30);
  }
  CHECK_THROWS_AS(rows_of(folder / "stat.json", {path}), Error);
  const auto rows = rows_of(folder / "stat.json", {path, "--allow-partial"});
  CHECK(rows[0].at("step_count") == 30);
}

TEST_CASE("each figure has names of its own, each published one a figure") {
  std::set<std::string_view> keys, heads, names;
  for (const ActivityFigure& figure : kActivityFigures) {
    keys.insert(figure.key);
    heads.insert(figure.head);
    names.insert(figure.name);
  }
  CHECK(keys.size() == kActivityFigures.size());
  CHECK(heads.size() == kActivityFigures.size());
  CHECK(names.size() == kActivityFigures.size());
  for (const PublishedFigure& figure : kPublishedFigures) {
    INFO(figure.key << " of " << figure.of);
    CHECK(keys.contains(figure.key));
    CHECK(0 < figure.low);
    CHECK(figure.low <= figure.high);
    CHECK(figure.high <= 1);
  }
}

TEST_CASE("published figures read as they were printed") {
  // A of 10 and B of 10 that share 4 have a union of 16: distance 0.75, overlap 0.4.
  CHECK(overlap_of_distance(0.75) == Approx(0.4));
  CHECK(overlap_of_distance(0) == 1);
  CHECK(overlap_of_distance(1) == 0);
  const auto text = [](std::string_view key, size_t i) { return published_of(key).at(i).text(); };
  CHECK(text("activity", 0) == "10.7 to 12.1 %");
  CHECK(text("share_80", 0) == "26 %");
  CHECK(text("overlap_1", 0) == "40 to 46.2 %");
  CHECK(text("overlap_1", 1) == "over 90 %");
  CHECK(text("fresh_5", 0) == "2.4 %");
  CHECK(text("task_overlap", 1) == "60.1 to 63.9 %");
  CHECK(published_of("own_coverage").empty());
}

}  // namespace
}  // namespace thermocline::test
