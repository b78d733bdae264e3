// Cluster files: what is accepted has nodes with a tier, and a node for each rank.
#include "models/error.h"
#include "models/node.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  return {R"([cluster]
name = "pair"
overlap = true
[network]
bandwidth = "1.25GB/s"
latency = "30us"
[[node]]
name = "box"
count = 2
ranks = 3
device = {memory = "24GB", bandwidth = "900GB/s", compute = "82.6TFLOP/s"}
host = {memory = "64GiB", bandwidth = "42GB/s"}
migration = {bandwidth = "25GB/s", latency = "10us"}
)",
          "[cluster]\nname = 'a'\n[[node]]\nname = 'n'\n"
          "disk = {memory = '8GB', bandwidth = '2GB/s'}\n"};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    const Cluster cluster = parse_cluster({reinterpret_cast<const char*>(data), size}, "input");
    for (const NodeProfile& node : cluster.nodes) TC_CHECK(node.fast().present(), "a tier");
    const uint64_t wanted = ranks_wanted(cluster);
    const size_t ranks = wanted == 0 ? 7 : wanted;
    const auto nodes = nodes_of_ranks(cluster, ranks);
    TC_CHECK(nodes.size() == ranks, "a node for each rank");
    for (const uint32_t node : nodes) TC_CHECK(node < cluster.nodes.size(), "a node that is there");
  } catch (const Error&) {
  }
  return 0;
}
