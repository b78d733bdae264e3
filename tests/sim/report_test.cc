#include "sim/report.h"

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <set>

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

TEST_CASE("CSV has the ends of intervals, and leaves out series") {
  const std::string csv = csv_of(Json::array({test::rich_row("ewma", 20, 0.5, 40)}));
  CHECK_THAT(csv, Contains("tpot_ci95_low,tpot_ci95_high") && Contains(",39.75,40.25,"));
  CHECK_THAT(csv, !Contains("hot_by_layer") && !Contains("threshold_by_step_values"));
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
    for (const char* key :
         {"label", "model", "weights", "weight_hash", "trace_hash", "layout", "prompts",
          "parameters", "regime", "tuned_on", "fill", "pools", "group", "versus", "cluster"}) {
      if (row.contains(key)) row[key] = poison;
    }
    if (row.contains("threshold_by_step")) row["threshold_by_step"]["task_id"] = poison;
    if (row["kind"] == "policy" && row["policy"] == "ewma") row["policy"] = poison;
  }
  document["machine"]["cpu"] = poison;
  document["version"] = poison;
  return document;
}

TEST_CASE("the report is well formed, self-contained and free of what data brings") {
  const bool poison = GENERATE(false, true), rich = GENERATE(false, true);
  const Json plain = rich ? test::rich_document() : test::full_document();
  const Json document = poison ? poisoned(plain) : plain;
  const Report report = make_report(parse_results(document, "r.json"));
  CHECK_THAT(report.html, !Contains("alert(\"1\")"));
  const test::TempDir folder;
  write_file(folder / "report.html", report.html);
  const test::CommandResult parsed = test::run_command(
      "python3 -c \"import base64, hashlib, re, sys, xml.dom.minidom as m\n"
      "text = open(sys.argv[1], encoding='utf-8').read()\n"
      "m.parseString(text.replace('<!DOCTYPE html>', ''))\n"
      "bare = re.sub(r'xmlns(:xlink)?=.http://www.w3.org/[a-z0-9/]*.', '', text)\n"
      "bad = re.findall(r'https?://|url\\(|@import|<link|<img|<iframe| src=', bare)\n"
      "print('bad:', bad)\n"
      "scripts = re.findall('<script>(.*?)</script>', text, re.S)\n"
      "hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]\n"
      "allowed = re.findall('script-src .sha256-(.*?).\\\"', text)\n"
      "print('one script, the allowed one:', len(scripts) == text.count('<script') == 1 and "
      "hashes == allowed, hashes)\" '" +
      folder / "report.html'");
  INFO(parsed.output);
  CHECK(parsed.exit_code == 0);
  CHECK_THAT(parsed.output, Contains("bad: []") && Contains("the allowed one: True"));
}

// rich_document() with the comparisons of ewma in `metric` at `percent` changed.
Json with_comparison(const std::string& metric, double percent, const Json& changes) {
  Json document = test::rich_document();
  for (Json& row : document["rows"]) {
    if (row["kind"] == "comparison" && row["policy"] == "ewma" && row["metric"] == metric &&
        row["budget_percent"] == percent) {
      row.update(changes);
    }
  }
  return document;
}

TEST_CASE("where tasks were compared, the answer gives intervals and says where fixed wins") {
  const Answer answer = answer_of(model_of(test::rich_document()));
  CHECK(answer.dynamic == "ewma");
  CHECK(answer.headline ==
        "On demo (synthetic weights, drifting activity), ewma hits 1.8 points more than fixed at "
        "20 % "
        "of the FFN (95 % interval 1.4 to 2.2, more in 80 of 100 tasks). Modelled on pc-test, a "
        "token takes "
        "1.20 ms (3.0 %) less there (95 % interval 0.60 to 1.80 ms, less in 80 of 100 tasks); but "
        "fixed is faster at 10 %, by 4.0 %.");
  REQUIRE(answer.details.size() == 3);
  CHECK(
      answer.details[0] ==
      "Hit ratio by budget: ewma is ahead at 10 and 20 % (by 1.0 to 1.8 points); the tasks cannot "
      "tell at 30 %.");
  CHECK(answer.details[1] ==
        "Time by budget: ewma is ahead at 20 % (by 3.0 %), fixed at 10 % (by 4.0 %); the tasks "
        "cannot tell at 30 %.");
  CHECK_THAT(answer.details[2], Contains("Most hits at 20 %: lru, +3.0 points against fixed") &&
                                    Contains("its token takes 5.0 % more time than fixed's."));
  CHECK_THAT(answer.caveats.back(),
             Contains("over the 100 tasks") && Contains("ewma is the best of 2 dynamic policies"));
}

