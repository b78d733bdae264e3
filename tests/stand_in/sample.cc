// Tests that pass and tests that fail, compiled with the stand-in for Catch2 in every build: ctest
// compares what it prints with what it should (tests/CMakeLists.txt).
#include <catch2/catch.hpp>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

TEST_CASE("four assertions fail, each with its values and messages", "[fails]") {
  const int rows = 3;
  INFO("so many: " << rows);
  CAPTURE(rows, rows + 1);
  const std::vector<int> a = {1, 2}, b = {1, 3};
  CHECK(a == b);
  CHECK_FALSE(rows == 3);
  CHECK(rows == Approx(3.1));
  CHECK(rows == Approx(3.0));
  CHECK_THROWS_WITH(throw std::runtime_error("a bad thing"), Catch::Contains("bad"));
  CHECK_THROWS_AS(throw std::runtime_error("a bad thing"), std::runtime_error);
  CHECK_NOTHROW(rows + 1);
  REQUIRE_THAT("abc", Catch::StartsWith("b"));
  CHECK(false);  // not reached
}

TEST_CASE("an exception leaves", "[fails]") { throw std::runtime_error("left"); }

TEST_CASE("sections run one path at a time, for each generated value", "[sections]") {
  const int i = GENERATE(1, 2);
  std::string path = std::to_string(i);
  SECTION("a") {
    path += "a";
    SECTION("a1") {
      path += "x";
      std::printf("(%s)", path.c_str());
      REQUIRE(i == 1);
    }
    SECTION("a2") path += "y";
  }
  SECTION("b") path += "b";
  std::printf("(%s)", path.c_str());
}

TEST_CASE("good", "[good]") {
  REQUIRE(1 + 1 == 2);
  SUCCEED("fine");
}
