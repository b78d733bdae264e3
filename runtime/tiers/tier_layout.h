// TierLayout: which tiers a run keeps the FFN in, as --tiers and --disk-tier say.
//
// Thread-safety: pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "runtime/backend.h"

namespace thermocline {

enum class TierLayout {
  one,               // all weights in the backend's memory
  host_disk,         // up and down rows in a file, hot ones in memory too (BundleStore)
  device_host,       // all bundles in host memory, hot ones on a device too (DeviceTier)
  device_host_disk,  // both: what is cold on the device is in memory or read from the file
};

std::string_view name_of(TierLayout layout);  // "device,host"
bool has_device_tier(TierLayout layout);

// The tiers that hold a hot set under a budget of its own, the fastest first: "device", "host".
std::span<const std::string_view> hot_tiers(TierLayout layout);

// tiers: what --tiers says, empty where it is not given; disk_folder: what --disk-tier says,
// likewise. Usage Error, with the valid names, for anything else, and where the two do not go
// together.
TierLayout parse_tier_layout(std::string_view tiers, std::string_view disk_folder);

// host_budget: what --host-budget says, empty where it is not given. Usage Error where the layout
// has no use for it, or a policy has none without it.
void check_host_budget(TierLayout layout, std::string_view host_budget, bool any_policy);

// A device tier on the cores alone is for who asks for it: usage Error where --backend auto found
// no GPU, with the reason.
void require_device_tier(TierLayout layout, std::string_view backend_asked_for,
                         const BackendEntry& chosen);

}  // namespace thermocline
