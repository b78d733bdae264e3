#include "models/text.h"

#include <catch2/catch.hpp>

namespace thermocline {
namespace {

using Parts = std::vector<std::string_view>;

TEST_CASE("splitting keeps every part, also the empty ones") {
  CHECK(split("", ',') == Parts{""});
  CHECK(split("a", ',') == Parts{"a"});
  CHECK(split("a,b", ',') == Parts{"a", "b"});
  CHECK(split(",a,,", ',') == Parts{"", "a", "", ""});
}

TEST_CASE("replacing goes from left to right and never looks at what it wrote") {
  CHECK(replaced("", "a", "b").empty());
  CHECK(replaced("aaa", "aa", "b") == "ba");
  CHECK(replaced("it's", "'", "'\\''") == "it'\\''s");
  CHECK(replaced("xyx", "x", "xx") == "xxyxx");
}

}  // namespace
}  // namespace thermocline
