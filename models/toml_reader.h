// TomlReader: strict reading of the TOML files that people write, from tables of keys.
//
// Goals: a key is one row (name, what is expected, default, meaning, setter) from which parser,
//   help and documentation are made; an unknown key gets the nearest valid name; a wrong type,
//   unit or range is an input Error with file:line; hostile files are refused, not recursed into.
// Non-goals: what values mean together; writing TOML.
// Thread-safety: plain data and pure functions.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <toml.hpp>
#include <utility>
#include <vector>

#include "models/error.h"
#include "models/registry.h"

namespace thermocline {

// A value and where it stands, for errors.
struct TomlValue {
  const toml::value& value;
  const std::string& origin;
  std::string key;  // "prompts.shots"

  std::string place() const { return fmt::format("{}:{}", origin, value.location().line()); }
  [[noreturn]] void reject(const std::string& expected, const std::string& found) const {
    throw bad_input(place(), key + " to be " + expected, found);
  }
};

// "the string 'x'", "3", "an array".
std::string describe(const toml::value& value);
// The string, or an Error; control characters are refused, since text becomes arguments and HTML.
std::string checked_text(const TomlValue& found, const toml::value& value);
// Something that can name a folder: letters, digits, '-', '_', '.'; 1 to 64 of them.
bool is_plain_name(std::string_view text);
// Syntax errors and files too large or too deeply nested for the parser become input Errors.
toml::value parse_toml(std::string_view bytes, const std::string& origin);

template <class T>
struct TomlKey {
  std::string name, expected, fallback, meaning;  // fallback "required": no default
  std::function<void(T&, const TomlValue&)> set;
};

template <class T>
TomlKey<T> integer_key(std::string name, int64_t T::*member, int64_t from, int64_t to,
                       std::string fallback, std::string meaning) {
  const std::string expected = fmt::format("an integer from {} to {}", from, to);
  return {std::move(name), expected, std::move(fallback), std::move(meaning),
          [=](T& into, const TomlValue& found) {
            if (!found.value.is_integer()) found.reject(expected, describe(found.value));
            const int64_t value = found.value.as_integer();
            if (value < from || value > to) found.reject(expected, describe(found.value));
            into.*member = value;
          }};
}

template <class T>
TomlKey<T> text_key(std::string name, std::string T::*member, std::string expected,
                    std::string fallback, std::string meaning) {
  return {
      std::move(name), std::move(expected), std::move(fallback), std::move(meaning),
      [=](T& into, const TomlValue& found) { into.*member = checked_text(found, found.value); }};
}

template <class T>
TomlKey<T> flag_key(std::string name, bool T::*member, std::string fallback, std::string meaning) {
  return {std::move(name), "true or false", std::move(fallback), std::move(meaning),
          [=](T& into, const TomlValue& found) {
            if (!found.value.is_boolean()) found.reject("true or false", describe(found.value));
            into.*member = found.value.as_boolean();
          }};
}

template <class T>
TomlKey<T> list_key(std::string name, std::vector<std::string> T::*member, std::string expected,
                    std::string fallback, std::string meaning) {
  return {std::move(name), expected, std::move(fallback), std::move(meaning),
          [=](T& into, const TomlValue& found) {
            if (!found.value.is_array()) found.reject(expected, describe(found.value));
            (into.*member).clear();
            for (const toml::value& item : found.value.as_array()) {
              (into.*member).push_back(checked_text(found, item));
            }
            if ((into.*member).empty()) found.reject(expected, "an empty array");
          }};
}

// A required name that can be a folder.
template <class T>
TomlKey<T> name_key(std::string name, std::string T::*member, std::string meaning) {
  const std::string expected = "a name of letters, digits, '-', '_' and '.'";
  return {std::move(name), expected, "required", std::move(meaning),
          [=](T& into, const TomlValue& found) {
            into.*member = checked_text(found, found.value);
            if (!is_plain_name(into.*member)) found.reject(expected, describe(found.value));
          }};
}

// The keys of a table in the order of their lines: the table itself is unordered.
std::vector<std::pair<std::string, const toml::value*>> by_line(const toml::value& table);

using TomlPlaces = std::map<std::string, std::string>;  // key -> "file:line"

// Sets what `table` holds and notes where. `prefix` ("prompts.") goes before names in errors and
// places; keys named in `others` are the caller's.
template <class T>
void read_table(T& into, const std::vector<TomlKey<T>>& keys, const toml::value& table,
                const std::string& origin, const std::string& prefix, TomlPlaces& places,
                const std::vector<std::string>& others = {}) {
  std::vector<std::string> valid = others;
  for (const TomlKey<T>& key : keys) valid.push_back(key.name);
  for (const auto& [found_name, value] : by_line(table)) {
    const std::string& name = found_name;
    const TomlValue found{*value, origin, prefix + name};
    if (std::count(others.begin(), others.end(), name) != 0) continue;
    const auto key =
        std::find_if(keys.begin(), keys.end(), [&](const TomlKey<T>& k) { return k.name == name; });
    if (key == keys.end()) {
      const std::string what = prefix.empty() ? "key" : "key of '" + prefix + "'";
      throw Error(ErrorKind::input, found.place() + ": " + unknown_name(what, name, valid).what());
    }
    key->set(into, found);
    places[prefix + name] = found.place();
  }
  for (const TomlKey<T>& key : keys) {
    if (key.fallback != "required" || table.contains(key.name)) continue;
    throw bad_input(TomlValue{table, origin, ""}.place(),
                    "the key '" + prefix + key.name + "' (" + key.expected + ")", "none");
  }
}

}  // namespace thermocline
