// JSON that other programs write: what is refused, and what Errors say.
#include "models/json_reader.h"

#include <fmt/format.h>

#include <catch2/catch.hpp>

#include "tests/models/parse_bytes.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

nlohmann::json parse(const std::string& text, uint64_t offset = 0) {
  return parse_json(std::as_bytes(std::span(text)), "FILE", offset);
}

std::string refusal(const std::string& text) {
  return input_error([&] { parse(text); });
}

std::string repeated(const std::string& text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

// `count` elements and a 0.
std::string array_of(const std::string& element, size_t count) {
  return std::string("[").append(repeated(element + ",", count)).append("0]");
}

}  // namespace

TEST_CASE("JSON values of every kind arrive as they are written") {
  const auto value =
      parse(R"( {"a": [1, -2, 2.5, true, null, "é\n\u0000", {}, []], "b": {"c": 3}} )");
  REQUIRE(value.at("a").size() == 8);
  CHECK(value["a"][0] == 1u);
  CHECK(value["a"][1] == -2);
  CHECK(value["a"][2] == 2.5);
  CHECK(value["a"][3] == true);
  CHECK(value["a"][4].is_null());
  CHECK(value["a"][5] == std::string("é\n\0", 4));
  CHECK(value["a"][6] == nlohmann::json::object());
  CHECK(value["a"][7] == nlohmann::json::array());
  CHECK(value["b"]["c"] == 3);
  CHECK(parse("18446744073709551615") == UINT64_MAX);
}

TEST_CASE("what is not JSON is refused where it stops being so") {
  CHECK_THAT(refusal(R"({"a": 1, "b" 2})"), Contains("FILE at byte 14: expected JSON"));
  CHECK_THAT(refusal(""), Contains("FILE at byte 0: expected JSON"));
  for (const char* text : {"{", "[1,]", "{\"a\":1} x", "nul", "'a'", "[1 // one\n]", "\"\xff\"",
                           "NaN", "1e999", "\"\\ud800\"", "{1: 2}"}) {
    INFO(text);
    CHECK_THAT(refusal(text), Contains("expected JSON"));
  }
  CHECK_THAT(input_error([] { parse("[1,", 1000); }), Contains("FILE at byte 1003"));
  CHECK(refusal(std::string(1, '"').append(100000, 'x')).size() < 300);
}

TEST_CASE("a cut JSON text is refused at every byte") {
  check_truncations(R"({"a": [1, 2.5, "x\u00e9"], "b": {"c": null}})",
                    [](const std::string& text) { parse(text); });
}

TEST_CASE("a key that comes twice in an object is refused") {
  CHECK_THAT(refusal(R"({"a": 1, "b": {"a": 2}, "a": 3})"),
             Contains("FILE at byte 27") && Contains("'a' again"));
  CHECK_THAT(refusal(R"([{"x": 1, "\u0078": 2}])"), Contains("'x' again"));
  const std::string key(5000, 'k');
  CHECK(refusal(fmt::format(R"({{"{0}": 1, "{0}": 2}})", key)).size() < 300);
}

TEST_CASE("depth is bounded") {
  const auto nested = [](size_t depth) { return repeated("[", depth) + repeated("]", depth); };
  CHECK(parse(nested(kJsonDepthMax)).is_array());
  CHECK_THAT(refusal(nested(kJsonDepthMax + 1)), Contains("at most 64 deep"));
  CHECK_THAT(refusal(repeated("[", 1000000)), Contains("at most 64 deep"));
  CHECK_THAT(refusal(repeated("{\"a\":", 1000000)), Contains("at most 64 deep"));
}

TEST_CASE("memory is a small multiple of the file's size") {
  CHECK_THAT(refusal(array_of("{}", 500000)), Contains("at most 16 bytes in memory"));
  CHECK_THAT(refusal(array_of("0", 500000)), Contains("at most 16 bytes in memory"));
  CHECK(parse(array_of("0", 10000)).size() == 10001);  // the first MiB is free
  CHECK(parse(array_of("\"a piece\"", 500000)).size() == 500001);
}

TEST_CASE("fields are read by type, and Errors say which") {
  const auto value = parse(R"({"n": 3, "x": 0.5, "t": "text", "b": true, "z": null, "a": [7, -1],)"
                           R"("o": {"p": {"q": "r"}}})");
  const JsonView view(value, "FILE");
  CHECK(view.at("n").count() == 3);
  CHECK(view.at("n").number() == 3.0);
  CHECK(view.at("x").number() == 0.5);
  CHECK(view.at("t").text() == "text");
  CHECK(view.at("b").flag());
  CHECK(view.at("a").size() == 2);
  CHECK(view.at("a").at(0).count() == 7);
  CHECK(view.at("o").at("p").at("q").text() == "r");
  CHECK_FALSE(view.find("z").has_value());
  CHECK_FALSE(view.find("nothing").has_value());

  const auto error = [&](auto action) { return input_error([&] { action(); }); };
  CHECK_THAT(error([&] { view.at("z"); }), Contains("FILE: expected the field z, found no such"));
  CHECK_THAT(error([&] { view.at("o").at("p").at("q").number(); }),
             Contains("FILE: o.p.q: expected a number, found \"r\""));
  CHECK_THAT(error([&] { view.at("a").at(1).count(); }),
             Contains("FILE: a[1]: expected an integer from 0 on, found -1"));
  CHECK_THAT(error([&] { view.at("x").count(); }), Contains("found 0.5"));
  CHECK_THAT(error([&] { view.at("n").flag(); }), Contains("expected true or false, found 3"));
  CHECK_THAT(error([&] { view.at("a").text(); }), Contains("expected a text, found array"));
  CHECK_THAT(error([&] { view.at("a").find("p"); }), Contains("expected an object, found array"));
  CHECK_THAT(error([&] { view.at("o").size(); }), Contains("expected an array, found object"));
}

}  // namespace thermocline::test
