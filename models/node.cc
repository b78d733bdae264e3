#include "models/node.h"

#include <algorithm>

#include "models/cli.h"
#include "models/error.h"
#include "models/toml_reader.h"
#include "models/units.h"

namespace thermocline {
namespace {

constexpr int64_t kNodeCountMax = 4096;
constexpr int64_t kNodeRanksMax = 256;

// PowerInfer, SOSP'24, section 8.1: i9-13900K with 192 GB at 67.2 GB/s, RTX 4090 with 24 GB at
// about 1 TB/s, PCIe 4.0. The paper's 64 GB/s of PCIe counts both directions. Rates of computing
// are peaks: 82.6 TFLOP/s (NVIDIA, Ada whitepaper, FP16 and FP32 without tensor cores); of the CPU
// from its published clocks, 8 cores of 32 operations a cycle at 5.4 GHz and 16 of 16 at 4.3 GHz.
constexpr std::string_view kDefaultCluster = R"toml(
[cluster]
name = "pc-high"
source = "published: PowerInfer, SOSP'24, section 8.1, PC-High; peak rates of computing"
measured = false
[[node]]
name = "pc-high"
device = {memory = "24GB", bandwidth = "1000GB/s", compute = "82.6TFLOP/s"}
host = {memory = "192GB", bandwidth = "67.2GB/s", compute = "2.48TFLOP/s"}
migration = {bandwidth = "32GB/s", latency = "10us"}
)toml";

struct TimeUnit {
  std::string_view name;
  double seconds;
};
constexpr TimeUnit kTimeUnits[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1.0}};

double parse_seconds(const std::string& text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string unit = text.substr(digits);
  std::vector<std::string> valid;
  for (const TimeUnit& known : kTimeUnits) {
    if (unit == known.name) return parse_number(text.substr(0, digits)) * known.seconds;
    valid.emplace_back(known.name);
  }
  throw unknown_name("unit of time", unit, valid);
}

// A key whose value is a text with a unit.
template <class T, class Value>
TomlKey<T> unit_key(std::string name, Value T::*member, Value (*parse)(const std::string&),
                    Value from, Value to, std::string expected, std::string fallback,
                    std::string meaning) {
  return {std::move(name), expected, std::move(fallback), std::move(meaning),
          [=](T& into, const TomlValue& found) {
            const std::string text = checked_text(found, found.value);
            Value value;
            try {
              value = parse(text);
            } catch (const Error& error) {
              found.reject(expected, error.what());
            }
            if (!(value >= from && value <= to)) found.reject(expected, "'" + text + "'");
            into.*member = value;
          }};
}

// "1.2TFLOP/s".
double parse_operations(const std::string& text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string unit = text.substr(digits);
  const std::pair<std::string, double> units[] = {
      {"GFLOP/s", 1e9}, {"TFLOP/s", 1e12}, {"PFLOP/s", 1e15}};
  std::vector<std::string> valid;
  for (const auto& [name, size] : units) {
    if (unit == name) return parse_number(text.substr(0, digits)) * size;
    valid.push_back(name);
  }
  throw unknown_name("unit of computing", unit, valid);
}

double rate(const std::string& text) { return parse_bytes_per_second(text); }
uint64_t bytes(const std::string& text) { return parse_bytes(text); }

constexpr double kRateMin = 1e3, kRateMax = 1e15;
constexpr uint64_t kMemoryMin = 1 << 20, kMemoryMax = uint64_t{1} << 50;

const std::vector<TomlKey<Cluster>>& header_keys() {
  static const std::vector<TomlKey<Cluster>> keys = {
      name_key("name", &Cluster::name, "shown with every time that was modelled on it"),
      text_key("source", &Cluster::source, "a string", "\"\"", "where the figures come from"),
      flag_key("measured", &Cluster::measured, "false", "measured figures, not published ones"),
      flag_key("overlap", &Cluster::overlap, "false",
               "fast and slow tier work at the same time: the longer counts, not the sum"),
  };
  return keys;
}

