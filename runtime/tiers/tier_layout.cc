#include "runtime/tiers/tier_layout.h"

#include <fmt/format.h>

#include "models/error.h"

namespace thermocline {

std::string_view name_of(TierLayout layout) {
  constexpr std::string_view kNames[] = {"one", "host,disk", "device,host"};
  return kNames[static_cast<int>(layout)];
}

TierLayout parse_tier_layout(std::string_view tiers, std::string_view disk_folder) {
  if (tiers.empty()) return disk_folder.empty() ? TierLayout::one : TierLayout::host_disk;
  if (tiers == name_of(TierLayout::host_disk)) {
    if (!disk_folder.empty()) return TierLayout::host_disk;
    throw bad_usage("--tiers host,disk needs --disk-tier FOLDER, where the cold bundles lie");
  }
  if (tiers == name_of(TierLayout::device_host)) {
    if (disk_folder.empty()) return TierLayout::device_host;
    throw bad_usage(
        "--tiers device,host keeps all bundles in host memory: expected no --disk-tier");
  }
  throw bad_usage(fmt::format(
      "--tiers {}: expected two tiers, the faster first: device,host (all bundles in host memory, "
      "hot ones on the device too) or host,disk (with --disk-tier FOLDER)",
      tiers));
}

void require_device_tier(std::string_view backend_asked_for, const BackendEntry& chosen) {
  if (backend_asked_for != "auto" || chosen.name != "cpu") return;
  const BackendEntry* cuda = backends().by_name_or_null("cuda");
  throw bad_usage(fmt::format(
      "--tiers device,host: no GPU can be used here: {}; --tiers host,disk with --disk-tier FOLDER "
      "keeps what is cold on a disk, and --backend cpu runs both parts on the cores, one after the "
      "other",
      cuda == nullptr ? "this program is built without CUDA" : cuda->unusable()));
}

}  // namespace thermocline