TEST_CASE("a difference counts where its interval leaves out zero") {
  const auto headline = [](const Json& document) { return answer_of(model_of(document)).headline; };
  CHECK_THAT(headline(with_comparison("hit_ratio", 20, {{"ci95", {-0.001, 0.02}}})),
             Contains("ewma and fixed hit alike at 20 % of the FFN, as far as the tasks can tell "
                      "(+1.8 points; 95 % interval -0.1 to +2.0, more in 80 of 100 tasks)"));
  CHECK_THAT(headline(with_comparison("tpot_ms", 20, {{"ci95", {-2, 0.5}}})),
             Contains("a token takes both the same time there as far as the tasks can tell (95 % "
                      "interval -2.00 to +0.50 ms, less in 80 of 100 tasks); fixed is faster at 10 "
                      "%, by 4.0 %."));
  const Json worse = {
      {"difference", 1.0}, {"ci95", {0.5, 1.5}}, {"tasks_won", 9}, {"tasks_lost", 90}};
  CHECK_THAT(
      headline(with_comparison("tpot_ms", 20, worse)),
      Contains("1.00 ms (2.5 %) more there (95 % interval 0.50 to 1.50 ms, more in 90 of 100 "
               "tasks); ewma is faster at no budget."));
  const Json fewer = {
      {"difference", -0.02}, {"ci95", {-0.03, -0.01}}, {"tasks_won", 9}, {"tasks_lost", 90}};
  CHECK_THAT(
      headline(with_comparison("hit_ratio", 20, fewer)),
      Contains("ewma hits 2.0 points less than fixed at 20 % of the FFN (95 % interval 1.0 to "
               "3.0, fewer in 90 of 100 tasks)"));
}

TEST_CASE("one task has no interval, and results without times compare hits") {
  CHECK_THAT(answer_of(model_of(with_comparison("hit_ratio", 20, {{"ci95", nullptr}}))).headline,
             Contains("(more in 80 of 100 tasks, too few for an interval)"));
  Json document = test::rich_document();
  for (Json& row : document["rows"]) {
    row.erase("tpot_ms");
    if (row["kind"] == "comparison" && row["metric"] == "tpot_ms") row["kind"] = "other";
  }
  const Answer answer = answer_of(model_of(document));
  CHECK_THAT(answer.headline,
             Contains("lru hits 3.0 points more") && Contains("No time was modelled."));
  CHECK(answer.details.size() == 1);
}

TEST_CASE("fields of newer rows are read strictly, and may be missing") {
  const auto with = [](const char* key, const Json& value) {
    Json document = test::rich_document();
    document["rows"][0][key] = value;
    return error_of(document);
  };
  CHECK(with("tpot_ci95", nullptr) == "no error");
  CHECK_THAT(with("tpot_ci95", {2, 1}), Contains("[low, high]") && Contains("row 0"));
  CHECK_THAT(with("tpot_ci95", {1}), Contains("'tpot_ci95'"));
  CHECK_THAT(with("hot_by_layer", 3), Contains("a list of numbers 'hot_by_layer'"));
  CHECK_THAT(with("hot_by_layer", {"a"}), Contains("numbers in 'hot_by_layer'"));
  CHECK_THAT(with("threshold_by_step", {{"task_id", 1}}), Contains("'values'"));
  CHECK_THAT(with("batch", -4), Contains("a count 'batch'"));
  CHECK_THAT(with("regret_static", "much"), Contains("a number 'regret_static'"));
  CHECK_THAT(error_of(with_comparison("hit_ratio", 20, {{"tasks_won", -1}})),
             Contains("a count 'tasks_won'"));
  CHECK_THAT(error_of(with_comparison("hit_ratio", 20, {{"metric", "beauty"}})),
             Contains("'metric'") && Contains("beauty"));
  const ModelResults model = model_of(test::rich_document());
  CHECK(model.comparisons.size() == 12);
  CHECK(model.replayed[0].tuned_on.empty());
  CHECK(model.replayed[2].tuned_on == "0f0f0f0f0f0f0f0f");
  CHECK(model.replayed[8].thresholds->task_id == "7");
  CHECK_FALSE(model.replayed[8].thresholds->values[0]);
}

