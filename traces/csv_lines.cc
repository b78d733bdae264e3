#include "traces/csv_lines.h"

#include <fmt/format.h>

#include <charconv>

#include "models/error.h"

namespace thermocline {
namespace {

constexpr size_t kShownBytes = 40;  // of a wrong line, in a message

}  // namespace

bool CsvLines::next() {
  if (at_ == text_.size()) return false;
  const size_t end = std::min(text_.find('\n', at_), text_.size());
  line_ = text_.substr(at_, end - at_);
  if (line_.ends_with('\r')) line_.remove_suffix(1);
  at_ = std::min(end + 1, text_.size());
  ++line_number_;
  return true;
}

const std::vector<std::string_view>& CsvLines::fields(size_t count) {
  fields_.clear();
  std::string_view rest = line_;
  for (size_t comma; (comma = rest.find(',')) != std::string_view::npos && fields_.size() < count;
       rest.remove_prefix(comma + 1)) {
    fields_.push_back(rest.substr(0, comma));
  }
  fields_.push_back(rest);
  const bool right = fields_.size() == count && rest.find(',') == std::string_view::npos;
  if (!right) {
    fail_at(fmt::format("{} fields", count), line_);
  }
  return fields_;
}

int64_t CsvLines::number(size_t index, const char* name, int64_t min, int64_t max) {
  const std::string_view field = fields_[index];
  int64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  const bool whole = error == std::errc() && end == field.data() + field.size();
  if (!whole || value < min || value > max) {
    fail_at(fmt::format("{} from {} to {}", name, min, max), field);
  }
  return value;
}

void CsvLines::fail_at(const std::string& expected, std::string_view text) const {
  fail(expected, fmt::format("'{}'", text.substr(0, kShownBytes)));
}

void CsvLines::fail(const std::string& expected, const std::string& found) const {
  throw bad_input(fmt::format("{}:{}", path_, line_number_), expected, found);
}

}  // namespace thermocline
