// Node profiles, links and clusters: what a machine can do, in bytes and seconds.
//
// Tier: where bytes live. NodeProfile: the tiers of one node. Cluster: nodes and their network.
// Goals: cluster files that people write (TOML), every key checked and documented in one table;
//   each cluster says whether its figures were measured or published.
// Non-goals: times of a model on a cluster (sim/cost.h), measuring (runtime).
// Thread-safety: plain data and pure functions.
//
//   [cluster]
//   name = "pair"
//   source = "thermocline calibrate on both nodes"
//   measured = true
//   [network]
//   bandwidth = "1.2GB/s"
//   latency = "30us"
//   [[node]]
//   name = "box"
//   count = 2
//   ranks = 1
//   device = {memory = "24GB", bandwidth = "900GB/s"}
//   host = {memory = "64GB", bandwidth = "42GB/s", compute = "1.2TFLOP/s"}
//   migration = {bandwidth = "25GB/s", latency = "10us"}
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline {

enum class Tier : uint8_t { device, host, disk };  // fastest first
inline constexpr int kTierCount = 3;
std::string_view name_of(Tier tier);
// Layouts of tiers, the fastest first, as `--tiers` and a trace's configuration name them.
inline constexpr std::string_view kHostDisk = "host,disk", kDeviceHost = "device,host",
                                  kDeviceHostDisk = "device,host,disk";

struct TierProfile {
  uint64_t memory_bytes = 0;
  double bytes_per_second = 0;       // reading, all of it streamed; 0: the node has no such tier
  double operations_per_second = 0;  // of what computes on it; 0: not known, no limit
  bool present() const { return bytes_per_second > 0; }
  double seconds(double bytes, double operations) const {
    const double reading = bytes / bytes_per_second;
    return operations_per_second > 0 ? std::max(reading, operations / operations_per_second)
                                     : reading;
  }
};

// An FFN whose cold rows a disk has to bring before anything computes with them.
struct StagedWork {
  double hot_bytes = 0, cold_bytes = 0;  // rows that are read
  double hot_operations = 0, cold_operations = 0;
  double first = 0;  // share of a bundle's rows that are computed before its down row
};
// While the disk brings what is cold, the first rows of what is hot are computed; then the rest.
inline double staged_seconds(const TierProfile& memory, const TierProfile& disk,
                             const StagedWork& work) {
  const double hot_first =
      memory.seconds(work.first * work.hot_bytes, work.first * work.hot_operations);
  const double rest = memory.seconds((1 - work.first) * work.hot_bytes + work.cold_bytes,
                                     (1 - work.first) * work.hot_operations + work.cold_operations);
  return std::max(hot_first, disk.seconds(work.cold_bytes, 0)) + rest;
}

struct LinkProfile {
  double bytes_per_second = 0;  // 0: no link
  double latency_seconds = 0;
  bool present() const { return bytes_per_second > 0; }
  double seconds(double bytes) const {
    return present() ? latency_seconds + bytes / bytes_per_second : 0.0;
  }
};

struct NodeProfile {
  std::string name;
  std::array<TierProfile, kTierCount> tiers;
  LinkProfile migration;    // from the slow tier into the fast one; of three, into the device
  uint32_t rank_count = 0;  // ranks of a job that run here; 0: the file does not say

  // Hot neurons live in the fast tier, cold ones in the slow tier. A node with one tier has both
  // there.
  const TierProfile& fast() const;
  const TierProfile& slow() const;
  const TierProfile& tier(Tier which) const { return tiers[static_cast<int>(which)]; }
  bool tiered() const { return &fast() != &slow(); }
  // Whether what is cold has to be read into the fast tier before anything computes with it.
  bool stages_cold() const { return tiered() && &slow() == &tiers[static_cast<int>(Tier::disk)]; }
};

struct Cluster {
  std::string name;
  std::string source;     // where the figures come from
  bool measured = false;  // or published
  bool overlap = false;   // fast and slow tier compute at the same time
  std::vector<NodeProfile> nodes;
  LinkProfile network;
};

// The node of each rank of a job: as the file's `ranks` say, one where only other nodes say it, if
// they add up to `rank_count`; else spread over the nodes in order, as evenly as they go.
std::vector<uint32_t> nodes_of_ranks(const Cluster& cluster, size_t rank_count);
// The ranks that the file asks for; 0: it does not say.
uint64_t ranks_wanted(const Cluster& cluster);

// Errors: an input Error with file:line where a key is unknown, a value has the wrong unit or is
// out of range, or a node lacks what it needs.
Cluster parse_cluster(std::string_view toml, const std::string& origin);
Cluster open_cluster(const std::string& path);

// The PC-High of the PowerInfer paper: published figures, not measured ones.
Cluster default_cluster();

// One line per key of a cluster file: name, what is expected, default, meaning.
std::string cluster_keys();

}  // namespace thermocline
