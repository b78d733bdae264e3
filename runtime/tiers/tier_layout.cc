#include "runtime/tiers/tier_layout.h"

#include <fmt/format.h>

#include "models/error.h"
#include "models/node.h"

namespace thermocline {

std::string_view name_of(TierLayout layout) {
  constexpr std::string_view kNames[] = {"one", kHostDisk, kDeviceHost, kDeviceHostDisk};
  return kNames[static_cast<int>(layout)];
}

bool has_device_tier(TierLayout layout) {
  return layout == TierLayout::device_host || layout == TierLayout::device_host_disk;
}

std::span<const std::string_view> hot_tiers(TierLayout layout) {
  static constexpr std::string_view kTiers[] = {"device", "host"};
  const std::span<const std::string_view> both(kTiers);
  switch (layout) {
    case TierLayout::one:
      return {};
    case TierLayout::host_disk:
      return both.last(1);
    case TierLayout::device_host:
      return both.first(1);
    default:
      return both;
  }
}

TierLayout parse_tier_layout(std::string_view tiers, std::string_view disk_folder) {
  if (tiers.empty()) return disk_folder.empty() ? TierLayout::one : TierLayout::host_disk;
  if (tiers == name_of(TierLayout::device_host)) {
    if (disk_folder.empty()) return TierLayout::device_host;
    throw bad_usage(
        "--tiers device,host keeps all bundles in host memory: expected no --disk-tier, or "
        "--tiers device,host,disk");
  }
  for (const TierLayout layout : {TierLayout::host_disk, TierLayout::device_host_disk}) {
    if (tiers != name_of(layout)) continue;
    if (!disk_folder.empty()) return layout;
    throw bad_usage(
        fmt::format("--tiers {} needs --disk-tier FOLDER, where the cold bundles lie", tiers));
  }
  throw bad_usage(fmt::format(
      "--tiers {}: expected tiers, the fastest first: device,host (all bundles in host memory, "
      "hot ones on the device too), host,disk (with --disk-tier FOLDER) or device,host,disk (with "
      "--disk-tier FOLDER, and --host-budget beside --budget)",
      tiers));
}

void check_host_budget(TierLayout layout, std::string_view host_budget, bool any_policy) {
  if (layout != TierLayout::device_host_disk) {
    if (host_budget.empty()) return;
    throw bad_usage(
        "--host-budget is what host memory holds between a device and a disk: expected --tiers "
        "device,host,disk; of two tiers the faster has --budget");
  }
  if (any_policy && host_budget.empty()) {
    throw bad_usage(
        "--tiers device,host,disk needs --host-budget BYTES, for the hot bundles in host memory; "
        "--budget is the device's");
  }
  if (!any_policy && !host_budget.empty()) {
    throw bad_usage("--host-budget needs --policy: without one nothing is hot");
  }
}

void require_device_tier(TierLayout layout, std::string_view backend_asked_for,
                         const BackendEntry& chosen) {
  if (backend_asked_for != "auto" || chosen.name != "cpu") return;
  const BackendEntry* cuda = backends().by_name_or_null("cuda");
  throw bad_usage(fmt::format(
      "--tiers {}: no GPU can be used here: {}; --tiers host,disk with --disk-tier FOLDER "
      "keeps what is cold on a disk, and --backend cpu runs both parts on the cores, one after the "
      "other",
      name_of(layout), cuda == nullptr ? "this program is built without CUDA" : cuda->unusable()));
}

}  // namespace thermocline
