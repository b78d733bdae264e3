// trace stat as the command line calls it, and the figures that it shows.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "models/cli.h"
#include "models/error.h"
#include "models/process.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/activity_figures.h"
#include "traces/commands.h"
#include "traces/stat_plots.h"
#include "traces/stat_tables.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

void run_stat(std::vector<std::string> arguments) {
  CLI::App app;
  add_trace_commands(app);
  arguments.insert(arguments.begin(), {"trace", "stat"});
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
}

nlohmann::json rows_of(const std::string& json, std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--json", json});
  run_stat(arguments);
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

TEST_CASE("trace stat sees the bits of a moved activation threshold") {
  const TempDir folder;
  write_fixture(folder / "t.h5", with_everything(three_ranks(), MagnitudeFormat::log8), 90);
  const auto rows =
      rows_of(folder / "stat.json", {folder / "t.h5", "--activation-threshold", "0.1"});
  CHECK(rows[0].at("activation_rule") == "abs(act)>0.1");
  CHECK(rows[0].at("step_count") == 30);
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

TEST_CASE("trace stat counts the distances that it is asked for") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 60);
  const auto rows =
      rows_of(folder / "stat.json", {"--lags", "2,3", "--windows", "4", "--threads", "2", path});
  StatisticsOptions asked;
  asked.lags = {3, 2};
  asked.windows = {4};
  const TraceStatistics expected = statistics_of(*open_trace(path), figure_options(0, asked));
  const auto& model = rows[0];
  const auto& lags = model.at("overlap_by_lag");
  CHECK(lags.size() == 5);  // with 1, 10 and 25, which figures need
  CHECK(lags.at("2") == *expected.whole.overlap[1]);
  CHECK(lags.at("3") == *expected.whole.overlap[2]);
  CHECK(lags.at("25").is_null());
  CHECK(model.at("union_by_window").size() == 2);
  CHECK(model.at("union_by_window").at("4") == *expected.whole.unions[0]);
  CHECK(model.at("fresh_by_window").at("5") == model.at("fresh_5"));
  CHECK(model.at("task_overlap_by_distance").at("1") == model.at("task_overlap"));
  CHECK(model.at("task_overlap_by_distance").at("4") == *expected.whole.task_overlap[2]);
  CHECK(model.at("task_overlap_by_distance").at("8").is_null());
  CHECK(model.at("half_task_overlap_by_distance").at("2") == *expected.whole.half_task_overlap[1]);
  CHECK(model.at("carried_by_percent").size() == 20);
  CHECK(model.at("carried_by_percent").at("100") == 1);
  CHECK(!model.contains("predictor_recall"));
}

TEST_CASE("trace stat says what is wrong with its options") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 20);
  CHECK_THROWS_AS(run_stat({path, "--lags", "0"}), Error);
  CHECK_THROWS_AS(run_stat({path, "--windows", "1,5000"}), Error);
  CHECK_THROWS_AS(run_stat({path, "--threads", "100000"}), Error);
}

TEST_CASE("trace stat draws plots that are well formed") {
  if (find_program("gnuplot").empty()) {
    WARN("no gnuplot here: plots not looked at");
    return;
  }
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 60);
  run_stat({path, "--plots", folder / "a/plots"});
  const CommandResult parsed = run_command(
      "cd '" + folder / "a/plots" +
      "' && python3 -c \"import glob, xml.dom.minidom as m\n"
      "print([(f, m.parse(f).documentElement.tagName) for f in sorted(glob.glob('*'))])\"");
  CHECK(parsed.output ==
        "[('activity_by_layer.svg', 'svg'), ('carried_by_share.svg', 'svg'), "
        "('drift_by_distance.svg', 'svg'), ('overlap_by_distance.svg', 'svg'), "
        "('union_by_window.svg', 'svg')]\n");
  const std::string overlap = read_file(folder / "a/plots/overlap_by_distance.svg");
  CHECK_THAT(overlap, Catch::Contains("all layers") && Catch::Contains("layer 4"));
  CHECK_THROWS_AS(run_stat({path, "--plots", path + "/plots"}), Error);  // a file is no folder
}

TEST_CASE("without gnuplot trace stat has its tables and rows all the same") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 20);
  const std::string programs = ::getenv("PATH");
  ::setenv("PATH", "/nowhere", 1);
  const auto rows = rows_of(folder / "stat.json", {path, "--plots", folder / "plots"});
  const WrittenPlots written = write_stat_plots(statistics_of(*open_trace(path)), folder / "plots");
  ::setenv("PATH", programs.c_str(), 1);
  CHECK(rows.size() == 6);
  CHECK(written.paths.empty());
  CHECK_THAT(written.problem, Catch::Contains("gnuplot is not installed"));
}

TEST_CASE("a trace without steps has tables and no plots") {
  const TraceStatistics none = [] {
    StatisticsCounter counter({0, 2, 0, 10}, figure_options(0));
    return counter.finish();
  }();
  CHECK(stat_plots(none).empty());
  CHECK_THAT(stat_tables(none), Catch::Contains("by chance"));
}

// The request stays for the life of a process, which therefore is a child.
TEST_CASE("an interrupted trace stat writes nothing and fails") {
  const TempDir folder;
  const std::string path = folder / "t.h5", json = folder / "stat.json";
  write_fixture(path, three_ranks(), 20);
  const pid_t child = ::fork();
  if (child == 0) {
    install_interrupt_handler();
    ::raise(SIGTERM);
    int code = 0;
    try {
      run_stat({path, "--json", json});
    } catch (const Error& error) {
      code = error.exit_code();
    }
    ::_exit(code);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  CHECK(!std::filesystem::exists(json));
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
