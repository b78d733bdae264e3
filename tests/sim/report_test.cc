#include "sim/report.h"

#include <stdlib.h>

#include <catch2/catch.hpp>

#include "models/cli.h"
#include "models/error.h"
#include "models/plot.h"
#include "models/process.h"
#include "sim/answer.h"
#include "sim/following.h"
#include "sim/html.h"
#include "sim/results.h"
#include "tests/sim/result_rows.h"
#include "tests/support.h"

namespace thermocline {
namespace {

using Catch::Matchers::Contains;

ModelResults model_of(const Json& document) {
  return parse_results(document, "r.json").models.at(0);
}

std::string error_of(const Json& document) {
  try {
    parse_results(document, "r.json");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    return error.what();
  }
  return "no error";
}

// PATH without programs, for the time of a scope.
class NoPrograms {
 public:
  NoPrograms() : path_(::getenv("PATH")) { ::setenv("PATH", "/nowhere", 1); }
  ~NoPrograms() { ::setenv("PATH", path_.c_str(), 1); }

 private:
  std::string path_;
};

TEST_CASE("the answer says who wins where, by how much, in time and in memory") {
  const ModelResults model = model_of(test::full_document());
  const Answer answer = answer_of(model);
  CHECK_THAT(
      answer.headline,
      Contains(
          "On demo (synthetic weights), ewma has the higher hit ratio at 10 and 20 % of the FFN, "
          "by 2.0 to 5.0 points; fixed at 30 %, by 1.0 points."));
  CHECK_THAT(answer.headline,
             Contains("Modelled on pc-test, a token takes ewma from 2.0 % less to 3.3 % more"));
  CHECK_THAT(answer.memory,
             Contains("at 20 % of the FFN (50.0 %)") && Contains("18.8 %") && Contains("6 % less"));
  REQUIRE(answer.caveats.size() == 2);
  CHECK_THAT(answer.caveats[0], Contains("synthetic") && Contains("does not tell"));
}

TEST_CASE("the answer follows the data") {
  Json document = test::full_document();
  const auto set = [&](const std::string& policy, double hit_ratio, double tpot_ms) {
    for (Json& row : document["rows"]) {
      if (row["kind"] != "policy" || row["policy"] != policy || !row.contains("tpot_ms")) continue;
      row["hit_ratio"] = hit_ratio;
      row["tpot_ms"] = test::distribution_row(tpot_ms);
    }
  };
  SECTION("fixed wins") {
    set("fixed", 0.6, 40);
    set("ewma", 0.5, 44);
    const Answer answer = answer_of(model_of(document));
    CHECK_THAT(answer.headline, Contains("fixed has the higher hit ratio at 10 to 30 %") &&
                                    Contains("by 10.0 points") && Contains("10 % more time"));
    CHECK_THAT(answer.memory, Contains("does not reach"));
  }
  SECTION("ewma wins") {
    set("fixed", 0.5, 40);
    set("ewma", 0.6, 38);
    const Answer answer = answer_of(model_of(document));
    CHECK_THAT(answer.headline, Contains("ewma has the higher hit ratio at 10 to 30 %") &&
                                    Contains("5.0 % less time"));
    CHECK_THAT(answer.memory, Contains("least budget"));
  }
  SECTION("a tie") {
    set("fixed", 0.5, 40);
    set("ewma", 0.5, 40);
    CHECK_THAT(answer_of(model_of(document)).headline,
               Contains("the same hit ratio at 10 to 30 %"));
  }
  SECTION("one policy") {
    for (Json& row : document["rows"]) {
      if (row["kind"] == "policy") row["policy"] = "fixed";
    }
    Json rows = Json::array();
    for (const Json& row : document["rows"]) {
      if (row["kind"] != "policy" || !row["oracle"].get<bool>()) rows.push_back(row);
    }
    rows.erase(std::remove_if(rows.begin(), rows.end(),
                              [](const Json& row) {
                                return row["kind"] == "policy" && row["parameters"] != "";
                              }),
               rows.end());
    document["rows"] = rows;
    CHECK_THAT(answer_of(model_of(document)).headline, Contains("fewer than two policies"));
  }
  SECTION("real weights make no caveat about synthesis") {
    for (Json& row : document["rows"]) {
      if (row.contains("weights")) row["weights"] = "real";
    }
    CHECK(answer_of(model_of(document)).caveats.size() == 1);
  }
}

TEST_CASE("curves of one policy are named by the parameters in which they differ") {
  ModelResults model;
  for (const char* parameters : {"halflife=32,gamma=0.5", "halflife=8,gamma=0.5"}) {
    model.replayed.emplace_back();
    model.replayed.back().policy = "ewma";
    model.replayed.back().parameters = parameters;
  }
  CHECK(curves_of(model)[0].name == "ewma:halflife=32");
  CHECK(curves_of(model)[1].name == "ewma:halflife=8");
  model.replayed.back().policy = "fixed";
  CHECK(curves_of(model)[0].name == "ewma");
  CHECK(curves_of(model)[1].name == "fixed");
}

TEST_CASE("differences that are ties are not counted as wins") {
  Json document = test::full_document();
  for (Json& row : document["rows"]) {
    if (row["kind"] != "policy" || row["policy"] != "ewma") continue;
    if (row["budget_percent"] == 10) row["hit_ratio"] = 0.3002;
    if (row["budget_percent"] == 20) row["hit_ratio"] = 0.5040;
    if (row["budget_percent"] == 30) row["hit_ratio"] = 0.7010;
  }
  CHECK_THAT(answer_of(model_of(document)).headline,
             Contains("at 20 and 30 % of the FFN, by 0.10 to 0.40 points; they tie at 10 %."));
}

// full_document() without its rows of kind "activity": what older results hold.
Json without_activity() {
  Json document = test::full_document(), rows = Json::array();
  for (const Json& row : document["rows"]) {
    if (row["kind"] != "activity") rows.push_back(row);
  }
  document["rows"] = rows;
  return document;
}

// full_document() with one field of the model's activity row changed.
Json with_activity(const char* key, const Json& value) {
  Json document = test::full_document();
  for (Json& row : document["rows"]) {
    if (row["kind"] == "activity" && row["scope"] == "model") row[key] = value;
  }
  return document;
}

TEST_CASE("whether there is anything to follow is computed from the trace's statistics") {
  const ModelResults model = model_of(test::full_document());
  REQUIRE(model.activity);
  CHECK(model.activity->task_count == 3);
  CHECK(model.activity->figures.count("overlap_25") == 0);  // null: nothing to measure
  CHECK_THAT(overlap_sentence(model), Contains("78.3 % is in the next task's") &&
                                          Contains("shares 74.0 % with its own") &&
                                          Contains("66.0 % with half of the next") &&
                                          Contains("at most 8.0 points come from the task."));
  CHECK_THAT(gain_sentence(model),
             Contains("covers 50.0 % of the firings") && Contains("earlier tasks covers 46.5 %") &&
                 Contains("gain at most 3.5 points on this trace by following tasks"));
  CHECK_THAT(answer_of(model).following,
             Contains("gain at most 3.5 points on this trace: 50.0 % of the firings in hindsight, "
                      "46.5 % with a set profiled on all earlier tasks"));
}

TEST_CASE("what there is to follow says which weights it was counted on") {
  const auto both = [](const std::string& weights, const std::string& says, bool there) {
    const ModelResults model = model_of(with_activity("weights", weights));
    for (const std::string& text : {gain_sentence(model), answer_of(model).following}) {
      INFO(text);
      CHECK((text.find(says) != std::string::npos) == there);
    }
  };
  both("synthetic", "synthetic: which neurons fire together was not learnt", true);
  both("trained-demo", "a small trained model, not LLaMA-70B", true);
  both("trained-demo", "synthetic", false);
  both("real", "synthetic", false);
  both("real", "small", false);
}

TEST_CASE("a small trained model makes a caveat of its own") {
  Json document = test::full_document();
  for (Json& row : document["rows"]) {
    if (row.contains("weights")) row["weights"] = "trained-demo";
  }
  const Results results = parse_results(document, "r.json");
  const Answer answer = answer_of(results.models.at(0));
  REQUIRE(answer.caveats.size() == 2);
  CHECK_THAT(answer.caveats[0], Contains("trained for demonstration") &&
                                    Contains("does not tell which policy wins on LLaMA-70B"));
  CHECK_THAT(answer.headline, Contains("(trained-demo weights)"));
  CHECK_THAT(make_report(results).html, Contains("<span class=\"tag trained-demo\">"));
}

TEST_CASE("tasks that do not differ leave nothing to follow, and one task says nothing") {
  CHECK_THAT(overlap_sentence(model_of(with_activity("half_next_overlap", 0.745))),
             Contains("the tasks' hot sets do not differ."));
  CHECK_THAT(gain_sentence(model_of(with_activity("past_coverage", 0.5))),
             Contains("at most 0.0 points"));
  CHECK_THAT(gain_sentence(model_of(with_activity("past_coverage", 0.46549))),  // 46.5
             Contains("46.5 %") && Contains("at most 3.5 points"));
  CHECK_THAT(gain_sentence(model_of(with_activity("past_coverage", 0.46451))),  // 3.549 is 3.5
             Contains("46.5 %") && Contains("at most 3.5 points"));
  CHECK(overlap_sentence(model_of(with_activity("task_overlap", nullptr))).empty());
  const ModelResults one = model_of(with_activity("own_coverage", nullptr));
  CHECK(gain_sentence(one).empty());
  CHECK(answer_of(one).following.empty());
}

TEST_CASE("rows of activity are read strictly, and older results have none") {
  CHECK_THAT(error_of(with_activity("own_coverage", 1.5)),
             Contains("'own_coverage'") && Contains("from 0 to 1"));
  CHECK_THAT(error_of(with_activity("task_overlap", "all")), Contains("a number 'task_overlap'"));
  CHECK_THAT(error_of(with_activity("task_count", -1)), Contains("a count 'task_count'"));
  const Results results = parse_results(without_activity(), "r.json");
  const ModelResults& model = results.models.at(0);
  CHECK_FALSE(model.activity);
  CHECK(overlap_sentence(model).empty());
  CHECK(gain_sentence(model).empty());
  CHECK(answer_of(model).following.empty());
  CHECK_THAT(make_report(results).html, !Contains("anything to follow"));
}

TEST_CASE("the report shows what there is to follow beside what was published") {
  const Report report = make_report(parse_results(test::full_document(), "r.json"));
  CHECK_THAT(report.html, Contains("<h3>Is there anything to follow?"));
  CHECK_THAT(report.html, Contains("<td class=\"n\" rowspan=\"2\">78.3 %</td>") &&
                              Contains("over 90 %") && Contains("60.1 to 63.9 %"));
  CHECK_THAT(report.html, Contains("OPT-6.7B (LLM in a Flash, appendix C)"));
  CHECK_THAT(report.html, Contains("1000 steps of 3 tasks"));
  CHECK_THAT(report.html, Contains("following tasks can gain at most 3.5\u00a0points"));
}

TEST_CASE("the budget for a hit ratio is interpolated") {
  const ModelResults model = model_of(test::full_document());
  const std::vector<Curve> curves = curves_of(model);
  REQUIRE(curves.size() == 3);
  CHECK(curves[0].name == "fixed");
  CHECK(*percent_for_hit_ratio(curves[0], 0.6) == Approx(25));
  CHECK(*percent_for_hit_ratio(curves[0], 0.1) == Approx(10));
  CHECK_FALSE(percent_for_hit_ratio(curves[0], 0.71));
}

TEST_CASE("rows are read strictly, and errors name file, row and key") {
  const auto with = [](const char* key, const Json& value) {
    Json document = test::full_document();
    document["rows"][5][key] = value;
    return document;
  };
  CHECK(error_of(test::full_document()) == "no error");
  CHECK_THAT(error_of(with("hit_ratio", "high")),
             Contains("r.json: row 5") && Contains("a number 'hit_ratio'") && Contains("\"high\""));
  CHECK_THAT(error_of(with("hit_ratio", 1.5)), Contains("from 0 to 1"));
  CHECK_THAT(error_of(with("hit_ratio", nullptr)), Contains("found none"));
  CHECK_THAT(error_of(with("budget_bytes", -1)), Contains("a count 'budget_bytes'"));
  CHECK_THAT(error_of(with("oracle", "no")), Contains("true or false"));
  CHECK_THAT(error_of(with("counters", Json::object())), Contains("'step_count'"));
  CHECK_THAT(error_of(with("kind", 3)), Contains("'kind'"));
  CHECK_THAT(error_of({{"rows", 3}}), Contains("rows"));
  CHECK_THAT(error_of(Json::array()), Contains("rows"));
  CHECK_THAT(error_of(test::document_of({1, 2})), Contains("an object"));
}

TEST_CASE("files that are not results are input errors") {
  const test::TempDir folder;
  CHECK_THROWS_AS(open_results({folder / "none.json"}), Error);
  CHECK_THROWS_WITH(open_results({folder.path()}), Contains("results.json of a finished study"));
  const std::string text = test::full_document().dump();
  for (size_t length = 0; length < text.size(); length += 97) {
    write_file(folder / "cut.json", text.substr(0, length));
    CHECK_THROWS_WITH(open_results({folder / "cut.json"}),
                      Contains("cut.json") && Contains("JSON"));
  }
  write_file(folder / "bits.json", "{\"rows\": [\"\xff\xfe\"]}");
  CHECK_THROWS_AS(open_results({folder / "bits.json"}), Error);
}

TEST_CASE("rows of other shapes are input errors wherever they enter") {
  const test::TempDir folder;
  for (const char* rows : {"[1]", "[{}]", "[{\"kind\": 1}]", "{}", "[null]", "[[]]"}) {
    write_file(folder / "odd.json", "{\"rows\": " + std::string(rows) + "}");
    CHECK_THROWS_AS(open_results({folder / "odd.json"}), Error);
    CHECK_THROWS_AS(merge_rows({{folder / "odd.json", "label", "test"}}), Error);
  }
  Json document = test::full_document();
  document["rows"][0] = {{"kind", "study"}, {"name", 3}};
  CHECK_THAT(error_of(document), Contains("'name'"));
  document["rows"][0] = test::policy_row("ewma", 10, 0.3, 5, true);
  document["rows"][0]["parameters"] = 7;
  CHECK_THAT(error_of(document), Contains("parameters"));
}

TEST_CASE("several files make one set of results") {
  const test::TempDir folder;
  write_file(folder / "run.json", test::document_of(test::policy_rows(true)).dump());
  write_file(folder / "replay.json", test::document_of(test::policy_rows(false)).dump());
  const Results results = open_results({folder / "run.json", folder / "replay.json"});
  REQUIRE(results.models.size() == 1);
  CHECK(compare_live(results.models[0]).holds());
}

TEST_CASE("live counters are compared with the replay's as integers") {
  ModelResults model = model_of(test::full_document());
  CHECK(compare_live(model).total == 6);
  CHECK(compare_live(model).holds());
  SECTION("one counter") {
    ++model.live[1].counters["evicted"];
    const Agreement agreement = compare_live(model);
    CHECK(agreement.equal == 5);
    REQUIRE(agreement.differences.size() == 1);
    CHECK_THAT(agreement.differences[0], Contains("ewma") && Contains("evicted live 8, replay 7"));
  }
  SECTION("a row that the replay lacks") {
    model.replayed.erase(model.replayed.begin());
    CHECK_THAT(compare_live(model).differences.at(0), Contains("no such row"));
  }
  SECTION("another trace") {
    model.live[1].trace_hash = "0000000000000000";
    CHECK_THAT(compare_live(model).differences.at(0), Contains("replayed on trace"));
  }
  SECTION("other parameters are another policy") {
    model.live[1].parameters = "halflife=65";
    CHECK_FALSE(compare_live(model).holds());
  }
  SECTION("nothing to compare does not count as agreement") {
    model.live.clear();
    CHECK_FALSE(compare_live(model).holds());
  }
}

TEST_CASE("CSV holds the policy rows, flattened and quoted") {
  Json rows = Json::array({test::policy_row("fixed", 10, 0.3, 50, false), test::run_row("x")});
  rows[0]["parameters"] = "a=1,\"b\"";
  const std::string csv = csv_of(rows);
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 2);
  CHECK_THAT(csv, Contains("tpot_ms_p95") && Contains("counters_hits") &&
                      Contains("\"a=1,\"\"b\"\"\"") && Contains(",300000,"));
}

TEST_CASE("text from data is escaped") {
  CHECK(escape_html("<script>&\"'") == "&lt;script&gt;&amp;&quot;&#39;");
  CHECK(escape_html(std::string_view("a\0b", 3)) ==
        "a\xEF\xBF\xBD"
        "b");
  const std::string script = plot_script({"x", "y", {{"a\"`date`\n'", {{1, 2}}}}});
  CHECK_THAT(script, !Contains("`") && !Contains("\"a\""));
}

// Every string of the rows replaced by markup that must not get through.
Json poisoned(Json document) {
  const std::string poison = "</style><script>alert(\"1\")</script>&'\x01";
  for (Json& row : document["rows"]) {
    for (const char* key : {"label", "model", "weights", "weight_hash", "trace_hash", "layout",
                            "prompts", "parameters"}) {
      if (row.contains(key)) row[key] = poison;
    }
    if (row["kind"] == "policy" && row["policy"] == "ewma") row["policy"] = poison;
  }
  document["machine"]["cpu"] = poison;
  document["version"] = poison;
  return document;
}

TEST_CASE("the report is well formed, self-contained and free of what data brings") {
  const bool poison = GENERATE(false, true);
  const Json document = poison ? poisoned(test::full_document()) : test::full_document();
  const Report report = make_report(parse_results(document, "r.json"));
  CHECK_THAT(report.html, !Contains("<script"));
  const test::TempDir folder;
  write_file(folder / "report.html", report.html);
  const test::CommandResult parsed = test::run_command(
      "python3 -c \"import sys, xml.dom.minidom as m, re\n"
      "text = open(sys.argv[1], encoding='utf-8').read()\n"
      "m.parseString(text.replace('<!DOCTYPE html>', ''))\n"
      "bare = re.sub(r'xmlns(:xlink)?=.http://www.w3.org/[a-z0-9/]*.', '', text)\n"
      "bad = re.findall(r'https?://|url\\(|@import|<link|<img|<iframe| src=', bare)\n"
      "print('bad:', bad)\" '" +
      folder / "report.html'");
  INFO(parsed.output);
  CHECK(parsed.exit_code == 0);
  CHECK_THAT(parsed.output, Contains("bad: []"));
}

TEST_CASE("the report shows answer, tables, plots, evidence and making") {
  const Results results = parse_results(test::full_document(), "r.json");
  const Report report = make_report(results);
  CHECK_THAT(report.html, Contains("ewma has the higher hit ratio at 10 and 20\u00a0%"));
  CHECK_THAT(report.html, Contains("The weights are synthetic"));
  CHECK_THAT(report.html, Contains("live = replay") && Contains("6 of 6"));
  CHECK_THAT(report.html, Contains("<strong>35.0 %</strong>") && Contains("-5.0 points"));
  CHECK_THAT(report.html, Contains("predicted over executed is 0.95 (0.93 for reading weights"));
  CHECK_THAT(report.html, Contains("on pc-test (published figures)"));
  CHECK_THAT(report.html, Contains("30.0 ms *") && !Contains("50.0 ms *"));
  CHECK_THAT(report.html, Contains("89\u00a0% of the 22.4\u00a0GB/s"));
  CHECK_THAT(report.html, Contains("fedcba9876543210") && Contains("halflife=64"));
  CHECK(report.html == make_report(results).html);  // the same rows, the same bytes
  if (find_program("gnuplot").empty()) {
    WARN("no gnuplot here: plots not looked at");
    return;
  }
  CHECK(report.problems.empty());
  CHECK_THAT(report.html, Contains("<svg") && Contains("m0h_gpPt") && Contains("m0t_gpPt"));
}

TEST_CASE("without gnuplot there is a report with a note in place of each plot") {
  const NoPrograms no_programs;
  const Report report = make_report(parse_results(test::full_document(), "r.json"));
  REQUIRE(report.problems.size() == 1);
  CHECK_THAT(report.problems[0], Contains("gnuplot is not installed"));
  CHECK_THAT(report.html, !Contains("<svg") && Contains("gnuplot is not installed"));
}

TEST_CASE("results without executions or times make a report too") {
  Json document = test::document_of(test::policy_rows(false));
  for (Json& row : document["rows"]) row.erase("tpot_ms");
  const Report report = make_report(parse_results(document, "r.json"));
  CHECK_THAT(report.html, Contains("No time was modelled") && Contains("no row has these values"));
}

}  // namespace
}  // namespace thermocline
