// Splitting text into words: Llama-3's expression, foreign syntax, hostile expressions and bytes.
#include "models/pre_tokenizer.h"

#include <catch2/catch.hpp>
#include <chrono>

#include "tests/models/parse_bytes.h"
#include "tests/models/small_tokenizers.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Patterns = std::vector<std::string>;

std::string words_of(const Patterns& patterns, const std::string& text) {
  std::string words;
  for (const std::string_view word : PreTokenizer(patterns, "FILE").split(text)) {
    words += '|' + std::string(word);
  }
  return words;
}

}  // namespace

TEST_CASE("Llama-3's expression splits words, numbers, signs and blanks") {
  const auto words = [](const std::string& text) { return words_of({kLlama3Pattern}, text); };
  CHECK(words("def add(a, b):\n    return a+b\n") == "|def| add|(a|,| b|):\n|   | return| a|+b|\n");
  CHECK(words("I'LL don't 12345 x  \n\n y") == "|I|'LL| don|'t| |123|45| x|  \n\n| y");
  CHECK(words("'\u017f \u0663\u0664\u0665\u0666") == "|'\u017f| |\u0663\u0664\u0665|\u0666");
  CHECK(words("a\u180e\u3000b") == "|a|\u180e|\u3000b");
  CHECK(words("") == "");
}

TEST_CASE("expressions work one after the other, and keep what lies between matches") {
  CHECK(words_of({}, "a b") == "|a b");
  CHECK(words_of({"b+"}, "abba bc") == "|a|bb|a |b|c");
  CHECK(words_of({" ?[a-z0-9]+", "[0-9]"}, "ab12 c3") == "|ab|1|2| c|3");
}

TEST_CASE("bytes that are no UTF-8 are words of their own") {
  CHECK(words_of({kLlama3Pattern},
                 "ab\xff\xfe"
                 "cd \xc3") == "|ab|\xff\xfe|cd| |\xc3");
  CHECK(words_of({kLlama3Pattern}, "\xed\xa0\x80") == "|\xed\xa0\x80");
  CHECK(words_of({"[^a]+"},
                 "b\x80"
                 "b") == "|b|\x80|b");
}

TEST_CASE("syntax that has another meaning in the other library is refused by name") {
  const char* foreign[] = {"^a",    "a$",      ".",           "\\w+",   "\\bx",    "\\h",
                           "\\Ka",  "(?<=a)b", "(?<n>a)",     "(?R)",   "(*UCP)a", "a{,3}",
                           "a{2}+", "a{x}",    "[[:alpha:]]", "[a&&b]", "[]a]",    "\\p{Han}",
                           "\\p{L", "\\pL",    "\\p{^L}",     "\\1",    "\\",      "a{2",
                           "\\x41", "(?x)a",   "\\p{}",       "\\p"};
  for (const char* pattern : foreign) {
    INFO(pattern);
    CHECK_THAT(input_error([&] { words_of({pattern}, "a"); }),
               Catch::StartsWith("FILE: expression") && Contains("Oniguruma and PCRE2"));
  }
}

TEST_CASE("what is no expression, or matches nothing, or is huge is refused") {
  for (const char* pattern : {"(a", "a)", "[a", "*a", "[z-a]", "a{3,2}", "a{99999999}"}) {
    INFO(pattern);
    CHECK_THAT(input_error([&] { words_of({pattern}, "a"); }), Catch::StartsWith("FILE"));
  }
  for (const char* pattern : {"", "a*", "a|", "(?!a)", "(?=a)"}) {
    INFO(pattern);
    CHECK_THAT(input_error([&] { words_of({pattern}, "a"); }), Contains("none at all"));
  }
  CHECK_THAT(input_error([&] { words_of({std::string(5000, 'a')}, "a"); }), Contains("4096"));
}

TEST_CASE("expressions that backtrack without end are stopped, long texts are not") {
  const auto start = std::chrono::steady_clock::now();
  const std::string bait = std::string(40000, 'a') + "!b";
  for (const char* pattern : {"(a+)+b", "(a|a)+b", "(?:a|aa)+b", "(?:(?:a+)+)+b"}) {
    INFO(pattern);
    CHECK_THAT(input_error([&] { words_of({pattern}, bait); }), Contains("steps"));
  }
  const PreTokenizer llama3({kLlama3Pattern}, "FILE");
  for (const char* part : {" ", "a", "\n", "1", "'", " \n", "\u3000", "a ", "\xff",
                           "\xff"
                           "a"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += part;
    size_t bytes = 0;
    for (const std::string_view word : llama3.split(text + "x")) bytes += word.size();
    CHECK(bytes == text.size() + 1);
  }
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
}

}  // namespace thermocline::test
