#include "traces/index_ranges.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "models/error.h"

namespace thermocline {
namespace {

bool parse_index(std::string_view text, uint64_t& index) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  return error == std::errc{} && end == text.data() + text.size();
}

// "8" or "11..20".
bool parse_range(std::string_view text, IndexRange& range) {
  const size_t dots = text.find("..");
  if (dots == std::string_view::npos) {
    range = {};
    return parse_index(text, range.first) && parse_index(text, range.last);
  }
  return parse_index(text.substr(0, dots), range.first) &&
         parse_index(text.substr(dots + 2), range.last) && range.first <= range.last;
}

}  // namespace

std::vector<IndexRange> parse_index_ranges(std::string_view text, std::string_view option) {
  std::vector<IndexRange> ranges;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    IndexRange range{};
    const bool valid = parse_range(text.substr(begin, comma - begin), range);
    if (!valid || (!ranges.empty() && range.first <= ranges.back().last)) {
      throw bad_usage(
          fmt::format("{} '{}': expected ascending numbers and ranges, for example "
                      "0..3,8",
                      option, text));
    }
    ranges.push_back(range);
    begin = comma + 1;
  }
  return ranges;
}

bool contains(const std::vector<IndexRange>& ranges, uint64_t index) {
  return std::any_of(ranges.begin(), ranges.end(), [index](const IndexRange& range) {
    return range.first <= index && index <= range.last;
  });
}

}  // namespace thermocline
