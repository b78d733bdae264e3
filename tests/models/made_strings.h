// The strings of tests/oracles/make_tokenizers.py: code, prose, random Unicode, scripts, blanks.
//
// Made from a counter and from tests/oracles/tokenizers/strings.json, so that the Python script and
// this make the same ones and only a hash of each one's ids is committed.
// Thread-safety: const after construction.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/cli.h"

namespace thermocline::test {

inline std::string oracle_file(const std::string& name) {
  return std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/tokenizers/" + name;
}

// A Unicode character as UTF-8.
inline std::string utf8_of(uint32_t code) {
  const auto tail = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 63)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xc0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0 | code >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | code >> 18), tail(12), tail(6), tail(0)};
}

class MadeStrings {
 public:
  using Ranges = std::vector<std::array<uint32_t, 2>>;  // first, last

  MadeStrings() {
    const auto parts = nlohmann::json::parse(read_file(oracle_file("strings.json")));
    parts.at("code").get_to(code_);
    parts.at("prose").get_to(prose_);
    parts.at("marks").get_to(marks_);
    parts.at("blanks").get_to(blanks_);
    parts.at("ranges").get_to(ranges_);
    parts.at("skip").get_to(skip_);
  }

  std::string make(uint64_t seed, uint64_t index) const {
    using Kind = std::string (MadeStrings::*)(Draws) const;
    constexpr Kind kKinds[] = {&MadeStrings::code, &MadeStrings::prose,
                               &MadeStrings::unicode_points, &MadeStrings::scripts,
                               &MadeStrings::blanks};
    return (this->*kKinds[index % std::size(kKinds)])(Draws(seed, index));
  }

 private:
  class Draws {  // SplitMix64 of (seed, string, draw)
   public:
    Draws(uint64_t seed, uint64_t index) : state_((seed << 48) + (index << 20)) {}
    uint32_t below(uint64_t n) {
      uint64_t x = state_++ * 0x9E3779B97F4A7C15ull;
      x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
      x = (x ^ x >> 27) * 0x94D049BB133111EBull;
      return static_cast<uint32_t>(((x ^ x >> 31) >> 11) % n);
    }
    const std::string& of(const std::vector<std::string>& list) { return list[below(list.size())]; }

   private:
    uint64_t state_;
  };

  std::string code(Draws draws) const {
    std::string text;
    const uint32_t line_count = 1 + draws.below(8);
    for (uint32_t line = 0; line < line_count; ++line) {
      if (line > 0) text += '\n';
      text += std::string(4 * draws.below(4), ' ');
      for (uint32_t words = 1 + draws.below(8); words > 0; --words) {
        text += draws.of(code_);
        if (draws.below(3) != 0) text += ' ';
      }
    }
    return text;
  }

  std::string prose(Draws draws) const {
    const char* ends[] = {" ", " ", " ", ", ", ". ", "\n", " - ", "! "};
    std::string text;
    for (uint32_t words = 1 + draws.below(30); words > 0; --words) {
      text += draws.of(prose_);
      text += ends[draws.below(8)];
    }
    return text;
  }

  std::string unicode_points(Draws draws) const {  // half from the basic plane, half from any
    std::string text;
    for (uint32_t left = 1 + draws.below(40); left > 0; --left) {
      const uint32_t plane = draws.below(2) != 0 ? draws.below(17) : 0;
      add((plane << 16) + draws.below(65536), text);
    }
    return text;
  }

  std::string scripts(Draws draws) const {
    std::string text;
    for (uint32_t left = 1 + draws.below(30); left > 0; --left) {
      if (draws.below(3) == 0) {
        text += draws.of(marks_);
        continue;
      }
      const auto [first, last] = ranges_[draws.below(ranges_.size())];
      add(first + draws.below(last - first + 1), text);
    }
    return text;
  }

  std::string blanks(Draws draws) const {
    std::string text;
    for (uint32_t left = draws.below(24); left > 0; --left) text += draws.of(blanks_);
    return text;
  }

  void add(uint32_t point, std::string& text) const {
    if (point >= 0xd800 && point < 0xe000) return;
    for (const auto& [first, last] : skip_[point >> 16]) {
      if (point >= first && point <= last) return;
    }
    text += utf8_of(point);
  }

  std::vector<std::string> code_, prose_, marks_, blanks_;
  Ranges ranges_;
  std::vector<Ranges> skip_;  // of each plane
};

}  // namespace thermocline::test