TEST_CASE("curves are of one batch, and parameters tuned for each budget make one curve") {
  Json document = test::rich_document();
  int made = 0;
  for (Json& row : document["rows"]) {
    if (row["kind"] == "policy" && row["policy"] == "ewma") {
      row["parameters"] = "halflife=" + std::to_string(++made);
    }
  }
  const ModelResults model = model_of(document);
  CHECK(batches_of(model) == std::vector<uint64_t>{1, 4});
  const std::vector<Curve> curves = curves_of(model), fours = curves_of(model, 4);
  REQUIRE(curves.size() == 4);
  CHECK(curves[1].name == "ewma");
  CHECK(curves[1].rows.size() == 3);
  CHECK(fours[1].rows[0]->batch == 4);
  CHECK_THAT(make_report(parse_results(document, "r.json")).html,
             Contains("10 %: halflife=1; 20 %: halflife=3; 30 %: halflife=5") &&
                 Contains("trace 0f0f0f0f0f0f0f0f"));
}

TEST_CASE("rows of several batches are compared with the live ones of their own") {
  ModelResults model = model_of(test::full_document());
  PolicyRow other = model.replayed.front();
  other.batch = 4;
  other.counters["hits"] += 5;
  model.replayed.push_back(other);
  CHECK(compare_live(model).holds());
}

TEST_CASE("of many policies six get a line: the baseline, and those that are best somewhere") {
  Json rows = Json::array();
  for (const double percent : {10.0, 20.0, 30.0}) {
    rows.push_back(test::policy_row("fixed", percent, 0.5, 40, false));
    for (int i = 0; i < 12; ++i) {
      const std::string name = "policy-" + std::to_string(i);
      const bool low = percent == 10;
      rows.push_back(test::policy_row(name, percent, 0.5 + (low ? 6 - i : i) * 0.01,
                                      40.0 + (low ? i - 6 : -i) * 0.1, false));
      rows.back()["moved_bytes_per_token"] = 1000;
    }
    rows.push_back(test::policy_row("oracle-static", percent, 0.9, 20, false));
  }
  const ModelResults model = model_of(test::document_of(rows));
  std::vector<Curve> curves = curves_of(model);
  choose_styles(model, curves);
  std::set<int> styles;
  for (const Curve& curve : curves) {
    if (!curve.oracle && curve.style >= 0) styles.insert(curve.style);
    if (curve.policy() == "fixed") CHECK(curve.style == 0);
    if (curve.policy() == "policy-11") CHECK(curve.style == 1);  // best at the middle
    if (curve.policy() == "policy-0") CHECK(curve.style == 2);   // best at the least
    if (curve.policy() == "policy-5") CHECK(curve.style == -1);
    if (curve.oracle) CHECK(curve.style == 0);
  }
  CHECK(styles == std::set<int>{0, 1, 2, 3, 4, 5});
  const Report report = make_report(parse_results(test::document_of(rows), "r.json"));
  CHECK_THAT(report.html, Contains("7 more in the table only") && Contains("policy-5"));
}

