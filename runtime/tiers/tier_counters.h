// TierCounters: what the tiers of a rank did.
//
// Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <string_view>

namespace thermocline {

// Grows from the start of a run; bundles and bytes of this rank.
struct TierCounters {
  uint64_t needed = 0;        // bundles that layers asked for, once a pass
  uint64_t here = 0;          // of these, hot and in the faster tier when they were asked for
  uint64_t read_bytes = 0;    // from the file, for those that were not, and what lay between
  uint64_t read_count = 0;    // as so many reads
  uint64_t moved_bytes = 0;   // from the slower tier, for the hot set
  uint64_t moved_count = 0;   // bundles
  uint64_t ahead_bytes = 0;   // of read_bytes, before a layer asked for them
  uint64_t ahead_count = 0;   // bundles
  uint64_t ahead_used = 0;    // of these, needed
  uint64_t passed_bytes = 0;  // from the file, for a tier above this one, of what is not hot here
  uint64_t passed_count = 0;  // bundles
  uint64_t wait_ns = 0;       // for what was not there
};

// What TierCounters::here of `tier` ("device", "host") is called, wherever it is shown.
inline const char* name_of_here(std::string_view tier) {
  return tier == "device" ? "on_device" : "in_memory";
}

// Calls visit(name, count) for what is counted of `tier` in bundles, reads and bytes, by the name
// that result rows give it.
template <class Visit>
void for_each_counter(const TierCounters& tiers, std::string_view tier, Visit visit) {
  visit("needed", tiers.needed);
  visit(name_of_here(tier), tiers.here);
  visit("read_bytes", tiers.read_bytes);
  visit("read_count", tiers.read_count);
  visit("ahead_bytes", tiers.ahead_bytes);
  visit("ahead_count", tiers.ahead_count);
  visit("ahead_used", tiers.ahead_used);
  visit("moved_bytes", tiers.moved_bytes);
  visit("moved_count", tiers.moved_count);
  visit("passed_bytes", tiers.passed_bytes);
  visit("passed_count", tiers.passed_count);
}

}  // namespace thermocline
