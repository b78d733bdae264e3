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
  LinkProfile migration;  // from the slow tier into the fast one

  // Hot neurons live in the fast tier, cold ones in the slow tier. A node with one tier has both
  // there.
  const TierProfile& fast() const;
  const TierProfile& slow() const;
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

// Errors: an input Error with file:line where a key is unknown, a value has the wrong unit or is
// out of range, or a node lacks what it needs.
Cluster parse_cluster(std::string_view toml, const std::string& origin);
Cluster open_cluster(const std::string& path);

// The PC-High of the PowerInfer paper: published figures, not measured ones.
Cluster default_cluster();

// One line per key of a cluster file: name, what is expected, default, meaning.
std::string cluster_keys();

}  // namespace thermocline
