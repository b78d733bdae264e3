// Stop strings: found wherever pieces of text end, and nothing of them ever certain too early.
#include "runtime/stop_strings.h"

#include <catch2/catch.hpp>
#include <random>

#include "models/error.h"

namespace thermocline::test {
namespace {

using Strings = std::vector<std::string>;

std::string made_of(std::mt19937& random, size_t size, const std::string& letters) {
  std::string text;
  while (text.size() < size) text += letters[random() % letters.size()];
  return text;
}

// The text in front of the first stop string, looked for from the start after every piece.
std::string cut_plainly(const Strings& stops, const Strings& pieces) {
  std::string text;
  for (const std::string& piece : pieces) {
    text += piece;
    size_t end = std::string::npos;
    for (const std::string& stop : stops) end = std::min(end, text.find(stop));
    if (end != std::string::npos) return text.substr(0, end);
  }
  return text;
}

TEST_CASE("escapes are those that the help names, and others are refused") {
  CHECK(parse_stop_string("[DONE]") == "[DONE]");
  CHECK(parse_stop_string("\\nclass") == "\nclass");
  CHECK(parse_stop_string("\\t\\\\n") == "\t\\n");
  CHECK(parse_stop_string("\xc3\xa9") == "\xc3\xa9");
  for (const char* bad : {"\\", "a\\", "\\x", "\\N", "\xff"}) {
    CHECK_THROWS_WITH(parse_stop_string(bad), Catch::Contains("--stop"));
  }
}

TEST_CASE("a stop string is found however pieces cut it") {
  const Strings stops = {"\nassert", "[DONE]"};
  const std::string whole = "def f():\n  return 1\n[DONE]\nassert";
  for (size_t width = 1; width <= whole.size(); ++width) {
    StopText text(stops);
    size_t at = 0;
    while (!text.stopped() && at < whole.size()) {
      text.add(whole.substr(at, width));
      at += width;
    }
    INFO(width);
    CHECK(text.stopped());
    CHECK(text.text() == "def f():\n  return 1\n");
    CHECK(at < 27 + width);  // as soon as it was there
    CHECK(text.add("more"));
    CHECK(text.text() == "def f():\n  return 1\n");
  }
}

TEST_CASE("a character may be cut too") {
  const Strings stops = {"\xc3\xa9"};
  StopText text(stops);
  CHECK(!text.add("a\xc3"));
  CHECK(text.certain_size() == 1);
  CHECK(!text.add("\xa8\xc3"));  // another character, and the beginning of one more
  CHECK(text.certain_size() == 3);
  CHECK(text.add("\xa9"));
  CHECK(text.text() == "a\xc3\xa8");
}

TEST_CASE("of two stop strings in one piece the one that begins first ends the text") {
  const Strings stops = {"cd", "bcde"};
  StopText text(stops);
  CHECK(text.add("abcdef"));
  CHECK(text.text() == "a");
}

TEST_CASE("without stop strings everything is certain") {
  StopText text;
  CHECK(!text.add("\n[DONE]"));
  CHECK(text.certain_size() == 7);
  CHECK(text.text() == "\n[DONE]");
}

TEST_CASE(
    "random texts are cut as a search from the start would, and certainty is never taken back") {
  std::mt19937 random(17);
  for (int round = 0; round < 3000; ++round) {
    Strings stops;
    for (size_t i = 1 + random() % 3; i > 0; --i) {
      stops.push_back(made_of(random, 1 + random() % 5, "ab"));
    }
    Strings pieces;
    for (size_t i = random() % 20; i > 0; --i) {
      pieces.push_back(made_of(random, random() % 4, "abc"));
    }
    StopText text(stops);
    const std::string expected = cut_plainly(stops, pieces);
    for (const std::string& piece : pieces) {
      text.add(piece);
      const size_t certain = text.certain_size();
      REQUIRE(certain <= expected.size());
      REQUIRE(text.text().substr(0, certain) == expected.substr(0, certain));
    }
    REQUIRE(text.text() == expected);
  }
}

TEST_CASE("what a task decoded ends at a stop token, at a stop string or at its length") {
  const auto tokenizer = make_byte_tokenizer();
  const StopRule rule{{tokenizer->eos_id()}, {"[DONE]"}, tokenizer.get()};
  auto tokens = tokenizer->encode("x\n[DONE]");
  const auto decoded = [&] { return decoded_text(rule, tokenizer->bos_id(), tokens); };
  CHECK(decoded().text == "x\n");
  CHECK(decoded().finish == Finish::stop);
  tokens.pop_back();
  CHECK(decoded().text == "x\n[DONE");
  CHECK(decoded().finish == Finish::length);
  tokens.push_back(tokenizer->eos_id());
  CHECK(decoded().text == "x\n[DONE");
  CHECK(name_of(decoded().finish) == "eos");
}

TEST_CASE("MBPP's texts end where the prompt's form and its harness end them") {
  const auto stops = mbpp_stop_strings();
  for (const char* stop : {"[DONE]", "\nclass", "\nassert", "\n\"\"\"", "\nprint", "\nif"}) {
    CHECK(std::count(stops.begin(), stops.end(), stop) == 1);
  }
}

}  // namespace
}  // namespace thermocline::test