TEST_CASE("richer rows bring intervals, layers, thresholds and batches into the report") {
  const Results results = parse_results(test::rich_document(), "r.json");
  const Report report = make_report(results);
  CHECK_THAT(report.html, Contains("<table class=\"sortable\">") && Contains("<details>") &&
                              Contains("All policies at 20 % of the FFN"));
  CHECK_THAT(report.html, Contains(">-3.0 %<small>-4.5 to -1.5</small>"));
  CHECK_THAT(report.html, Contains("class=\"n better\"") && Contains("class=\"n worse\"") &&
                              Contains("class=\"n even\""));
  CHECK_THAT(report.html, Contains("25 % wasted") && Contains("<small>synthetic weights</small>"));
  CHECK_THAT(report.html, Contains("share of each layer that was hot, at 20 % of the FFN") &&
                              Contains("aria-label=\"mean share of each layer"));
  CHECK_THAT(report.html, Contains("Batches, at 20 %") && Contains("batch of 4"));
  CHECK_THAT(report.html, Contains("at most 32.00\u00a0MiB moved in a step, the first 64 steps"));
  CHECK_THAT(report.html, Contains("paired bootstrap, 100 tasks, 2000 resamples"));
  CHECK(report.html == make_report(results).html);
  if (find_program("gnuplot").empty()) {
    WARN("no gnuplot here: plots not looked at");
    return;
  }
  CHECK(report.problems.empty());
  CHECK_THAT(report.html, Contains("m0t_gnuplot_canvas") && Contains("m0d_gnuplot_canvas") &&
                              Contains("m0h_gnuplot_canvas") && Contains("m0s_gnuplot_canvas") &&
                              Contains("over the steps of task 7"));
}

TEST_CASE("plots draw intervals below the lines, and gaps where there is no value") {
  const double none = std::nan("");
  PlotLine line{"a", {{1, 2}, {2, none}, {3, 4}}};
  line.intervals = {{1.5, 2.5}, {none, none}, {none, none}};
  const std::string script = plot_script({"x", "y", {line, {"b", {{1, 3}, {3, 3}}}}});
  CHECK_THAT(script, Contains("1 2 1.5 2.5\n\n3 4\nEND"));
  const size_t bars = script.find("with vectors"), lines = script.find("with linespoints");
  REQUIRE(bars != std::string::npos);
  CHECK(bars < lines);
  CHECK(script.find("with vectors", bars + 1) == std::string::npos);
  if (!find_program("gnuplot").empty()) CHECK(draw({"x", "y", {line}}, "i").problem.empty());
}

TEST_CASE("a line that is drawn aside of its points leaves the marks of the axis where they are") {
  PlotLine left{"a", {{10, 1}, {20, 2}}}, right{"b", {{10, 3}, {20, 4}}};
  left.aside = -0.5;
  right.aside = 0.5;
  const std::string script = plot_script({"x", "y", {left, right}});
  CHECK_THAT(script, Contains("9.5 1\n19.5 2\nEND") && Contains("10.5 3\n20.5 4\nEND"));
  CHECK_THAT(script, Contains("set xtics (10, 20)"));
}

TEST_CASE("the report shows answer, tables, plots, evidence and making") {
  const Results results = parse_results(test::full_document(), "r.json");
  const Report report = make_report(results);
  CHECK_THAT(report.html, Contains("ewma has the higher hit ratio at 10 and 20\u00a0%"));
  CHECK_THAT(report.html, Contains("The weights are synthetic"));
  CHECK_THAT(report.html, Contains("live = replay") && Contains("6 of 6"));
  CHECK_THAT(report.html, Contains("<strong>35.0 %</strong>") && Contains(">5.0</td>"));
  CHECK_THAT(report.html, Contains("predicted over executed is 0.95 (0.93 for reading weights"));
  CHECK_THAT(report.html, Contains("on pc-test (published figures)"));
  CHECK_THAT(report.html, Contains("30.0 ms *") && !Contains("50.0 ms *"));
  CHECK_THAT(report.html, Contains("89\u00a0% of the 22.4\u00a0GB/s"));
  CHECK_THAT(report.html, Contains("fedcba9876543210") && Contains("halflife=64"));
  CHECK(report.html == make_report(results).html);           // the same rows, the same bytes
  CHECK_THAT(report.html, !Contains("against fixed</th>"));  // nothing was compared by task
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
