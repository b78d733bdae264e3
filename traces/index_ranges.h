// "0..3,8,11..20": which tasks, steps or layers an option names.
//
// Goals: one spelling wherever a command asks for some of many.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace thermocline {

// Both ends belong to it.
struct IndexRange {
  uint64_t first, last;
  bool operator==(const IndexRange&) const = default;
};

// Ascending and apart. Usage Error naming `option` for anything else.
std::vector<IndexRange> parse_index_ranges(std::string_view text, std::string_view option);

bool contains(const std::vector<IndexRange>& ranges, uint64_t index);

}  // namespace thermocline
