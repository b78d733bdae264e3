// CsvLines: strict reading of our own comma-separated tables: numbers and words, no quotes.
//
// Goals: one line at a time from mapped bytes; every Error names file, line, what was expected.
// Non-goals: quoted fields, blanks around values, other separators.
// Thread-safety: one reader, one thread.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline {

class CsvLines {
 public:
  CsvLines(std::span<const std::byte> bytes, std::string path)
      : text_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), path_(std::move(path)) {}

  // Moves to the next line; false at the end. A line may end in "\r\n".
  bool next();
  std::string_view line() const { return line_; }
  // The line's fields; an Error unless there are `count` of them.
  const std::vector<std::string_view>& fields(size_t count);
  // Field `index` as a number from `min` to `max`; call fields() first.
  int64_t number(size_t index, const char* name, int64_t min, int64_t max);
  uint32_t number(size_t index, const char* name) {
    return static_cast<uint32_t>(number(index, name, 0, std::numeric_limits<uint32_t>::max()));
  }
  // Errors at this line.
  [[noreturn]] void fail_at(const std::string& expected, std::string_view text) const;  // quoted
  [[noreturn]] void fail(const std::string& expected, const std::string& found) const;

  uint64_t offset() const { return at_; }  // of the next line

 private:
  std::string_view text_, line_;
  std::string path_;
  uint64_t at_ = 0, line_number_ = 0;
  std::vector<std::string_view> fields_;
};

}  // namespace thermocline
