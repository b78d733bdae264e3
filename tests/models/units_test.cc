// Units: every accepted form, every rejected one, and budgets that are exact.
#include "models/units.h"

#include <catch2/catch.hpp>

#include "models/shape.h"
#include "tests/models/failures.h"

namespace thermocline::test {
namespace {

using Catch::Contains;

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST_CASE("bytes are read with every unit") {
  const struct {
    const char* text;
    uint64_t bytes;
  } cases[] = {
      {"0", 0},
      {"4096", 4096},
      {"7B", 7},
      {"4kB", 4000},
      {"4KB", 4000},
      {"10MB", 10'000'000},
      {"3GB", 3'000'000'000},
      {"2TB", 2'000'000'000'000},
      {"4KiB", 4096},
      {"5MiB", 5 << 20},
      {"1.5GiB", 3 * kGiB / 2},
      {"1.50 GiB", 3 * kGiB / 2},
      {"1TiB", kGiB * 1024},
      {"0.1GiB", 107374182},  // 107374182.4
      {"0.3KiB", 307},        // 307.2
      {"1.000000001GB", 1'000'000'001},
      {"18446744073709551615", UINT64_MAX},
      {"16777215TiB", 16777215 * (kGiB * 1024)},
  };
  for (const auto& c : cases) {
    INFO(c.text);
    CHECK(parse_bytes(c.text) == c.bytes);
  }
}

TEST_CASE("what is not bytes is a usage error that names the text") {
  const char* const cases[] = {"",
                               " ",
                               "x",
                               "-1",
                               "+1",
                               "1e9",
                               "GiB",
                               ".5GiB",
                               "5.GiB",
                               "1..2GiB",
                               "1.5",
                               "1.5B",
                               "4 ",
                               "4  KiB",
                               "4gib",
                               "4G",
                               "0x10",
                               "nan",
                               "inf",
                               "1,5GB",
                               "4KiB ",
                               "18446744073709551616",
                               "16777216TiB",
                               "99999999999999999999999TiB",
                               "1.0000000001GB"};
  for (const char* text : cases) {
    INFO(text);
    const Failure failure = failure_of([text] { parse_bytes(text); });
    CHECK(failure.kind == ErrorKind::usage);
  }
  CHECK_THAT(failure_of([] { parse_bytes("12 bananas"); }).message, Contains("'bananas'"));
  CHECK_THAT(failure_of([] { parse_bytes("4gib"); }).message, Contains("did you mean 'GiB'?"));
  CHECK_THAT(failure_of([] { parse_bytes("-3"); }).message,
             Contains("expected bytes such as") && Contains("'-3'"));
}

TEST_CASE("a text with a zero byte inside is no number") {
  CHECK(failure_of([] { parse_bytes(std::string_view("4\0KiB", 5)); }).kind == ErrorKind::usage);
  CHECK(failure_of([] { parse_count(std::string_view("4\0", 2)); }).kind == ErrorKind::usage);
}

TEST_CASE("rates are bytes with /s") {
  CHECK(parse_bytes_per_second("42GB/s") == 42e9);
  CHECK(parse_bytes_per_second("1.5GiB/s") == 1.5 * static_cast<double>(kGiB));
  CHECK(parse_bytes_per_second("100/s") == 100);
  for (const char* text : {"42GB", "42GB/", "/s", "0GB/s", "42GB/h", "-1GB/s", "GB/s"}) {
    INFO(text);
    CHECK(failure_of([text] { parse_bytes_per_second(text); }).kind == ErrorKind::usage);
  }
}

TEST_CASE("counts are whole decimals, numbers finite ones") {
  CHECK(parse_count("0") == 0);
  CHECK(parse_count("18446744073709551615") == UINT64_MAX);
  for (const char* text :
       {"", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "ten", "18446744073709551616"}) {
    INFO(text);
    CHECK(failure_of([text] { parse_count(text); }).kind == ErrorKind::usage);
  }
  CHECK(parse_number("-0.5") == -0.5);
  CHECK(parse_number("1e-3") == 1e-3);
  for (const char* text : {"", "nan", "inf", "-inf", "1e999", "1,5", "0.5x", " 1", "--1"}) {
    INFO(text);
    CHECK(failure_of([text] { parse_number(text); }).kind == ErrorKind::usage);
  }
}

TEST_CASE("bytes are written in the largest unit that fits") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1.00 KiB");
  CHECK(format_bytes(3 * kGiB / 2) == "1.50 GiB");
  CHECK(format_bytes((1 << 20) - 1) == "1.00 MiB");  // not "1024.00 KiB"
  CHECK(format_bytes(UINT64_MAX) == "16.00 EiB");
}

TEST_CASE("what format_bytes writes, parse_bytes reads to the printed precision") {
  for (uint64_t bytes = 1; bytes < kGiB * 1000; bytes = bytes * 3 + 7) {
    const auto read = static_cast<double>(parse_bytes(format_bytes(bytes)));
    INFO(format_bytes(bytes));
    CHECK(read == Approx(static_cast<double>(bytes)).epsilon(0.005));
  }
}

const ModelShape& large() { return shape_preset("relullama-70b").shape; }

std::vector<uint64_t> budgets(std::string_view text) {
  return parse_budgets(text, ffn_bytes(large(), DType::q4_0), bundle_bytes(large(), DType::q4_0));
}

Failure budget_failure(std::string_view text) {
  return failure_of([text] { budgets(text); });
}

TEST_CASE("budgets are bytes, percentages, ranges and lists of them") {
  const uint64_t full = ffn_bytes(large(), DType::q4_0);
  REQUIRE(full == 31'708'938'240);
  CHECK(budgets("4GiB") == std::vector<uint64_t>{4 * kGiB});
  CHECK(budgets("10%") == std::vector<uint64_t>{3'170'893'824});
  CHECK(budgets("100%") == std::vector<uint64_t>{full});
  CHECK(budgets("12.5%") == std::vector<uint64_t>{full / 8});
  CHECK(budgets("4GiB..16GiB/4GiB") ==
        std::vector<uint64_t>{4 * kGiB, 8 * kGiB, 12 * kGiB, 16 * kGiB});
  CHECK(budgets("4GiB..15GiB/4GiB") == std::vector<uint64_t>{4 * kGiB, 8 * kGiB, 12 * kGiB});
  CHECK(budgets("8GiB..8GiB/1GiB") == std::vector<uint64_t>{8 * kGiB});
  CHECK(budgets("13824") == std::vector<uint64_t>{13824});
}

TEST_CASE("budgets come ascending and once, and a range meets the same percentages") {
  CHECK(budgets("auto") == budgets("10%..90%/20%"));
  CHECK(budgets("90%,10%,70%,30%,50%,30%") == budgets("auto"));
  CHECK(budgets("auto,30%,50%..90%/10%").size() == 7);
  // Thirds of a percent have no binary form; each is still the same budget however it is written.
  CHECK(budgets("0.1%..0.9%/0.1%") == budgets("0.9%,0.8%,0.7%,0.6%,0.5%,0.4%,0.3%,0.2%,0.1%"));
  CHECK(budgets("10%..4GiB/1GiB").size() == 2);
}

TEST_CASE("budgets outside the model or out of order are usage errors") {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {"13823", "at least one bundle (13824 bytes)"},
      {"0", "at least one bundle"},
      {"0%", "at least one bundle"},
      {"30GiB", "29.53 GiB"},
      {"101%", "within all the FFN bundles"},
      {"100.000001%", "within all the FFN bundles"},
      {"999999999999999999%", "at most 100%"},
      {"4GiB..40GiB/4GiB", "within all the FFN bundles"},
      {"0..8GiB/4GiB", "at least one bundle"},
      {"8GiB..4GiB/1GiB", "FROM is above TO"},
      {"4GiB..8GiB/0", "STEP is zero"},
      {"10%..50%/0%", "STEP is zero"},
      {"4GiB..8GiB", "no /STEP"},
      {"1MiB..20GiB/1KiB", "at most 10000 budgets"},
      {"", "expected a budget"},
      {"10%,", "expected a budget"},
      {",10%", "expected a budget"},
      {"%", "expected a budget"},
      {"..", "no /STEP"},
      {"../", "expected a budget"},
      {"10%%", "expected a budget"},
      {"10 %", "expected a budget"},
      {"-10%", "expected a budget"},
      {"4GiB...8GiB/1GiB", "expected a budget"},
      {"Auto", "expected a budget"},
      {"4Gib", "did you mean 'GiB'?"},
  };
  for (const auto& c : cases) {
    INFO(c.text);
    const Failure failure = budget_failure(c.text);
    CHECK(failure.kind == ErrorKind::usage);
    CHECK_THAT(failure.message, Contains(c.says));
  }
}

}  // namespace
}  // namespace thermocline::test
