#include "runtime/host_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "models/units.h"

namespace thermocline {
namespace {

// Of one host.
struct Sum {
  std::vector<size_t> ranks;
  uint64_t needed = 0;
  uint64_t free = ~uint64_t{0};  // the least that a rank saw
};

// "0, 1 and 5"
std::string list_of(const std::vector<size_t>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const char* separator = i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ";
    text += fmt::format("{}{}", separator, ranks[i]);
  }
  return text;
}

}  // namespace

std::string lack_of_host_memory(std::span<const RankMemory> ranks) {
  std::map<std::string, Sum> hosts;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    Sum& sum = hosts[ranks[rank].host.data()];
    sum.ranks.push_back(rank);
    sum.needed += ranks[rank].needed;
    sum.free = std::min(sum.free, ranks[rank].free);
  }
  for (const auto& [name, sum] : hosts) {
    // A rank that is alone has been held to its host already.
    if (sum.ranks.size() == 1 || sum.needed <= sum.free) continue;
    return fmt::format("host {}: its ranks {} take {} of its memory together, of which {} are free",
                       name, list_of(sum.ranks), format_bytes(sum.needed), format_bytes(sum.free));
  }
  return "";
}

}  // namespace thermocline