const std::vector<TomlKey<LinkProfile>>& link_keys() {
  static const std::vector<TomlKey<LinkProfile>> keys = {
      unit_key("bandwidth", &LinkProfile::bytes_per_second, rate, kRateMin, kRateMax,
               "a rate such as 25GB/s, from 1kB/s to 1000TB/s", "required", "one direction"),
      unit_key("latency", &LinkProfile::latency_seconds, parse_seconds, 0.0, 10.0,
               "a time such as 30us, from 0s to 10s", "0s", "added once to each transfer"),
  };
  return keys;
}

const std::vector<TomlKey<TierProfile>>& tier_keys() {
  static const std::vector<TomlKey<TierProfile>> keys = {
      unit_key("memory", &TierProfile::memory_bytes, bytes, kMemoryMin, kMemoryMax,
               "bytes such as 24GB, from 1MiB to 1024TiB", "required", "room for weights"),
      unit_key("bandwidth", &TierProfile::bytes_per_second, rate, kRateMin, kRateMax,
               "a rate such as 67.2GB/s, from 1kB/s to 1000TB/s", "required",
               "reading, by all cores or the whole device at once"),
      unit_key("compute", &TierProfile::operations_per_second, parse_operations, 1e6, 1e18,
               "a rate such as 1.2TFLOP/s, up to 1000PFLOP/s", "no limit",
               "multiplications and additions of what computes on the tier's bytes"),
  };
  return keys;
}

struct NodeEntry {
  std::string name;
  int64_t count = 1;
  int64_t ranks = 0;
};

const std::vector<TomlKey<NodeEntry>>& node_keys() {
  static const std::vector<TomlKey<NodeEntry>> keys = {
      name_key("name", &NodeEntry::name, "of this kind of node"),
      integer_key("count", &NodeEntry::count, 1, kNodeCountMax, "1", "how many such nodes"),
      integer_key("ranks", &NodeEntry::ranks, 1, kNodeRanksMax, "ranks are spread evenly",
                  "ranks of a job on each such node, in the order of the nodes; 1 on nodes without "
                  "it where others have it; ranks of a node share its memory and bandwidth"),
  };
  return keys;
}

constexpr std::string_view kTierNames[kTierCount] = {"device", "host", "disk"};

class ClusterParser {
 public:
  explicit ClusterParser(const std::string& origin) : origin_(origin) {}

  Cluster parse(const toml::value& file) {
    struct Nothing {};
    Nothing nothing;
    read_table<Nothing>(nothing, {}, file, origin_, "", places_, {"cluster", "network", "node"});
    Cluster cluster;
    if (!file.contains("cluster")) reject(file, "a table [cluster]", "none");
    read(cluster, header_keys(), file.at("cluster"), "cluster.");
    if (file.contains("network")) {
      read(cluster.network, link_keys(), file.at("network"), "network.");
    }
    if (!file.contains("node") || !file.at("node").is_array()) {
      reject(file, "at least one [[node]]", "none");
    }
    for (const toml::value& node : file.at("node").as_array()) add_node(cluster, node);
    if (cluster.nodes.size() > 1 && !cluster.network.present()) {
      reject(file, "a table [network], since there are several nodes", "none");
    }
    return cluster;
  }

 private:
  [[noreturn]] void reject(const toml::value& at, const std::string& expected,
                           const std::string& found) const {
    throw bad_input(TomlValue{at, origin_, ""}.place(), expected, found);
  }

  template <class T>
  void read(T& into, const std::vector<TomlKey<T>>& keys, const toml::value& table,
            const std::string& prefix, const std::vector<std::string>& others = {}) {
    if (!table.is_table()) {
      reject(table, "'" + prefix.substr(0, prefix.size() - 1) + "' to be a table", describe(table));
    }
    read_table(into, keys, table, origin_, prefix, places_, others);
  }

