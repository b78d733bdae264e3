#include "models/toml_reader.h"

#include <cctype>
#include <sstream>

#include "models/utf8.h"

namespace thermocline {
namespace {

constexpr size_t kBytesMax = 64 << 10;
constexpr int kNestingMax = 32;  // the parser recurses once per bracket, and once per dotted name
constexpr int kDotsMax = 256;

void check_size(std::string_view bytes, const std::string& origin) {
  if (bytes.size() > kBytesMax) {
    throw bad_input(origin, fmt::format("at most {} bytes of TOML", kBytesMax),
                    fmt::format("{} bytes", bytes.size()));
  }
  int depth = 0, line = 1, dots = 0;
  for (const char c : bytes) {
    depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
    dots = c == '\n' ? 0 : dots + (c == '.' ? 1 : 0);
    line += c == '\n' ? 1 : 0;
    if (depth <= kNestingMax && dots <= kDotsMax) continue;
    throw bad_input(
        fmt::format("{}:{}", origin, line),
        fmt::format("at most {} nested brackets and {} dots a line", kNestingMax, kDotsMax),
        "more");
  }
}

// TOML is UTF-8, and toml11 (3.7) reads beyond its buffer where a string is not.
void check_utf8(std::string_view bytes, const std::string& origin) {
  int line = 1;
  for (size_t i = 0; i < bytes.size();) {
    const size_t size = utf8_size(bytes.substr(i));
    if (size == 0) {
      throw bad_input(fmt::format("{}:{}", origin, line), "TOML in UTF-8",
                      fmt::format("the byte 0x{:02x}", static_cast<uint8_t>(bytes[i])));
    }
    line += bytes[i] == '\n' ? 1 : 0;
    i += size;
  }
}

// "[error] toml::parse_table: ...\n --> file\n ...": the first line says it.
std::string first_line(std::string what) {
  what = what.substr(0, what.find('\n'));
  const size_t end_of_tag = what.find("] ");
  return end_of_tag == std::string::npos ? what : what.substr(end_of_tag + 2);
}

}  // namespace

std::string describe(const toml::value& value) {
  switch (value.type()) {
    case toml::value_t::string:
      return "the string '" + value.as_string().str + "'";
    case toml::value_t::integer:
      return fmt::format("{}", value.as_integer());
    case toml::value_t::floating:
      return fmt::format("{}", value.as_floating());
    case toml::value_t::boolean:
      return value.as_boolean() ? "true" : "false";
    case toml::value_t::array:
      return "an array";
    case toml::value_t::table:
      return "a table";
    default:
      return "a date";
  }
}

std::string checked_text(const TomlValue& found, const toml::value& value) {
  if (!value.is_string()) found.reject("a string", describe(value));
  const std::string& text = value.as_string().str;
  const bool plain =
      std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; });
  if (!plain) found.reject("a string without control characters", "one that has some");
  return text;
}

bool is_plain_name(std::string_view text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
  });
  return plain && !text.empty() && text.size() <= 64 && text.front() != '.';
}

toml::value parse_toml(std::string_view bytes, const std::string& origin) {
  check_size(bytes, origin);
  check_utf8(bytes, origin);
  std::istringstream stream{std::string(bytes)};
  try {
    return toml::parse(stream, origin);
  } catch (const toml::exception& error) {
    throw bad_input(fmt::format("{}:{}", origin, error.location().line()), "TOML",
                    first_line(error.what()));
  } catch (const std::exception& error) {
    throw bad_input(origin, "TOML", first_line(error.what()));
  }
}

std::vector<std::pair<std::string, const toml::value*>> by_line(const toml::value& table) {
  std::vector<std::pair<std::string, const toml::value*>> items;
  for (const auto& [name, value] : table.as_table()) items.emplace_back(name, &value);
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    const auto line_a = a.second->location().line(), line_b = b.second->location().line();
    return line_a != line_b ? line_a < line_b : a.first < b.first;
  });
  return items;
}

}  // namespace thermocline
