// Quantities with units, at the border only: inside the program bytes are uint64_t and times ns.
//
// Accepted bytes: "4096", "4KiB", "1.5GiB", "10MB" (B, kB/KB, MB, GB, TB, KiB, MiB, GiB, TiB), with
// up to nine decimals and at most one space before the unit; a fraction goes to the nearest byte.
// Rates: the same with "/s", above zero. Errors: a usage Error that names the text and what was
// expected.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline {

uint64_t parse_bytes(std::string_view text);
double parse_bytes_per_second(std::string_view text);  // "42GB/s"
uint64_t parse_count(std::string_view text);           // plain decimal integer
double parse_number(std::string_view text);            // finite decimal

std::string format_bytes(uint64_t bytes);  // "1.50 GiB"; exact bytes below 1 KiB

// "10%", "4GiB", "4GiB..40GiB/4GiB", "10%..90%/20%", a comma list of these, or "auto" (10% to 90%
// by 20%). Percent is of `full_bytes`, all the FFN bundles of the model. Ascending, unique.
// Errors: below one bundle, above the model, zero step, reversed range.
std::vector<uint64_t> parse_budgets(std::string_view text, uint64_t full_bytes,
                                    uint64_t bundle_bytes);

}  // namespace thermocline
