// Reads Prometheus' text exposition format as strictly as its description is: each family has its
// help, its type and then its samples, together and once.
//
// Non-goals: histograms, timestamps, comments of other kinds: we write none.
// Thread-safety: none needed.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <map>
#include <regex>
#include <string>

#include "models/text.h"

namespace thermocline::test {

struct Exposition {
  std::map<std::string, std::string> types;    // by family
  std::map<std::string, std::string> samples;  // "name{labels}" as written: value as written

  double value(const std::string& name, const std::string& labels = "") const {
    const auto found = samples.find(labels.empty() ? name : name + "{" + labels + "}");
    INFO(name << "{" << labels << "}");
    REQUIRE(found != samples.end());
    return std::strtod(found->second.c_str(), nullptr);
  }
};

inline Exposition read_exposition(const std::string& text) {
  static const std::regex help("# HELP ([a-z_]+) [^\n]+");
  static const std::regex type("# TYPE ([a-z_]+) (counter|gauge)");
  static const std::regex sample(
      R"(([a-z_]+)(\{[a-z_]+="([^"\\]|\\["\\n])*"(,[a-z_]+="([^"\\]|\\["\\n])*")*\})? (\S+))");
  static const std::regex number(R"(\d+|-?\d+(\.\d+)?(e[+-]\d+)?|\+Inf|-Inf|NaN)");
  Exposition read;
  std::string helped, family;
  REQUIRE(text.ends_with('\n'));
  for (const std::string_view line_text :
       split(std::string_view(text).substr(0, text.size() - 1), '\n')) {
    const std::string line(line_text);
    INFO(line);
    std::smatch match;
    if (std::regex_match(line, match, help)) {
      helped = match[1];
      CHECK(read.types.count(helped) == 0);
    } else if (std::regex_match(line, match, type)) {
      family = match[1];
      CHECK(family == helped);
      read.types[family] = match[2];
    } else {
      REQUIRE(std::regex_match(line, match, sample));
      CHECK(match[1] == family);
      CHECK(std::regex_match(match[6].str(), number));
      CHECK(read.samples.emplace(match[1].str() + match[2].str(), match[6]).second);
    }
  }
  return read;
}

}  // namespace thermocline::test
