// TierLayout: which tiers a run keeps the FFN in, as --tiers and --disk-tier say.
//
// Thread-safety: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "runtime/backend.h"

namespace thermocline {

enum class TierLayout {
  one,          // all weights in the backend's memory
  host_disk,    // up and down rows in a file, hot ones in memory too (BundleStore)
  device_host,  // all bundles in host memory, hot ones on a device too (DeviceTier)
};

std::string_view name_of(TierLayout layout);  // "device,host"

// tiers: what --tiers says, empty where it is not given; disk_folder: what --disk-tier says,
// likewise. Usage Error, with the valid names, for anything else, and where the two do not go
// together.
TierLayout parse_tier_layout(std::string_view tiers, std::string_view disk_folder);

// device,host on the cores alone is for who asks for it: usage Error where --backend auto found no
// GPU, with the reason.
void require_device_tier(std::string_view backend_asked_for, const BackendEntry& chosen);

}  // namespace thermocline