  void add_node(Cluster& cluster, const toml::value& table) {
    NodeEntry entry;
    read(entry, node_keys(), table, "node.", {"device", "host", "disk", "migration"});
    NodeProfile node;
    node.name = entry.name;
    node.rank_count = static_cast<uint32_t>(entry.ranks);
    int tier_count = 0;
    for (int tier = 0; tier < kTierCount; ++tier) {
      const std::string name(kTierNames[tier]);
      if (!table.contains(name)) continue;
      read(node.tiers[tier], tier_keys(), table.at(name), "node." + name + ".");
      ++tier_count;
    }
    if (table.contains("migration")) {
      read(node.migration, link_keys(), table.at("migration"), "node.migration.");
    }
    if (tier_count == 0) reject(table, "a node with device, host or disk", "none of them");
    if (tier_count > 1 && !node.migration.present()) {
      reject(table, "'node.migration', since the node has several tiers", "none");
    }
    if (cluster.nodes.size() + static_cast<size_t>(entry.count) > kNodeCountMax) {
      reject(table, "at most " + std::to_string(kNodeCountMax) + " nodes in all", "more");
    }
    cluster.nodes.insert(cluster.nodes.end(), static_cast<size_t>(entry.count), node);
  }

  const std::string& origin_;
  TomlPlaces places_;
};

template <class T>
void append_keys(std::string& text, const std::string& prefix,
                 const std::vector<TomlKey<T>>& keys) {
  for (const TomlKey<T>& key : keys) {
    text += "  " + prefix + key.name + ": " + key.meaning + " (" + key.expected + "; " +
            key.fallback + ")\n";
  }
}

}  // namespace

std::string_view name_of(Tier tier) { return kTierNames[static_cast<int>(tier)]; }

const TierProfile& NodeProfile::fast() const {
  const auto found = std::find_if(tiers.begin(), tiers.end(),
                                  [](const TierProfile& tier) { return tier.present(); });
  TC_CHECK(found != tiers.end(), "node '" + name + "' has no tier");
  return *found;
}

const TierProfile& NodeProfile::slow() const {
  const TierProfile* first = &fast();
  const auto found = std::find_if(tiers.begin(), tiers.end(), [&](const TierProfile& tier) {
    return tier.present() && &tier != first;
  });
  return found == tiers.end() ? *first : *found;
}

uint64_t ranks_wanted(const Cluster& cluster) {
  uint64_t said = 0, silent = 0;
  for (const NodeProfile& node : cluster.nodes) {
    said += node.rank_count;
    silent += node.rank_count == 0 ? 1 : 0;
  }
  return said == 0 ? 0 : said + silent;
}

std::vector<uint32_t> nodes_of_ranks(const Cluster& cluster, size_t rank_count) {
  const bool said = ranks_wanted(cluster) == rank_count;
  std::vector<uint32_t> nodes;
  for (size_t rank = 0; rank < rank_count && !said; ++rank) {
    nodes.push_back(static_cast<uint32_t>(rank * cluster.nodes.size() / rank_count));
  }
  for (uint32_t node = 0; node < cluster.nodes.size() && said; ++node) {
    nodes.insert(nodes.end(), std::max(1u, cluster.nodes[node].rank_count), node);
  }
  return nodes;
}

Cluster parse_cluster(std::string_view toml, const std::string& origin) {
  return ClusterParser(origin).parse(parse_toml(toml, origin));
}

Cluster open_cluster(const std::string& path) { return parse_cluster(read_file(path), path); }

Cluster default_cluster() { return parse_cluster(kDefaultCluster, "default cluster"); }

std::string cluster_keys() {
  std::string text;
  append_keys(text, "cluster.", header_keys());
  append_keys(text, "network.", link_keys());
  append_keys(text, "node.", node_keys());
  append_keys(text, "node.device|host|disk.", tier_keys());
  append_keys(text, "node.migration.", link_keys());
  return text;
}

}  // namespace thermocline
